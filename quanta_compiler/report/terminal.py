"""The report for people, as tables."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from quanta_compiler.diagnostics import escape
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.report.report import Report, StepReport
from quanta_compiler.text.quantities import amount_text, bytes_text, figure_text, percent_text
from quanta_compiler.text.tables import FIGURES, Cells, Column, Table, numbers
from quanta_compiler.text.words import layout_text, plural, span_text

_FOLDED_STEPS = 6
"""At least this many small steps in a row share one line."""
_SMALL_STEP = 16
"""How many times smaller than the largest a small step is, in numbers and in FLOPs."""


def summary_table(report: Report) -> Table:
    """Return the figures that one chooses a circuit by."""
    return Table(title(report), FIGURES, (*_parameter_rows(report), *_apply_rows(report), *_operator_rows(report)))


def report_tables(report: Report) -> tuple[Table, ...]:
    """Return everything in a report: the summary, the gates, and the steps of both modes."""
    tokens = plural(report.apply.planned_tokens, "token")
    apply, operator = report.apply, report.operator
    return (
        summary_table(report),
        _gates_table(report),
        _steps_table(f"forward, the steps for {tokens} (planned by {apply.optimizer})", report, apply.steps),
        _steps_table(f"operator(), its steps (planned by {operator.optimizer})", report, operator.steps),
    )


def title(report: Report) -> str:
    """Return a circuit in one line: name, widths, layout, number of gates."""
    return circuit_line(report.name, (report.in_features, report.out_features), report.layout, len(report.gates))


def circuit_title(circuit: Circuit) -> str:
    """Return the same line for a circuit that is not compiled."""
    layout = {circuit.legs[leg].axis: circuit.legs[leg].size for leg in circuit.inputs}
    return circuit_line(circuit.name, (circuit.in_features, circuit.out_features), layout, len(circuit.gates))


def circuit_line(name: str, features: tuple[int, int], layout: Mapping[str, int], gates: int) -> str:
    """Return the same line from its parts."""
    widths = f"{features[0]} -> {features[1]} features"
    return f"{name}: {widths}, layout {layout_text(layout)}, {plural(gates, 'gate')}"


def _parameter_rows(report: Report) -> list[Cells]:
    parameters, rank = report.parameters, report.rank
    dense = f"{percent_text(parameters.percent_of_dense)} of a dense layer's {parameters.dense:,}"
    rows: list[Cells] = [("trainable parameters", f"{parameters.trainable:,}", dense)]
    if parameters.frozen:
        rows.append(("frozen parameters", f"{parameters.frozen:,}", ""))
    full = min(report.in_features, report.out_features)
    gain = report.init_gain
    return [
        *rows,
        ("rank by shapes", span_text(rank.lower, rank.upper), f"of at most {full:,}"),
        ("gain at initialization", figure_text(gain), "size of the output over that of the input"),
    ]


def _apply_rows(report: Report) -> list[Cells]:
    sequential = report.apply.sequential_flops_per_token
    default = "for batches as planned"
    if report.backends[0].name == "fused":
        default += " on the CPU; torch elsewhere"
    turned = report.stores_angles
    rows: list[Cells] = [("backend by default", report.backends[0].name, default)]
    for backend in report.backends:
        flops = backend.flops_per_token
        aside = ", without what makes the rotations" if turned and backend.name == "fused" else ""
        rows += [
            (f"{backend.name}: FLOPs per token", amount_text(flops), _against(sequential, flops)),
            (
                f"{backend.name}: saved per token",
                bytes_text(backend.saved_bytes_per_token),
                f"kept for backward{aside}",
            ),
            (
                f"{backend.name}: peak per token",
                bytes_text(backend.peak_bytes_per_token),
                "at once in a forward pass, parameters aside",
            ),
        ]
    return rows


def _operator_rows(report: Report) -> list[Cells]:
    operator = report.operator
    never = report.breakeven_tokens is None
    peak = f"at once, built in {operator.slices} slices" if operator.slices > 1 else "at once"
    remark = "its matrix is never cheaper" if never else "tokens, from which on the matrix is as cheap to build"
    return [
        ("operator(): FLOPs", amount_text(operator.flops), _against(operator.sequential_flops, operator.flops)),
        ("operator(): peak", bytes_text(operator.peak_bytes), peak),
        ("break-even", "never" if never else f"{report.breakeven_tokens:,}", remark),
        ("planned for", f"{report.apply.planned_tokens:,}", "tokens a batch"),
    ]


def _against(sequential: float, planned: float) -> str:
    if not sequential or planned == sequential:
        return "as gate by gate"
    return f"{percent_text(100 * planned / sequential)} of gate by gate ({amount_text(sequential)})"


def _gates_table(report: Report) -> Table:
    columns = (*map(Column, ("gate", "kind", "axes", "matrix")), *numbers("parameters", "FLOPs/token"))
    rows = tuple(
        (
            gate.name,
            gate.kind,
            " ".join(gate.axes),
            _shape(gate.shape),
            f"{gate.parameters:,}",
            amount_text(gate.flops_per_token),
        )
        for gate in report.gates
    )
    return Table("gates", columns, rows)


def _steps_table(heading: str, report: Report, steps: Sequence[StepReport]) -> Table:
    columns = (*map(Column, ("result", "step", "operands", "shape")), *numbers("FLOPs"))
    folded = {place: fold for fold in folded_steps(report, steps) for place in fold}
    rows: list[Cells] = []
    for place, step in enumerate(steps):
        fold = folded.get(place)
        if fold is None:
            operands, flops = " ".join(step.operands), amount_text(step.flops)
            rows.append((f"%{place + 1}", step.op, operands, _shape(step.shape), flops))
        elif place == fold.start:
            whole = sum(steps[one].flops for one in fold)
            # Later steps refer to results inside, so that the first and the last are named.
            rows.append((f"%{fold.start + 1} to %{fold.stop}", f"{len(fold)} small steps", "", "", amount_text(whole)))
    return Table(heading if rows else f"{heading}: none", columns, tuple(rows))


def folded_steps(report: Report, steps: Sequence[StepReport]) -> list[range]:
    """Return the runs of small steps of one of a report's plans that share a line, in order, as places from 0.

    They make the matrices of rotations. Without rotations there are none: small steps then merge the gates themselves,
    and each is worth its line.
    """
    if not report.stores_angles:
        return []
    numbers = max((math.prod(step.shape) for step in steps), default=0)
    flops = max((step.flops for step in steps), default=0)

    def is_small(step: StepReport) -> bool:
        return _SMALL_STEP * math.prod(step.shape) < numbers and _SMALL_STEP * step.flops < max(1, flops)

    runs = []
    first = 0
    for small, run in groupby(steps, key=is_small):
        end = first + len(list(run))
        if small and end - first >= _FOLDED_STEPS:
            runs.append(range(first, end))
        first = end
    return runs


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"


def files_table(paths: Mapping[str, Path]) -> Table:
    """Return what was written, path by path."""
    remarks = {"py": "the module", "json": "the report", "html": "the report as a page", "svg": "the picture"}
    columns = (Column(""), Column("", is_remark=True))
    return Table("written", columns, tuple((escape(str(path)), remarks.get(kind, "")) for kind, path in paths.items()))
