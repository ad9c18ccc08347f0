"""`pauli` gates: applied by their structure, or as a matrix that is made by applying it to few vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.two_design import two_design_circuit
from quanta_compiler.passes import MEMORY_FLOPS, absorb_rotations, canonical_order
from quanta_compiler.planner.assembly import Assembly, PauliForms, searched
from quanta_compiler.planner.plan import PauliPlan
from quanta_compiler.spec.rotations import TURN_FLOPS, halves, is_power_of_two, pauli_flops, turned_pairs

_PASSES_BETWEEN = 4
"""How often a sum of two halves goes through the memory beside what its halves do: parted, turned, put together."""


def pauli_forms(circuit: Circuit, batch: int) -> PauliForms:
    """Choose for every `pauli` gate what takes less time on a batch: its structure, or its matrix.

    A matrix [n, k] takes k vectors to make, whatever the batch, and 2 n k FLOPs to apply. No square matrix is made that
    has more rows than the batch has vectors. With `per` every gate is a matrix.
    """
    applied: dict[str, Callable[[int], PauliPlan]] = {}
    made: dict[str, PauliPlan] = {}
    width = circuit.in_size
    for gate in circuit.gates:
        rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
        if gate.kind == "pauli":
            count = batch * width // columns
            structured = _plan_gate(gate, max(rows, columns), count, transpose=gate.transpose)
            # The matrix is made from its smaller side: the first columns of Q, or of its transpose.
            is_wide = rows > columns if gate.transpose else rows < columns
            matrix = _plan_gate(gate, max(rows, columns), min(rows, columns), transpose=is_wide)
            dense = count * (2 * rows * columns + MEMORY_FLOPS * max(rows, columns))
            if gate.per or _price(matrix) + dense < _price(structured):
                made[gate.name] = matrix
            else:
                applied[gate.name] = partial(_plan_gate, gate, max(rows, columns), transpose=gate.transpose)
        width = width // columns * rows
    return applied, made


def _plan_gate(gate: Gate, size: int, count: int, *, transpose: bool) -> PauliPlan:
    assert gate.layers is not None
    return plan_pauli(size, gate.layers, gate.rank_parameters, count, transpose=transpose)


@lru_cache(maxsize=256)
def plan_pauli(size: int, layers: int, kept: int | None, count: int, *, transpose: bool) -> PauliPlan:
    """Plan the orthogonal matrix of a size, or its transpose, on `count` vectors."""
    if not is_power_of_two(size):
        first, second = (plan_pauli(half, layers, kept, count, transpose=transpose) for half in halves(size))
        flops = 2 * (first.flops + second.flops) + TURN_FLOPS * turned_pairs(size, kept) * count
        return PauliPlan(size, layers, kept, transpose, count, flops, halves=(first, second))
    circuit = two_design_circuit(size.bit_length() - 1, layers, kept, transpose=transpose)
    if not circuit.gates:
        return PauliPlan(size, layers, kept, transpose, count, flops=0)
    absorbed = canonical_order(absorb_rotations(circuit, count))
    plan = Assembly(absorbed, "apply", count, searched("auto")).plan()
    return PauliPlan(size, layers, kept, transpose, count, plan.flops, circuit, plan)


def one_by_one(circuit: Circuit) -> PauliForms:
    """Return what every `pauli` gate costs applied turn by turn: enough to count, not to execute."""

    def counted(gate: Gate, count: int) -> PauliPlan:
        size = max(circuit.size(gate.rows), circuit.size(gate.columns))
        assert gate.layers is not None
        flops = count * pauli_flops(size, gate.layers, gate.rank_parameters)
        return PauliPlan(size, gate.layers, gate.rank_parameters, gate.transpose, count, flops)

    return {gate.name: partial(counted, gate) for gate in circuit.gates if gate.kind == "pauli"}, {}


def _price(pauli: PauliPlan) -> int:
    """Return what applying it takes, in FLOPs at the rate of a large product: its FLOPs, and its way through memory."""
    numbers = pauli.size * pauli.count
    if pauli.halves is not None:
        return 2 * sum(map(_price, pauli.halves)) + _PASSES_BETWEEN * MEMORY_FLOPS * numbers
    if pauli.plan is None:
        return 0
    batch = pauli.plan.batch
    passes = sum(batch in step.legs for step in pauli.plan.steps)
    return pauli.flops + passes * MEMORY_FLOPS * numbers
