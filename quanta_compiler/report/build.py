"""Circuit, programs and their costs -> Report."""

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.network import Network, apply_network, operator_network
from quanta_compiler.kinds.kind import Form
from quanta_compiler.lowering.account import ELEMENT_BYTES
from quanta_compiler.lowering.accounting import ProgramCost
from quanta_compiler.lowering.program import Program
from quanta_compiler.lowering.table import GateTable
from quanta_compiler.planner.published import einsum_equation, linear_path
from quanta_compiler.report.figures import gate_reports, init_gain, parameter_report, rank_bounds
from quanta_compiler.report.report import ApplyReport, BackendReport, OperatorReport, Report, StepReport, breakeven


def build_report(  # noqa: PLR0917 - what was compiled, part by part
    circuit: Circuit,
    apply: Program,
    operator: Program,
    apply_cost: ProgramCost,
    operator_cost: ProgramCost,
    table: GateTable,
    default_backend: str,
) -> Report:
    """Gather every figure of a compiled circuit; `default_backend` is what `auto` takes on the CPU."""
    gates = gate_reports(circuit)
    tokens = apply.plan.tokens
    per_token = (numbers / tokens for numbers in (apply_cost.flops, apply_cost.peak_bytes, apply_cost.saved_bytes))
    backends = BackendReport("torch", *per_token), _fused_report(circuit, table, tokens)
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
        backends=tuple(sorted(backends, key=lambda backend: backend.name != default_backend)),
    )


def _fused_report(circuit: Circuit, table: GateTable, tokens: int) -> BackendReport:
    """Count what the kernel keeps: the input, from which backward computes the states again, and products B A."""
    trains = any(gate.trains for gate in circuit.gates_in_file_order())
    composed = sum(
        entry.blocks * entry.rows * entry.columns
        for entry in table.entries
        if entry.matrix is not None and entry.matrix.gate.form is Form.FACTORS and not entry.matrix.factor
    )
    saved, held = circuit.in_features * trains, circuit.in_features + circuit.out_features
    return BackendReport(
        "fused",
        flops_per_token=float(table.flops_per_token),
        peak_bytes_per_token=ELEMENT_BYTES * (held + composed / tokens),
        saved_bytes_per_token=ELEMENT_BYTES * (saved + composed / tokens),
    )


def _apply_report(circuit: Circuit, program: Program, cost: ProgramCost, sequential: int) -> ApplyReport:
    tokens = program.plan.tokens
    return ApplyReport(
        *_published(circuit, program, apply_network(circuit, tokens)),
        planned_tokens=tokens,
        flops_per_token=cost.flops / tokens,
        sequential_flops_per_token=sequential,
        peak_bytes_per_token=cost.peak_bytes / tokens,
        saved_bytes_per_token=cost.saved_bytes / tokens,
        steps=_steps(cost),
    )


def _operator_report(circuit: Circuit, program: Program, cost: ProgramCost) -> OperatorReport:
    return OperatorReport(
        *_published(circuit, program, operator_network(circuit)),
        flops=cost.flops,
        sequential_flops=program.plan.sequential_flops,
        peak_bytes=cost.peak_bytes,
        slices=1 if program.loop is None else program.loop.slices,
        steps=_steps(cost),
    )


def _published(
    circuit: Circuit, program: Program, network: Network
) -> tuple[tuple[str, ...], str, tuple[tuple[int, ...], ...], str]:
    """Return the fields of a PlanReport."""
    names = tuple(operand.name for operand in network.operands)
    path = tuple(linear_path(program.plan, circuit, network))
    return names, einsum_equation(network), path, program.plan.optimizer


def _steps(cost: ProgramCost) -> tuple[StepReport, ...]:
    return tuple(StepReport(step.op, step.operands, step.shape, step.flops) for step in cost.steps)
