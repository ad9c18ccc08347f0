"""Circuit, programs and their costs -> Report."""

from __future__ import annotations

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.network import apply_network, operator_network
from quanta_compiler.lowering.account import StepCost
from quanta_compiler.lowering.accounting import ProgramCost
from quanta_compiler.lowering.program import Program
from quanta_compiler.planner.published import einsum_equation, linear_path
from quanta_compiler.report.figures import gate_reports, init_gain, parameter_report, rank_bounds
from quanta_compiler.report.report import ApplyReport, OperatorReport, Report, StepReport, breakeven


def build_report(
    circuit: Circuit, apply: Program, operator: Program, apply_cost: ProgramCost, operator_cost: ProgramCost
) -> Report:
    """Gather every figure of a compiled circuit."""
    gates = gate_reports(circuit)
    tokens = apply.plan.tokens
    return Report(
        name=circuit.name,
        in_features=circuit.in_features,
        out_features=circuit.out_features,
        layout={circuit.legs[leg].axis: circuit.legs[leg].size for leg in circuit.inputs},
        gates=gates,
        parameters=parameter_report(circuit),
        rank=rank_bounds(circuit),
        init_gain=init_gain(circuit),
        apply=_apply_report(circuit, apply, apply_cost, sum(gate.flops_per_token for gate in gates)),
        operator=_operator_report(circuit, operator, operator_cost),
        breakeven_tokens=breakeven(operator_cost.flops, apply_cost.flops, tokens),
    )


def _apply_report(circuit: Circuit, program: Program, cost: ProgramCost, sequential: int) -> ApplyReport:
    plan = program.plan
    network = apply_network(circuit, plan.tokens)
    return ApplyReport(
        operands=tuple(operand.name for operand in network.operands),
        einsum=einsum_equation(network),
        path=tuple(linear_path(plan, circuit, network)),
        optimizer=plan.optimizer,
        planned_tokens=plan.tokens,
        flops_per_token=cost.flops / plan.tokens,
        sequential_flops_per_token=sequential,
        peak_bytes_per_token=cost.peak_bytes / plan.tokens,
        saved_bytes_per_token=cost.saved_bytes / plan.tokens,
        steps=_steps(cost.steps),
    )


def _operator_report(circuit: Circuit, program: Program, cost: ProgramCost) -> OperatorReport:
    plan = program.plan
    network = operator_network(circuit)
    return OperatorReport(
        operands=tuple(operand.name for operand in network.operands),
        einsum=einsum_equation(network),
        path=tuple(linear_path(plan, circuit, network)),
        optimizer=plan.optimizer,
        flops=cost.flops,
        sequential_flops=plan.sequential_flops,
        peak_bytes=cost.peak_bytes,
        slices=1 if program.loop is None else program.loop.slices,
        steps=_steps(cost.steps),
    )


def _steps(steps: tuple[StepCost, ...]) -> tuple[StepReport, ...]:
    return tuple(StepReport(step.op, step.operands, step.shape, step.flops) for step in steps)
