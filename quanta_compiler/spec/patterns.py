"""Patterns: lists of gates by rule, one table row each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from quanta_compiler.kinds.two_design import two_design

TWO_DESIGN = "two_design"
"""The pattern with gates of two kinds: RY on single axes, CZ on pairs."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rule that lists the gates over n axes, as tuples of positions among those axes."""

    meaning: str
    count: Callable[[int], int]
    """How many gates there are over n axes, without listing them."""
    gates: Callable[[int], Iterator[tuple[int, ...]]]
    fewest_axes: int


def _all_pairs(n: int) -> Iterator[tuple[int, ...]]:
    # QuanTA's order, (-1, -2), (-1, -3), ..., each pair in ascending position.
    return ((second, first) for first in range(n - 1, 0, -1) for second in range(first - 1, -1, -1))


def _chain(n: int) -> Iterator[tuple[int, ...]]:
    return ((i, i + 1) for i in range(n - 1))


def _ring(n: int) -> Iterator[tuple[int, ...]]:
    yield from _chain(n)
    if n > 2:
        yield (0, n - 1)


def _brick(n: int) -> Iterator[tuple[int, ...]]:
    return ((i, i + 1) for start in (0, 1) for i in range(start, n - 1, 2))


def two_design_pattern(layers: int) -> Pattern:
    """Return the two-design circuit of so many layers; of its gates those on two axes are CZ, the others RY."""
    return Pattern(
        "RY on every axis, then layers of CZ on (0,1), (2,3), ..., RY on these, CZ on (1,2), (3,4), ..., RY on these",
        # Every pair of neighbours takes a CZ and two RY in each layer.
        lambda n: n + 3 * layers * (n - 1),
        lambda n: (turn.wires for turn in two_design(n, layers)),
        1,
    )


PATTERNS: dict[str, Pattern] = {
    "all_pairs": Pattern("one gate per pair of axes, in QuanTA's order", lambda n: n * (n - 1) // 2, _all_pairs, 2),
    "each": Pattern("one gate per axis", lambda n: n, lambda n: ((i,) for i in range(n)), 1),
    "chain": Pattern("(0,1), (1,2), ..., (N-2,N-1)", lambda n: max(0, n - 1), _chain, 2),
    "ring": Pattern("chain, then (0,N-1) where N > 2", lambda n: n if n > 2 else max(0, n - 1), _ring, 2),
    "brick": Pattern("(0,1), (2,3), ..., then (1,2), (3,4), ...", lambda n: max(0, n - 1), _brick, 2),
    TWO_DESIGN: two_design_pattern(1),
}
