"""The tensors that a plan starts from."""

from __future__ import annotations

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.planner.plan import Leaf


def gate_leaves(gate: Gate, rank: tuple[int, ...]) -> list[Leaf]:
    """Return the stored tensors of a gate, in the order in which gate by gate applies them.

    A low-rank gate is two leaves joined by the leg `rank` (none where the rank is 1), so that it is applied as B (A x)
    wherever that is cheaper than forming B A. A transposed share reads its owner's storage with rows and columns
    exchanged.
    """
    rows, columns = (gate.columns, gate.rows) if gate.transpose else (gate.rows, gate.columns)
    if gate.kind == "diagonal":
        return [Leaf("gate", gate.per + gate.columns, gate)]
    if gate.kind != "lowrank":
        return [Leaf("gate", gate.per + rows + columns, gate)]
    stored_b = Leaf("lowrank_b", (*gate.per, *rows, *rank), gate)
    stored_a = Leaf("lowrank_a", (*gate.per, *rank, *columns), gate)
    return [stored_b, stored_a] if gate.transpose else [stored_a, stored_b]
