"""A measurement as tables for people."""

from collections.abc import Sequence

from quanta_compiler.bench.options import OPERATOR, TRAINING
from quanta_compiler.bench.result import Bench, ContestantFigures, Section, mode_title, modes_of
from quanta_compiler.bench.timing import Timing
from quanta_compiler.diagnostics import escape
from quanta_compiler.report.terminal import circuit_line
from quanta_compiler.text.tables import Cells, Column, Table, numbers
from quanta_compiler.text.words import DASH, bytes_text, plural


def bench_tables(bench: Bench) -> list[Table]:
    """Return who took part, a table for every mode of every section, the limits, and who was left out."""
    tables = [_contestants_table(bench)]
    for section in bench.sections:
        tables += [_mode_table(section, mode) for mode in modes_of(section)]
    tables.append(_limits_table(bench))
    if bench.left_out:
        tables.append(_left_out_table(bench))
    return tables


def heading(bench: Bench) -> str:
    """Return the circuit in one line."""
    circuit = bench.circuit
    features = circuit["in_features"], circuit["out_features"]
    return circuit_line(escape(circuit["name"]), features, circuit["layout"], circuit["gates"])


def conditions(bench: Bench) -> str:
    """Return what it was measured on and with, in one line."""
    settings, machine = bench.settings, bench.machine
    parts = [
        plural(settings["tokens"], "token"),
        settings["dtype"],
        plural(settings["threads"], "thread"),
        plural(settings["rounds"], "round"),
        escape(str(machine["processor"])),
        f"torch {machine['torch']}",
    ]
    return ", ".join(parts)


def _contestants_table(bench: Bench) -> Table:
    columns = (Column(""), Column("", is_remark=True), Column("", is_number=True), Column("", is_remark=True))
    rows: list[Cells] = [
        (one.name, one.title, f"{one.trained_parameters:,}", "trained parameters")
        for section in bench.sections
        for one in section.contestants
    ]
    return Table(f"{heading(bench)}\n{conditions(bench)}", columns, tuple(rows))


def _mode_table(section: Section, mode: str) -> Table:
    is_limited = any(one.modes[mode].flops for one in section.contestants if mode in one.modes)
    copies = any(one.modes[mode].copy_limit_ratio for one in section.contestants if mode in one.modes)
    limits = [*(["x matmul"] if is_limited else []), *(["x copy"] if copies else [])]
    saved = ["saved"] if mode == TRAINING else []
    columns = (Column(""), *numbers("ms", "spread", f"x {section.base}", *limits, *saved, "peak"))
    rows = [_mode_row(one, mode, columns) for one in section.contestants if mode in one.modes or mode in one.wrong]
    layer = " on a frozen layer" if not is_limited and mode != OPERATOR else ""
    return Table(f"{mode_title(mode)}{layer}", columns, tuple(rows))


def _mode_row(one: ContestantFigures, mode: str, columns: Sequence[Column]) -> Cells:
    if mode in one.wrong:
        return (one.name, "WRONG", *[DASH] * (len(columns) - 2))
    figures = one.modes[mode]
    cells = {
        "ms": _milliseconds(figures.timing),
        "spread": _percent(figures.timing),
        "x matmul": times(figures.matmul_limit_ratio),
        "x copy": times(figures.copy_limit_ratio),
        "saved": _bytes(one.saved_bytes),
        "peak": _bytes(figures.peak_bytes),
    }
    return (one.name, *(cells.get(column.heading, times(figures.ratio)) for column in columns[1:]))


def _limits_table(bench: Bench) -> Table:
    limits = bench.limits
    columns = (Column(""), *numbers("ms", "spread", "rate"), Column("", is_remark=True))
    rows = (
        (
            "matmul",
            _milliseconds(limits.matmul),
            _percent(limits.matmul),
            f"{limits.flops_per_second / 1e9:,.1f} GFLOP/s",
            f"one product of {limits.matmul_side} x {limits.matmul_side} matrices",
        ),
        (
            "copy",
            _milliseconds(limits.copy),
            _percent(limits.copy),
            f"{limits.bytes_per_second / 1e9:,.1f} GB/s",
            f"{bytes_text(limits.copy_bytes)}: the input read, the output written",
        ),
    )
    return Table("limits", columns, rows)


def _left_out_table(bench: Bench) -> Table:
    rows = tuple(
        (one.name if one.mode is None else f"{one.name}, {mode_title(one.mode)}", escape(one.reason))
        for one in bench.left_out
    )
    return Table("left out", (Column(""), Column("", is_remark=True)), rows)


def _milliseconds(timing: Timing) -> str:
    value = 1e3 * timing.seconds_median
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _percent(timing: Timing) -> str:
    return f"{100 * timing.spread:.0f}%"


def times(ratio: float | None) -> str:
    """Return a ratio with the digits that it deserves."""
    if ratio is None:
        return DASH
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def _bytes(number: int | None) -> str:
    return DASH if number is None else bytes_text(number)
