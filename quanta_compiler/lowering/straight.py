"""Plan -> Program without a loop, and the programs of the rotations that a plan applies."""

from __future__ import annotations

import math
from functools import lru_cache

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.lowering.chains import Lowering
from quanta_compiler.lowering.program import BlocksProgram, Operation, PauliProgram, Program
from quanta_compiler.lowering.slicing import row_legs
from quanta_compiler.planner.plan import BlocksPlan, PauliPlan, Plan


def lower_straight(plan: Plan, circuit: Circuit) -> Program:
    """Return a program without a loop."""
    rows = row_legs(plan, circuit)
    lowering = Lowering(plan, lower_paulis(plan))
    value = lowering.lower(len(plan.leaves) + len(plan.steps) - 1, plan.output, rows)
    assert lowering.layouts[value] == plan.output, "the result stands in the layout that was asked for"
    return program_of(plan, circuit, tuple(lowering.operations), rows)


def program_of(plan: Plan, circuit: Circuit, operations: tuple[Operation, ...], rows: int) -> Program:
    """Return operations as the program of a circuit."""
    return Program(
        plan=plan,
        operations=operations,
        rows=rows,
        in_features=circuit.in_features,
        out_features=circuit.out_features,
        in_size=circuit.in_size,
        out_size=circuit.out_size,
    )


def lower_paulis(plan: Plan) -> dict[int, PauliProgram]:
    """Return the program of every `pauli` gate in a plan, by the tensor that it makes: a leaf, or a step's result."""
    paulis = [*(leaf.pauli for leaf in plan.leaves), *(step.pauli for step in plan.steps)]
    return {tensor: _lower_pauli(pauli) for tensor, pauli in enumerate(paulis) if pauli is not None}


def _lower_pauli(pauli: PauliPlan) -> PauliProgram:
    blocks = None if pauli.blocks is None else _lower_blocks(pauli.blocks)
    if pauli.halves is not None:
        first, second = map(_lower_pauli, pauli.halves)
        return PauliProgram(pauli, halves=(first, second), blocks=blocks)
    if pauli.plan is None or pauli.circuit is None:
        return PauliProgram(pauli, blocks=blocks)
    return PauliProgram(pauli, _lower_rotation(pauli.plan, pauli.circuit), blocks=blocks)


# Gates that are alike have the same plans.
@lru_cache(maxsize=256)
def _lower_rotation(plan: Plan, circuit: Circuit) -> Program:
    return lower_straight(plan, circuit)


@lru_cache(maxsize=256)
def _lower_blocks(blocks: BlocksPlan) -> BlocksProgram:
    if blocks.halves is not None:
        first, second = map(_lower_blocks, blocks.halves)
        return BlocksProgram(blocks, halves=(first, second))
    return BlocksProgram(blocks, tuple(map(_lower_block, blocks.plans)))


def _lower_block(plan: Plan) -> Program:
    lowering = Lowering(plan, {})
    lowering.lower(len(plan.leaves) + len(plan.steps) - 1, plan.output, 1)
    size = math.prod(plan.sizes[leg] for leg in plan.output if leg != plan.batch)
    return Program(plan, tuple(lowering.operations), 1, in_features=0, out_features=size, in_size=0, out_size=size)
