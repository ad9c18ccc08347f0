"""Patterns: lists of gates by rule, one table row each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quanta_compiler.kinds.kind import Kind
from quanta_compiler.kinds.options import LAYERS, Key
from quanta_compiler.kinds.orthogonal import Orthogonal
from quanta_compiler.kinds.two_design import TURNS, two_design

PatternGate = tuple[tuple[int, ...], Kind | None]
"""The positions of a gate's axes among those of the pattern, and its kind; None for the one that the file asks for."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rule that lists the gates over n axes; its options are arguments, by name."""

    meaning: str
    count: Callable[..., int]
    """How many gates there are over n axes, without listing them."""
    gates: Callable[..., Iterator[PatternGate]]
    """Lists them, by the sizes of the axes; a size is None where an error has been reported."""
    axes: int = 2
    """How many axes each gate acts on, where the file asks for its kind."""
    fewest_axes: int = 2
    options: Mapping[str, tuple[Key, Any]] = field(default_factory=dict)
    """What it takes beside what all take, and the values where the file gives none."""
    kinds: tuple[str, ...] = ()
    """The kinds of its gates, where they are not for the file to choose."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Why it does not take a key that other patterns take, where there is more to say than that."""


Sizes = Sequence[int | None]


def _alike(gates: Callable[[int], Iterator[tuple[int, ...]]]) -> Callable[[Sizes], Iterator[PatternGate]]:
    """Return a rule whose gates are all of the kind that the file asks for."""
    return lambda sizes: ((axes, None) for axes in gates(len(sizes)))


def _chain(n: int) -> Iterator[tuple[int, ...]]:
    return ((i, i + 1) for i in range(n - 1))


def _ring(n: int) -> Iterator[tuple[int, ...]]:
    yield from _chain(n)
    if n > 2:
        yield (0, n - 1)


def _two_design(sizes: Sizes, layers: int) -> Iterator[PatternGate]:
    """Yield the gates of a two-design circuit; RY is an orthogonal matrix where an axis has another size than 2."""
    for turn in two_design(len(sizes), layers):
        is_larger = len(turn.wires) == 1 and sizes[turn.wires[0]] != 2
        yield turn.wires, Orthogonal() if is_larger else TURNS[len(turn.wires)]


PATTERNS: dict[str, Pattern] = {
    "all_pairs": Pattern(
        "one gate per pair of axes, in QuanTA's order",
        lambda n: n * (n - 1) // 2,
        # (-1, -2), (-1, -3), ..., each pair in ascending position.
        _alike(lambda n: ((second, first) for first in range(n - 1, 0, -1) for second in range(first - 1, -1, -1))),
    ),
    "each": Pattern(
        "one gate per axis", lambda n: n, _alike(lambda n: ((i,) for i in range(n))), axes=1, fewest_axes=1
    ),
    "chain": Pattern("(0,1), (1,2), ..., (N-2,N-1)", lambda n: max(0, n - 1), _alike(_chain)),
    "ring": Pattern("chain, then (0,N-1) where N > 2", lambda n: n if n > 2 else max(0, n - 1), _alike(_ring)),
    "brick": Pattern(
        "(0,1), (2,3), ..., then (1,2), (3,4), ...",
        lambda n: max(0, n - 1),
        _alike(lambda n: ((i, i + 1) for start in (0, 1) for i in range(start, n - 1, 2))),
    ),
    "two_design": Pattern(
        "RY on every axis, then layers of CZ on (0,1), (2,3), ..., RY on these, CZ on (1,2), (3,4), ..., RY on these",
        # Every pair of neighbours takes a CZ and two RY in each layer.
        lambda n, layers: n + 3 * layers * (n - 1),
        _two_design,
        fewest_axes=1,
        options={"layers": (LAYERS, 1)},
        kinds=(*(kind.name for kind in TURNS.values()), Orthogonal.name),
        refusals={
            "kind": "its gates are of the kinds `ry` and `cz`, and `orthogonal` on axes of other sizes than 2",
            "to": "its axes have the same sizes before and after",
            "rank": "an RY is a rotation, a CZ is fixed",
            "rank_parameters": "`kind: pauli` is such a circuit as one gate, and takes `rank_parameters`",
        },
    ),
}
MIXED = tuple(name for name, pattern in PATTERNS.items() if pattern.kinds)
"""Patterns whose gates have kinds of their own."""


def options_of(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a pattern's options: those that are given, and the defaults of the others."""
    return {option: given.get(option, default) for option, (_, default) in PATTERNS[name].options.items()}
