"""What a circuit stores: shapes, counts and names of its tensors, as the state dict lists them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.kinds.initialisers import ENTRIES, INITIALISERS, Drawn
from quanta_compiler.spec.rotations import ROTATION_KINDS, lie_numbers, pauli_angles

TRAINED_KINDS = frozenset({"dense", "lowrank", "diagonal", *ROTATION_KINDS})
"""Kinds that store numbers; the others are fixed by the file."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of the state dict under `gates.`, and the scheme's view of it: `[..., fan_out, fan_in]`."""

    key: str
    gate: Gate
    shape: tuple[int, ...]
    fan_out: int
    fan_in: int

    @property
    def numbers(self) -> int:
        """Return how many numbers the tensor holds."""
        return math.prod(self.shape)


def matrix_shape(circuit: Circuit, gate: Gate) -> tuple[int, ...]:
    """Return `[*per, rows, columns]`."""
    per = tuple(circuit.legs[leg].size for leg in gate.per)
    return (*per, circuit.size(gate.rows), circuit.size(gate.columns))


def stored_tensors(circuit: Circuit, gate: Gate) -> tuple[Stored, ...]:
    """Return what a gate stores itself: nothing where it shares, or where its kind is fixed."""
    if gate.parameter != gate.name or gate.kind not in TRAINED_KINDS:
        return ()
    *per, rows, columns = matrix_shape(circuit, gate)
    if gate.kind == "diagonal":
        # A diagonal is drawn as a column vector of fan-in 1.
        return (Stored(gate.name, gate, (*per, rows), rows, 1),)
    if gate.kind == "lowrank":
        rank = gate.rank or 1
        return (
            Stored(f"{gate.name}.B", gate, (*per, rows, rank), rows, rank),
            Stored(f"{gate.name}.A", gate, (*per, rank, columns), rank, columns),
        )
    if gate.kind in ROTATION_KINDS:
        numbers = _angles(gate, rows, columns)
        return (Stored(gate.name, gate, (*per, numbers), rows, columns),)
    return (Stored(gate.name, gate, (*per, rows, columns), rows, columns),)


def _angles(gate: Gate, rows: int, columns: int) -> int:
    """Return how many numbers a rotation's matrix takes; those that stay at zero are not stored."""
    size, smaller = max(rows, columns), min(rows, columns)
    if gate.kind == "orthogonal":
        return lie_numbers(size, smaller, gate.rank_parameters)
    if gate.kind == "pauli":
        assert gate.layers is not None
        return pauli_angles(size, gate.layers, gate.rank_parameters)
    return 1


def drawing(stored: Stored) -> tuple[str, Drawn]:
    """Return the scheme of one tensor and what it draws: of a low-rank gate `zeros` draws A as it is by default."""
    init = stored.gate.init
    assert init is not None, "a gate that stores numbers has a scheme"
    scheme = ENTRIES[0] if init.scheme == "zeros" and stored.key.endswith(".A") else init.scheme
    std = init.std if init.std is not None else INITIALISERS[scheme].std or 0.0
    return scheme, Drawn(stored.fan_out, stored.fan_in, std, is_diagonal=stored.gate.kind == "diagonal")


def all_stored(circuit: Circuit) -> tuple[Stored, ...]:
    """Return every stored tensor in the order of the file."""
    return tuple(stored for gate in circuit.gates_in_file_order() for stored in stored_tensors(circuit, gate))
