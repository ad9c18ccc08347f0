"""The matrix of a resolved gate: its shape, and how much of it is stored."""

from __future__ import annotations

import math

from quanta_compiler.spec.circuit_spec import GateSpec
from quanta_compiler.spec.rotations import lie_numbers, pauli_angles


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape for a message."""
    return "[" + ", ".join(map(str, shape)) + "]"


def matrix_shape(gate: GateSpec) -> tuple[int, ...]:
    """Return the shape of a gate's matrix: `[*per, rows, columns]`."""
    rows = math.prod(axis.size for axis in gate.to)
    columns = math.prod(axis.size for axis in gate.axes)
    return (*(axis.size for axis in gate.per), rows, columns)


def stored_numbers(gate: GateSpec) -> int:
    """Return how many numbers a gate stores, trainable or not."""
    *per, rows, columns = matrix_shape(gate)
    larger, smaller = max(rows, columns), min(rows, columns)
    if gate.kind == "orthogonal":
        own = lie_numbers(larger, smaller, gate.rank_parameters)
    elif gate.kind == "pauli":
        own = pauli_angles(larger, gate.layers or 0, gate.rank_parameters)
    elif gate.kind == "lowrank":
        own = (gate.rank or 0) * (rows + columns)
    else:
        own = {"diagonal": rows, "ry": 1, "cz": 0, "slice": 0}.get(gate.kind, rows * columns)
    return math.prod(per) * own
