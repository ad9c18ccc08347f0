"""The tensors that a plan starts from."""

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kinds.kind import Form
from quanta_compiler.planner.plan import Leaf, PauliPlan


def gate_leaves(gate: Gate, rank: tuple[int, ...], is_turned: bool, pauli: PauliPlan | None) -> list[Leaf]:
    """Return the tensors of a gate, in the order in which gate by gate applies them.

    A low-rank gate is two leaves joined by the leg `rank` (none where the rank is 1), so that it is applied as B (A x)
    wherever that is cheaper than forming B A. A transposed share reads its owner's storage with rows and columns
    exchanged, and where `is_turned` the transpose is what is made. `pauli` says how the matrix of a circuit, or a block
    of one, is made.
    """
    rows, columns = (gate.columns, gate.rows) if gate.transpose != is_turned else (gate.rows, gate.columns)
    if gate.is_diagonal:
        return [Leaf("gate", gate.per + gate.columns, gate, pauli)]
    if gate.form is not Form.FACTORS:
        return [Leaf("gate", gate.per + rows + columns, gate, pauli)]
    stored_b = Leaf("factor_b", (*gate.per, *rows, *rank), gate)
    stored_a = Leaf("factor_a", (*gate.per, *rank, *columns), gate)
    return [stored_b, stored_a] if gate.transpose else [stored_a, stored_b]
