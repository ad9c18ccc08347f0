"""The report for people: aligned plain text for pipes, rich tables for terminals, from the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quanta_compiler.diagnostics import escape
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.report.folding import folded_steps
from quanta_compiler.report.report import Report, StepReport

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table as RichTable

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; numbers stand to the right, and remarks fade beside them."""

    heading: str
    is_number: bool = False
    is_remark: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A title, headings (all empty where the rows explain themselves), and rows of text."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Cells, ...]


_GAP = 3
"""Between two columns, as wide as a terminal's table has it."""
FIGURES = (Column(""), Column("", is_number=True), Column("", is_remark=True))
"""Columns of figures that a line each explains."""


def summary_table(report: Report) -> Table:
    """Return the figures that one chooses a circuit by."""
    return Table(title(report), FIGURES, (*_parameter_rows(report), *_apply_rows(report), *_operator_rows(report)))


def report_tables(report: Report) -> tuple[Table, ...]:
    """Return everything in a report: the summary, the gates, and the steps of both modes."""
    tokens = f"{report.apply.planned_tokens:,} " + ("token" if report.apply.planned_tokens == 1 else "tokens")
    apply, operator = report.apply, report.operator
    return (
        summary_table(report),
        _gates_table(report),
        _steps_table(f"forward, the steps for {tokens} (planned by {apply.optimizer})", report, apply.steps),
        _steps_table(f"operator(), its steps (planned by {operator.optimizer})", report, operator.steps),
    )


def title(report: Report) -> str:
    """Return a circuit in one line: name, widths, layout, number of gates."""
    return _title(report.name, (report.in_features, report.out_features), report.layout, len(report.gates))


def circuit_title(circuit: Circuit) -> str:
    """Return the same line for a circuit that is not compiled."""
    layout = {circuit.legs[leg].axis: circuit.legs[leg].size for leg in circuit.inputs}
    return _title(circuit.name, (circuit.in_features, circuit.out_features), layout, len(circuit.gates))


def _title(name: str, features: tuple[int, int], layout: dict[str, int], gates: int) -> str:
    widths = f"{features[0]} -> {features[1]} features"
    return f"{name}: {widths}, layout {layout_text(layout)}, {plural(gates, 'gate')}"


def layout_text(layout: dict[str, int]) -> str:
    """Return `16x8x8x4`, or the axes by name where they have names."""
    if list(layout) == [str(position) for position in range(len(layout))]:
        return "x".join(map(str, layout.values()))
    return " ".join(f"{axis}:{size}" for axis, size in layout.items())


def plural(number: int, noun: str) -> str:
    """Return `1 gate`, `2 gates`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def bytes_text(number: float) -> str:
    """Return a size in the unit that suits it: `96.0 KiB`."""
    unit = 0
    while number >= 1024 and unit < 5:
        number /= 1024
        unit += 1
    return f"{number:.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[unit]}"


def _number(value: float) -> str:
    """Return a figure with thousands apart; a decimal where it is small enough for one to count."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 10_000 else f"{value:,.1f}"


def _percent(value: float) -> str:
    return f"{value:,.0f}%" if value >= 100 else f"{value:.3g}%"


def _parameter_rows(report: Report) -> list[Cells]:
    parameters, rank = report.parameters, report.rank
    dense = f"{_percent(parameters.percent_of_dense)} of a dense layer's {parameters.dense:,}"
    rows: list[Cells] = [("trainable parameters", f"{parameters.trainable:,}", dense)]
    if parameters.frozen:
        rows.append(("frozen parameters", f"{parameters.frozen:,}", ""))
    full = min(report.in_features, report.out_features)
    bounds = f"{rank.upper:,}" if rank.lower == rank.upper else f"{rank.lower:,} to {rank.upper:,}"
    gain = report.init_gain
    return [
        *rows,
        ("rank by shapes", bounds, f"of at most {full:,}"),
        ("gain at initialization", f"{gain:.3g}", "size of the output over that of the input"),
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
        aside = ", what makes the rotations aside" if turned and backend.name == "fused" else ""
        rows += [
            (f"{backend.name}: FLOPs per token", _number(flops), _against(sequential, flops)),
            (
                f"{backend.name}: saved per token",
                _number(backend.saved_bytes_per_token),
                f"bytes kept for backward ({bytes_text(backend.saved_bytes_per_token)}){aside}",
            ),
            (
                f"{backend.name}: peak per token",
                _number(backend.peak_bytes_per_token),
                "bytes at once in a forward pass, parameters aside",
            ),
        ]
    return rows


def _operator_rows(report: Report) -> list[Cells]:
    operator = report.operator
    never = report.breakeven_tokens is None
    peak = f"bytes at once ({bytes_text(operator.peak_bytes)})"
    peak += f", built in {operator.slices} slices" if operator.slices > 1 else ""
    remark = "its matrix is never cheaper" if never else "tokens, from which on the matrix is as cheap to build"
    return [
        ("operator(): FLOPs", f"{operator.flops:,}", _against(operator.sequential_flops, operator.flops)),
        ("operator(): peak", f"{operator.peak_bytes:,}", peak),
        ("break-even", "never" if never else f"{report.breakeven_tokens:,}", remark),
        ("planned for", f"{report.apply.planned_tokens:,}", "tokens a batch"),
    ]


def _against(sequential: float, planned: float) -> str:
    if not sequential or planned == sequential:
        return "as gate by gate"
    return f"{_percent(100 * planned / sequential)} of gate by gate ({_number(sequential)})"


def _gates_table(report: Report) -> Table:
    columns = (
        Column("gate"),
        Column("kind"),
        Column("axes"),
        Column("matrix"),
        Column("parameters", is_number=True),
        Column("FLOPs/token", is_number=True),
    )
    rows = tuple(
        (
            gate.name,
            gate.kind,
            " ".join(gate.axes),
            _shape(gate.shape),
            f"{gate.parameters:,}",
            f"{gate.flops_per_token:,}",
        )
        for gate in report.gates
    )
    return Table("gates", columns, rows)


def _steps_table(heading: str, report: Report, steps: Sequence[StepReport]) -> Table:
    columns = (Column("result"), Column("step"), Column("operands"), Column("shape"), Column("FLOPs", is_number=True))
    folds = {fold.start: fold for fold in folded_steps(report, steps)}
    rows: list[Cells] = []
    place = 0
    while place < len(steps):
        if place in folds:
            fold = folds[place]
            flops = sum(steps[one].flops for one in fold)
            # Later steps refer to results inside, so that the first and the last are named.
            rows.append((f"%{fold.start + 1} to %{fold.stop}", f"{len(fold)} small steps", "", "", f"{flops:,}"))
            place = fold.stop
            continue
        step = steps[place]
        place += 1
        rows.append((f"%{place}", step.op, " ".join(step.operands), _shape(step.shape), f"{step.flops:,}"))
    return Table(heading if rows else f"{heading}: none", columns, tuple(rows))


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"


def files_table(paths: Mapping[str, Path]) -> Table:
    """Return what was written, path by path."""
    remarks = {"py": "the module", "json": "the report", "html": "the report as a page", "svg": "the picture"}
    columns = (Column(""), Column("", is_remark=True))
    return Table("written", columns, tuple((escape(str(path)), remarks.get(kind, "")) for kind, path in paths.items()))


def in_parts(table: Table, width: int) -> tuple[Table, ...]:
    """Return a table as several of at most `width` characters, each with the first column in front."""
    widths = [max(map(len, cells)) + _GAP for cells in zip(*(_headings(table), *table.rows), strict=True)]
    groups: list[list[int]] = []
    room = 0
    for place, needed in enumerate(widths[1:], start=1):
        if not groups or needed > room:
            groups.append([0])
            room = width - widths[0] - _GAP
        groups[-1].append(place)
        room -= needed
    return tuple(
        Table(
            "" if part else table.title,
            tuple(table.columns[place] for place in group),
            tuple(tuple(row[place] for place in group) for row in table.rows),
        )
        for part, group in enumerate(groups)
    )


def _headings(table: Table) -> Cells:
    return tuple(column.heading for column in table.columns)


def plain_text(tables: Sequence[Table]) -> str:
    """Return tables as lines of aligned columns, whatever the width: for pipes and files."""
    return "\n\n".join("\n".join(_plain_lines(table)) for table in tables) + "\n"


def _plain_lines(table: Table) -> list[str]:
    headings = _headings(table)
    rows = [headings, *table.rows] if table.rows and any(headings) else list(table.rows)
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(len(headings))]
    lines = [table.title] if table.title else []
    for row in rows:
        cells = [
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def print_rich(tables: Sequence[Table]) -> None:
    """Print tables to stdout for a terminal, as wide as it is."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    for place, table in enumerate(tables):
        if place:
            console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        if table.rows:
            console.print(_rich_table(table))


def _rich_table(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    has_headings = any(column.heading for column in table.columns)
    made = RichTable(
        box=box.SIMPLE_HEAD if has_headings else None,
        show_header=has_headings,
        header_style="bold",
        pad_edge=has_headings,
    )
    for column in table.columns:
        made.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            style="cyan" if column.is_number else "dim" if column.is_remark else None,
            no_wrap=column.is_number,
            overflow="fold",
        )
    for row in table.rows:
        made.add_row(*row)
    return made
