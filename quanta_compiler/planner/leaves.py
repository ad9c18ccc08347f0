"""The tensors that a plan starts from."""

from __future__ import annotations

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.planner.plan import Leaf, PauliPlan


def gate_leaves(gate: Gate, rank: tuple[int, ...], is_tall: bool, pauli: PauliPlan | None) -> list[Leaf]:
    """Return the tensors of a gate, in the order in which gate by gate applies them.

    A low-rank gate is two leaves joined by the leg `rank` (none where the rank is 1), so that it is applied as B (A x)
    wherever that is cheaper than forming B A. A transposed share reads its owner's storage with rows and columns
    exchanged. A rotation is computed from its smaller side, which is told apart by `is_tall`: whether the owner's
    matrix has at least as many rows as columns. `pauli` says how a `pauli` gate's matrix, or the block of one, is made.
    """
    rows, columns = (gate.columns, gate.rows) if gate.transpose else (gate.rows, gate.columns)
    if gate.is_diagonal:
        return [Leaf("gate", gate.per + gate.columns, gate, pauli)]
    if gate.kind == "orthogonal":
        return [Leaf("gate", gate.per + (rows + columns if is_tall else columns + rows), gate)]
    if gate.kind == "pauli":
        return [Leaf("gate", gate.per + (columns + rows if is_tall else rows + columns), gate, pauli)]
    if gate.kind != "lowrank":
        return [Leaf("gate", gate.per + rows + columns, gate, pauli)]
    stored_b = Leaf("lowrank_b", (*gate.per, *rows, *rank), gate)
    stored_a = Leaf("lowrank_a", (*gate.per, *rank, *columns), gate)
    return [stored_b, stored_a] if gate.transpose else [stored_a, stored_b]
