"""How random circuits draw the kinds of gates: one row a kind, of what its files and its numbers look like."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INITS: tuple[Any, ...] = (
    *("kaiming_uniform", "xavier_uniform", "normal", "orthogonal", "identity", "zeros"),
    {"scheme": "normal", "std": 0.3},
)
MAPS = ("exp", "cayley", "taylor", "neumann", "householder", "givens")
SERIES = ("taylor", "neumann")
"""Maps that are cut, and orthogonal only about."""
ROTATION_INITS: tuple[Any, ...] = ("zeros", "normal", {"scheme": "normal", "std": 1e-9})


@dataclass(frozen=True)
class Kind:
    """A kind of gate, by the words of the interface."""

    options: Callable[[random.Random, int, int], dict[str, Any]] = lambda draw, rows, columns: {}
    """Draw what stands beside `kind`, for a matrix `[rows, columns]`."""
    weight: int = 1
    counts: tuple[int, ...] = (1, 1, 2, 2, 3)
    """How many axes it acts on."""
    size: int | None = None
    """The only size of an axis that it acts on."""
    most: int = 400
    """The largest side of its matrix: the numbers of some are slow to compute, those of others are many to read."""
    resized: float = 0.0
    """How often it changes its axes."""
    reshaped: float = 0.0
    """How often its axes become others of the same size together, of those times; always where it must be square."""
    one_way: bool = False
    """No axis of it shrinks while another grows."""
    inits: tuple[Any, ...] = ()
    """How its numbers are drawn; nothing where it has none that train."""
    is_diagonal: bool = False
    """It cannot change its axes, nor can a gate that shares its parameter."""
    in_patterns: bool = True
    is_computed: bool = False
    """Its matrix is made when the module runs, by small steps."""
    deviation: Callable[[int], float] = lambda length: 1 / math.sqrt(length)
    """The deviation of numbers that neither grow nor shrink a vector; `length` is that of their last dimension."""


def _rank(draw: random.Random, rows: int, columns: int) -> dict[str, Any]:
    return {"rank": draw.randint(1, min(rows, columns))}


def _value(draw: random.Random, rows: int, columns: int) -> dict[str, Any]:
    deviation = 1 / math.sqrt(columns)
    return {"value": [[round(draw.gauss(0, deviation), 3) for _ in range(columns)] for _ in range(rows)]}


def _lie(draw: random.Random, rows: int, columns: int) -> dict[str, Any]:
    options: dict[str, Any] = dict(draw.choice(({}, *({"map": name} for name in MAPS))))
    if options.get("map") in SERIES and draw.random() < 0.5:
        options["order"] = draw.randint(2, 7)
    return options | _some(draw, min(rows, columns))


def _angles(draw: random.Random, rows: int, columns: int) -> dict[str, Any]:
    # Any matrix has a column of as many angles as its largest power of two has bits; one of size 1 has none.
    return draw.choice(({}, {"layers": draw.randint(0, 3)})) | _some(draw, max(rows, columns).bit_length() - 1)


def _planes(draw: random.Random, rows: int, columns: int) -> dict[str, Any]:
    if rows == 1 or draw.random() < 0.4:
        return {}
    return {"pairs": [draw.sample(range(rows), 2) for _ in range(draw.randint(1, 6))]}


def _some(draw: random.Random, most: int) -> dict[str, Any]:
    return {"rank_parameters": draw.randint(1, most)} if most and draw.random() < 0.4 else {}


KINDS: dict[str, Kind] = {
    "dense": Kind(weight=3, resized=0.4, inits=INITS),
    "lowrank": Kind(_rank, resized=0.4, inits=INITS),
    "diagonal": Kind(inits=INITS, is_diagonal=True, deviation=lambda length: 1.0),
    "orthogonal": Kind(
        _lie,
        most=24,
        resized=0.4,
        reshaped=0.3,
        one_way=True,
        is_computed=True,
        inits=ROTATION_INITS,
        # A square matrix of side n stores about n^2 / 2 numbers: angles come to some pi at most.
        deviation=lambda length: 1 / math.sqrt(math.sqrt(max(length, 1))),
    ),
    "givens": Kind(
        _planes,
        most=48,
        resized=0.3,
        reshaped=1.0,
        is_computed=True,
        inits=ROTATION_INITS,
        deviation=lambda length: 1.0,
    ),
    "pauli": Kind(
        _angles,
        most=48,
        resized=0.4,
        reshaped=0.3,
        one_way=True,
        is_computed=True,
        inits=ROTATION_INITS,
        deviation=lambda length: 1.0,
    ),
    "ry": Kind(counts=(1,), size=2, is_computed=True, inits=ROTATION_INITS, deviation=lambda length: 1.0),
    "cz": Kind(counts=(2,), is_computed=True),
    "slice": Kind(resized=0.8, reshaped=0.4, in_patterns=False),
    "constant": Kind(_value, most=16, resized=0.4, in_patterns=False),
}
STORED = tuple(name for name, kind in KINDS.items() if not kind.is_computed)
"""Kinds whose matrices are held as they are: of these every figure is exact."""
ROTATIONS = tuple(name for name, kind in KINDS.items() if kind.is_computed)
