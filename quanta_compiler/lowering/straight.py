"""Plan -> Program without a loop."""

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.lowering.chains import Lowering
from quanta_compiler.lowering.functions import applying, making
from quanta_compiler.lowering.program import Called, Operation, Program
from quanta_compiler.lowering.slicing import row_legs
from quanta_compiler.planner.plan import Plan


def lower_straight(plan: Plan, circuit: Circuit) -> Program:
    """Return a program without a loop."""
    rows = row_legs(plan, circuit)
    lowering = Lowering(plan, functions_of(plan))
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


def functions_of(plan: Plan) -> dict[int, Called]:
    """Return what every `pauli` gate of a plan needs, by the tensor that it makes: a leaf, or a step's result."""
    paulis = [*(leaf.pauli for leaf in plan.leaves), *(step.pauli for step in plan.steps)]
    return {
        tensor: (applying(pauli) if pauli.parts else None, making(pauli.blocks))
        for tensor, pauli in enumerate(paulis)
        if pauli is not None and pauli.blocks is not None
    }
