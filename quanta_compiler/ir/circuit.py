"""The circuit: gates in single-assignment form over numbered legs.

A *leg* is a stretch of an axis between two gates that change it: a gate that contracts an axis ends its leg and, where
the axis survives, begins a new one. The circuit is therefore a tensor network already: a leg is an index of the
network, and two gates are connected exactly where they name the same leg. Names stay only as labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from quanta_compiler.kinds.kind import Form, Kind
from quanta_compiler.spec.circuit_spec import Init


@dataclass(frozen=True, slots=True)
class Block(Kind):
    """The composition of several gates."""

    name = "block"
    meaning = "A composition of gates."
    form = Form.MATRIX
    schemes = ()


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of an axis between two gates that change it."""

    axis: str
    size: int


@dataclass(frozen=True, slots=True)
class Gate:
    """A matrix of shape `[*per, rows, columns]` applied to some legs of the state.

    `columns` are the legs that it contracts, `rows` those that it creates, `per` those that select the matrix. A
    diagonal gate (`diagonal`, `cz`) changes nothing about its legs: its `rows` are its `columns`.
    """

    name: str
    matrix: Kind
    """The gate's kind, with its options; `Block` for a composition that a pass has made."""
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    per: tuple[int, ...]
    position: int
    """The gate's place in the file, which orders the state dict and the operands of the report's einsum."""
    parameter: str
    """The gate that owns the parameter: itself, or the first of a chain of `share`."""
    transpose: bool = False
    frozen: bool = False
    across: str | None = None
    """Which layers of a model have the parameter together, for pictures: a circuit by itself is the same."""
    init: Init | None = None
    angle: int | None = None
    """For an `ry` that is a part of a `pauli` gate: which of that gate's angles it turns by."""
    block: int | None = None
    """For a matrix that a pass has written a `pauli` gate out by: which of that gate's blocks it is."""
    block_of: Gate | None = None
    """That gate."""
    parts: tuple[Gate, ...] = ()
    """The gates, in order, that a `block` composes (made by a pass, never written in a file)."""

    @property
    def is_diagonal(self) -> bool:
        """Return whether the gate only scales: it has one number for every index of its legs."""
        return self.matrix.is_diagonal

    @property
    def kind(self) -> str:
        """Return the name of the gate's kind."""
        return self.matrix.name

    @property
    def form(self) -> Form:
        """Return how the gate's matrix is there."""
        return self.matrix.form

    @property
    def trains(self) -> bool:
        """Return whether the gate's parameter, its own or a shared one, requires a gradient."""
        return self.matrix.trains and not self.frozen

    def on_legs(self, named: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Gate:
        """Return the gate, and what it composes, on the legs that `named` gives for its own."""
        parts = tuple(part.on_legs(named) for part in self.parts)
        return replace(self, columns=named(self.columns), rows=named(self.rows), per=named(self.per), parts=parts)


@dataclass(frozen=True, slots=True)
class Circuit:
    """Gates applied in order to the legs `inputs`, leaving `outputs`; legs are positions in `legs`.

    The input vector of `in_features` numbers is padded with zeros or truncated to the product of `inputs`, row-major;
    the final legs, in the order of `outputs`, are flattened and padded or truncated to `out_features`.
    """

    name: str
    in_features: int
    out_features: int
    legs: tuple[Leg, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    gates: tuple[Gate, ...]

    def size(self, legs: tuple[int, ...]) -> int:
        """Return the product of the sizes of some legs."""
        return math.prod(self.legs[leg].size for leg in legs)

    @property
    def in_size(self) -> int:
        """Return the size of the state before the first gate: the product of the layout."""
        return self.size(self.inputs)

    @property
    def out_size(self) -> int:
        """Return the size of the state after the last gate."""
        return self.size(self.outputs)

    def gates_in_file_order(self) -> tuple[Gate, ...]:
        """Return the gates of the file, blocks taken apart, in the order of the file."""
        flat = [part for gate in self.gates for part in (gate.parts or (gate,))]
        return tuple(sorted(flat, key=lambda gate: gate.position))
