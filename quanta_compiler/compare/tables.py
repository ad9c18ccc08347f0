"""A comparison for people: six columns, or on request all, in several parts where the terminal is too narrow."""

from collections.abc import Callable, Sequence
from typing import Any

from quanta_compiler.compare.comparison import Comparison
from quanta_compiler.compare.row import Row
from quanta_compiler.diagnostics import escape
from quanta_compiler.predict.calibration import PREDICTED
from quanta_compiler.text.quantities import amount_text, bytes_text, percent_text, seconds_text
from quanta_compiler.text.tables import Cells, Column, Table, in_parts, numbers
from quanta_compiler.text.words import DASH, UPDATE_ALONE, span_text

_FEATURES = "features"


def comparison_tables(comparison: Comparison, width: int, *, sort: str = "", whole: bool = False) -> tuple[Table, ...]:
    """Return the rows as tables of at most `width` characters, each with the names in front; then the notes.

    Without `whole` only the first columns are shown, and that of `sort`, the figure that the rows are ordered by.
    """
    rows = comparison.rows
    if not rows:
        return ()
    share = f"percent of {escape(comparison.percent_of)}"
    times = f"times {PREDICTED[comparison.origin]} ({comparison.device})\n{UPDATE_ALONE}"
    title = f"{escape(comparison.title)}\n{share}\n{times}"
    names = _names(rows)
    shown = {key: column for key, column in _COLUMNS.items() if whole or key in _FIRST or key == sort}
    columns = [(heading, tuple(show(row) for row in rows)) for heading, show in shown.values()]
    # The title has the features where all rows share them.
    used = [
        (heading, cells)
        for heading, cells in columns
        if any(cell != DASH for cell in cells) and not (heading == _FEATURES and len(set(cells)) == 1)
    ]
    headings = (Column(""), *numbers(*(heading for heading, _ in used)))
    table = Table(title, headings, tuple(zip(names, *(cells for _, cells in used), strict=True)))
    tables = in_parts(table, width)
    notes = tuple((f"{row.name} *" if row.is_misfit else row.name, row.note) for row in rows if row.note)
    return (*tables, Table("notes", (Column(""), Column("", is_remark=True)), notes)) if notes else tables


def _names(rows: Sequence[Row]) -> Cells:
    """Return the rows' names; what they come from stands beside those that several share."""
    sources: dict[str, set[str]] = {}
    for row in rows:
        sources.setdefault(row.name, set()).add(row.source)
    told = (row.name if len(sources[row.name]) == 1 else f"{row.name} ({escape(row.source)})" for row in rows)
    return tuple(f"{name} *" if row.is_misfit else name for name, row in zip(told, rows, strict=True))


def rank_text(row: Row) -> str:
    """Return the bounds of the rank."""
    if row.rank_upper is None:
        return DASH
    return f"at most {row.rank_upper:,}" if row.rank_lower is None else span_text(row.rank_lower, row.rank_upper)


def connected_text(row: Row) -> str:
    """Return whether, and after how many gates, every output can depend on every input."""
    if row.connected is None:
        return DASH
    if not row.connected:
        return "no"
    return f"after {row.gates_to_connect}" if row.gates_to_connect else "yes"


def _of(key: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
    return lambda row: DASH if (value := getattr(row, key)) is None else show(value)


_FIRST = ("features", "trainable", "percent", "rank_upper", "step_seconds", "saved_bytes_per_token", "numerical_rank")
"""What is shown of every row; the numerical rank is there where it was asked for."""
_COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "features": (
        _FEATURES,
        lambda row: DASH if row.in_features is None else f"{row.in_features} -> {row.out_features}",
    ),
    "trainable": ("trainable", _of("trainable", "{:,}".format)),
    "percent": ("percent", _of("percent", percent_text)),
    "rank_upper": ("rank", rank_text),
    "numerical_rank": ("random rank", _of("numerical_rank", "{:,}".format)),
    "forward_flops_per_token": ("forward FLOPs/token", _of("forward_flops_per_token", amount_text)),
    "step_flops_per_token": ("step FLOPs/token", _of("step_flops_per_token", amount_text)),
    "forward_seconds": ("forward time", _of("forward_seconds", seconds_text)),
    "step_seconds": ("step time", _of("step_seconds", seconds_text)),
    "backend": ("backend", _of("backend", str)),
    "saved_bytes_per_token": ("saved/token", _of("saved_bytes_per_token", bytes_text)),
    "optimizer_bytes": ("AdamW", _of("optimizer_bytes", bytes_text)),
    "gates_to_connect": ("connected", connected_text),
    "operator_flops": ("operator FLOPs", _of("operator_flops", amount_text)),
    "operator_peak_bytes": ("operator peak", _of("operator_peak_bytes", bytes_text)),
    "breakeven_tokens": ("break-even", _of("breakeven_tokens", "{:,}".format)),
}
"""By the figure that each is of."""
HEADINGS = {heading.lower(): key for key, (heading, _) in _COLUMNS.items()}
"""The figure that each heading is of."""
