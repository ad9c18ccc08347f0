"""Circuit -> Plan: the cheapest of several ways to contract the network of one mode."""

from dataclasses import replace

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.kinds.kind import Form
from quanta_compiler.passes.absorb_rotations import absorb_rotations
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.drop_unit_axes import drop_unit_axes
from quanta_compiler.passes.merge_blocks import merge_blocks
from quanta_compiler.planner.assembly import Assembly, searched, sequential
from quanta_compiler.planner.pauli import one_by_one, pauli_forms, write_blocks_out
from quanta_compiler.planner.plan import Plan

BLOCK_TOKENS_FOR_OPERATOR = 1 << 30
"""In an operator the open input legs are the batch; blocks are tried for a large one and judged by their true cost."""


SMALL_FOR_OPERATOR = 1 << 16
"""A rotation is applied to all columns of an operator at once; a matrix of so few numbers leaves it to be sliced."""


def plan_apply(circuit: Circuit, tokens: int, optimizer: str = "auto") -> Plan:
    """Plan the circuit on a batch of `tokens` vectors; never more FLOPs than gate by gate, rotations absorbed."""
    return _plan(circuit, tokens, optimizer)


def plan_operator(circuit: Circuit, optimizer: str = "auto") -> Plan:
    """Plan the circuit's matrix; never more FLOPs than contracting the gates one by one, rotations absorbed."""
    return _plan(circuit, None, optimizer)


def _plan(circuit: Circuit, tokens: int | None, optimizer: str) -> Plan:
    """Return the plan of fewest FLOPs.

    Runs of small rotations become blocks first, which has more FLOPs and takes less time: from there on FLOPs decide.
    """
    circuit = drop_unit_axes(circuit)
    # An operator is planned as if it were applied to the unit vectors.
    vectors, small = (tokens, 0) if tokens is not None else (circuit.in_size, SMALL_FOR_OPERATOR)
    forms = pauli_forms(circuit, vectors, small)
    gate_by_gate = Assembly(circuit, tokens, sequential, one_by_one(circuit)).plan()
    # Asked before some of them are written out.
    has_paulis = any(gate.form is Form.CIRCUIT for gate in circuit.gates)
    if tokens is None:
        circuit, forms = write_blocks_out(circuit, forms)
    absorbed = absorb_rotations(circuit, vectors)
    ordered = canonical_order(absorbed)
    candidates = [Assembly(ordered, tokens, searched(optimizer), forms).plan()]
    if candidates[0].optimizer != "dp":
        merged = merge_blocks(ordered, tokens if tokens is not None else BLOCK_TOKENS_FOR_OPERATOR)
        if merged is not ordered:
            candidates.append(Assembly(merged, tokens, searched(optimizer), forms).plan("blocks+"))
    is_plain = absorbed is circuit and not has_paulis
    candidates.append(gate_by_gate if is_plain else Assembly(absorbed, tokens, sequential, forms).plan())
    best = min(candidates, key=lambda plan: plan.flops)
    return replace(best, sequential_flops=gate_by_gate.flops)
