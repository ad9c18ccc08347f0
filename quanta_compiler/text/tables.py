"""Tables: aligned plain text for pipes, rich ones for terminals, from the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; numbers stand to the right, and remarks fade beside them."""

    heading: str
    is_number: bool = False
    is_remark: bool = False


def numbers(*headings: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(heading, is_number=True) for heading in headings)


@dataclass(frozen=True, slots=True)
class Table:
    """A title, headings (all empty where the rows explain themselves), and rows of text."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Cells, ...]


_GAP = 2
"""Between two columns."""
_REMARK = 20
"""The least width that a remark is wrapped to."""
FIGURES = (Column(""), Column("", is_number=True), Column("", is_remark=True))
"""Columns of figures that a line each explains."""


def in_parts(table: Table, width: int) -> tuple[Table, ...]:
    """Return a table as several of at most `width` characters, each with the first column in front.

    What a pipe's lines are indented by is not counted.
    """
    first, *others = _widths(table)
    groups, room = [[0]], width - first
    for place, needed in enumerate(others, start=1):
        if needed + _GAP > room and len(groups[-1]) > 1:
            groups.append([0])
            room = width - first
        groups[-1].append(place)
        room -= needed + _GAP
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


def _widths(table: Table) -> list[int]:
    return [max(map(len, cells)) for cells in zip(*(_headings(table), *table.rows), strict=True)]


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
    """Print tables to stdout for a terminal, as wide as it is: in parts, or with remarks in several lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    parts = [part for table in tables for part in _fitted(table, console.width)]
    for place, table in enumerate(parts):
        if place:
            console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        if not table.rows:
            continue
        has_headings = any(_headings(table))
        shown = RichTable(
            box=box.SIMPLE_HEAD if has_headings else None,
            show_header=has_headings,
            header_style="bold",
            show_edge=False,
            pad_edge=False,
            collapse_padding=has_headings,
        )
        for order, column in enumerate(table.columns):
            shown.add_column(
                column.heading,
                justify="right" if column.is_number else "left",
                style="cyan" if column.is_number else "dim" if column.is_remark else None,
                no_wrap=column.is_number or (order == 0 and _widths(table)[0] + _GAP + _REMARK <= console.width),
                overflow="fold",
            )
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def _fitted(table: Table, width: int) -> tuple[Table, ...]:
    """Return a table in parts where it is too wide even with its remarks wrapped."""
    columns = zip(_widths(table), table.columns, strict=True)
    least = [min(needed, _REMARK) if column.is_remark else needed for needed, column in columns]
    return in_parts(table, width) if sum(least) + _GAP * (len(least) - 1) > width else (table,)
