"""A measurement as tables for people, and a calibration: a few of its rates, and where it is kept."""

from collections.abc import Sequence
from pathlib import Path

from quanta_compiler.bench.options import OPERATOR, TRAINING
from quanta_compiler.bench.result import MODE_TITLES, Bench, ContestantFigures, Section
from quanta_compiler.bench.timing import Timing
from quanta_compiler.diagnostics import escape
from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.times import seconds_of
from quanta_compiler.predict.work import Pass, Permutation, Product
from quanta_compiler.report.terminal import circuit_line
from quanta_compiler.text.quantities import amount_text, bytes_text, percent_text, seconds_text, times_text
from quanta_compiler.text.tables import FIGURES, Cells, Column, Table, numbers
from quanta_compiler.text.words import DASH, plural

_PRODUCTS = (
    ("a large matrix product", Product(1024, 1024, 1024)),
    ("65,536 rows by a matrix of 32 x 32", Product(65536, 32, 32)),
    ("the gradient of such a matrix", Product(32, 65536, 32, is_transposed=True)),
    ("1,024 products of 16 x 16 matrices", Product(16, 16, 16, batch=1024)),
)
_NUMBERS = 2**20
_COPIES = (
    ("a copy in order", Pass(8 * _NUMBERS)),
    ("a copy by runs of 16 numbers", Permutation((256, 256, 16), (16, 4096, 1))),
    ("a copy of single numbers", Permutation((64, 32, 512), (1, 32768, 64))),
)


def bench_tables(bench: Bench) -> list[Table]:
    """Return who took part, a table for every mode of every section, the limits, and who was left out."""
    tables = [_contestants_table(bench)]
    for section in bench.sections:
        tables += [_mode_table(section, mode) for mode in section.modes]
    tables.append(_limits_table(bench))
    if bench.left_out:
        rows = tuple(
            (one.name if one.mode is None else f"{one.name}, {MODE_TITLES[one.mode]}", escape(one.reason))
            for one in bench.left_out
        )
        tables.append(Table("left out", (Column(""), Column("", is_remark=True)), rows))
    return tables


def heading(bench: Bench) -> str:
    """Return the circuit in one line."""
    circuit = bench.circuit
    features = circuit["in_features"], circuit["out_features"]
    return circuit_line(escape(circuit["name"]), features, circuit["layout"], circuit["gates"])


def conditions(bench: Bench) -> str:
    """Return what it was measured on and with, in one line."""
    settings, machine = bench.settings, bench.machine
    tokens, threads, rounds = (plural(settings[f"{noun}s"], noun) for noun in ("token", "thread", "round"))
    processor = escape(str(machine["processor"]))
    return f"{tokens}, {settings['dtype']}, {threads}, {rounds}, {processor}, torch {machine['torch']}"


def _contestants_table(bench: Bench) -> Table:
    columns = (Column(""), Column("", is_remark=True), Column("", is_number=True), Column("", is_remark=True))
    rows = [
        (one.name, one.title, f"{one.trained_parameters:,}", "trained parameters") for one in bench.contestants.values()
    ]
    return Table(f"{heading(bench)}\n{conditions(bench)}", columns, tuple(rows))


def _mode_table(section: Section, mode: str) -> Table:
    is_limited = any(one.modes[mode].flops for one in section.contestants if mode in one.modes)
    copies = any(one.modes[mode].copy_limit_ratio for one in section.contestants if mode in one.modes)
    limits = [*(["of matmul"] if is_limited else []), *(["of copy"] if copies else [])]
    saved = ["saved"] if mode == TRAINING else []
    columns = (Column(""), *numbers("time", "spread", f"of {section.base}", *limits, *saved, "peak"))
    rows = [_mode_row(one, mode, columns) for one in section.contestants if mode in one.modes or mode in one.wrong]
    layer = " on a frozen layer" if not is_limited and mode != OPERATOR else ""
    return Table(f"{MODE_TITLES[mode]}{layer}", columns, tuple(rows))


def _mode_row(one: ContestantFigures, mode: str, columns: Sequence[Column]) -> Cells:
    if mode in one.wrong:
        return (one.name, "WRONG", *[DASH] * (len(columns) - 2))
    figures = one.modes[mode]
    time, spread = _time(figures.timing)
    cells = {
        "time": time,
        "spread": spread,
        "of matmul": _times(figures.matmul_limit_ratio),
        "of copy": _times(figures.copy_limit_ratio),
        "saved": _bytes(one.saved_bytes),
        "peak": _bytes(figures.peak_bytes),
    }
    return (one.name, *(cells.get(column.heading, _times(figures.ratio)) for column in columns[1:]))


def _limits_table(bench: Bench) -> Table:
    limits = bench.limits
    columns = (Column(""), *numbers("time", "spread", "rate"), Column("", is_remark=True))
    product = f"one product of {limits.matmul_side} x {limits.matmul_side} matrices"
    copied = f"{bytes_text(limits.copy_bytes)}: the input read, the output written"
    rows = (
        ("matmul", *_time(limits.matmul), amount_text(limits.flops_per_second, "FLOP/s"), product),
        ("copy", *_time(limits.copy), f"{bytes_text(limits.bytes_per_second)}/s", copied),
    )
    return Table("limits", columns, rows)


def _time(timing: Timing) -> tuple[str, str]:
    return seconds_text(timing.seconds_median), percent_text(100 * timing.spread)


def _times(ratio: float | None) -> str:
    return DASH if ratio is None else times_text(ratio)


def _bytes(number: int | None) -> str:
    return DASH if number is None else bytes_text(number)


def calibration_table(calibration: Calibration, path: Path) -> Table:
    """Return the rates that predicted times depend on most."""
    device = f"{calibration.device}, {plural(calibration.threads, 'thread')}"
    title = f"{escape(calibration.name)} ({device}), float32, torch {escape(calibration.torch)}"
    rows: list[Cells] = [
        (what, amount_text(product.flops / seconds_of(product, calibration), "FLOP/s"), "")
        for what, product in _PRODUCTS
    ]
    rows += [
        (what, f"{bytes_text(copy.bytes / seconds_of(copy, calibration))}/s", "read and written")
        for what, copy in _COPIES
    ]
    rows += [
        ("calling an operation, forward", seconds_text(calibration.forward_launch), ""),
        ("calling an operation, backward", seconds_text(calibration.backward_launch), ""),
        ("the fused kernel", "no" if calibration.kernel is None else "yes", "measured"),
    ]
    return Table(f"{title}\nkept in {escape(str(path))}", FIGURES, tuple(rows))
