"""A comparison for people: a table, in several parts where the terminal is too narrow for all columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from quanta_compiler.compare.comparison import Comparison
from quanta_compiler.compare.row import Row
from quanta_compiler.diagnostics import escape
from quanta_compiler.text.tables import Cells, Column, Table, in_parts
from quanta_compiler.text.words import bytes_text

_DASH = "-"
_FEATURES = "features"


def comparison_tables(comparison: Comparison, width: int) -> tuple[Table, ...]:
    """Return the rows as tables of at most `width` characters, each with the names in front; then the notes."""
    rows = comparison.rows
    if not rows:
        return ()
    whose = "this machine" if comparison.calibrated else "a typical machine"
    share = f"percent of {escape(comparison.percent_of)}"
    title = f"{escape(comparison.title)}\n{share}; times predicted for {whose} ({comparison.device})"
    names = _names(rows)
    columns = [(heading, tuple(show(row) for row in rows)) for heading, show in _COLUMNS]
    # The title has the features where all rows share them.
    used = [
        (heading, cells)
        for heading, cells in columns
        if any(cell != _DASH for cell in cells) and not (heading == _FEATURES and len(set(cells)) == 1)
    ]
    headings = (Column(""), *(Column(heading, is_number=True) for heading, _ in used))
    whole = Table(title, headings, tuple(zip(names, *(cells for _, cells in used), strict=True)))
    tables = in_parts(whole, width)
    notes = tuple((row.name, row.note) for row in rows if row.note)
    return (*tables, Table("notes", (Column(""), Column("", is_remark=True)), notes)) if notes else tables


def _names(rows: Sequence[Row]) -> Cells:
    """Return the rows' names; what they come from stands beside those that several share."""
    sources: dict[str, set[str]] = {}
    for row in rows:
        sources.setdefault(row.name, set()).add(row.source)
    return tuple(row.name if len(sources[row.name]) == 1 else f"{row.name} ({escape(row.source)})" for row in rows)


def _amount(value: float | None) -> str:
    """Return a count with the unit that suits it, in thousands: `3.67 M`."""
    if value is None:
        return _DASH
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 999.5 * size else f"{value / size:.0f} {unit}"
    return f"{value:,.3g}" if value < 999.5 else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    return _DASH if value is None else bytes_text(value)


def _seconds(value: float | None) -> str:
    if value is None:
        return _DASH
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def _whole(value: int | None) -> str:
    return _DASH if value is None else f"{value:,}"


def _percent(value: float) -> str:
    return f"{value:,.0f}%" if value >= 100 else f"{value:.3g}%"


def _rank(row: Row) -> str:
    if row.rank_upper is None:
        return _DASH
    if row.rank_lower in (None, row.rank_upper):
        return f"{row.rank_upper:,}" if row.rank_lower is not None else f"at most {row.rank_upper:,}"
    return f"{row.rank_lower:,} to {row.rank_upper:,}"


def _connected(row: Row) -> str:
    if row.connected is None:
        return _DASH
    if not row.connected:
        return "no"
    return f"after {row.gates_to_connect}" if row.gates_to_connect else "yes"


def _of(key: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
    return lambda row: show(getattr(row, key))


def _shape(row: Row) -> str:
    return _DASH if row.in_features is None else f"{row.in_features} -> {row.out_features}"


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    (_FEATURES, _shape),
    ("trainable", _of("trainable", _whole)),
    ("percent", _of("percent", _percent)),
    ("forward FLOPs/token", _of("forward_flops_per_token", _amount)),
    ("step FLOPs/token", _of("step_flops_per_token", _amount)),
    ("forward time", _of("forward_seconds", _seconds)),
    ("step time", _of("step_seconds", _seconds)),
    ("backend", _of("backend", lambda value: value or _DASH)),
    ("saved/token", _of("saved_bytes_per_token", _bytes)),
    ("AdamW", _of("optimizer_bytes", _bytes)),
    ("rank", _rank),
    ("random rank", _of("numerical_rank", _whole)),
    ("connected", _connected),
    ("operator FLOPs", _of("operator_flops", _amount)),
    ("operator peak", _of("operator_peak_bytes", _bytes)),
    ("break-even", _of("breakeven_tokens", _whole)),
)
