"""A report as a piece of HTML for a notebook: the tables of the terminal.

Static, with its styles on the elements: notebooks that are not trusted, and the pages that show notebooks, drop scripts
and style sheets but keep this. It takes the colours of the page around it, dark or light.
"""

from collections.abc import Sequence
from html import escape

from quanta_compiler.report.diagram import printable
from quanta_compiler.report.report import Report
from quanta_compiler.report.terminal import report_tables
from quanta_compiler.text.tables import Column, Table

NO_FORMULAS = 'class="tex2jax_ignore mathjax_ignore"'
"""Notebooks read what stands between two dollar signs as a formula, but not here."""

_LINE = "1px solid rgba(128,128,128,0.35)"
_CELL = "padding:2px 14px 2px 0;vertical-align:top;background:transparent;"


def report_fragment(report: Report) -> str:
    """Return the summary of a report, and what is behind it folded away."""
    summary, *others = report_tables(report)
    folded = "".join(
        f"<details><summary>{_text(table.title)}</summary>{_table_element(table)}</details>" for table in others
    )
    return f"<div {NO_FORMULAS}>{table_fragment(summary)}{folded}</div>"


def table_fragment(table: Table) -> str:
    """Return a table under its title."""
    return f'<p style="margin:4px 0"><b>{_text(table.title)}</b></p>{_table_element(table)}'


def _table_element(table: Table) -> str:
    has_headings = any(column.heading for column in table.columns)
    head = f"<thead>{_row('th', [column.heading for column in table.columns], table.columns)}</thead>"
    body = "".join(_row("td", row, table.columns) for row in table.rows)
    style = "border-collapse:collapse;margin:4px 0 8px;font-variant-numeric:tabular-nums"
    return f'<table style="{style}">{head if has_headings else ""}<tbody>{body}</tbody></table>'


def _row(tag: str, cells: Sequence[str], columns: Sequence[Column]) -> str:
    made = []
    for cell, column in zip(cells, columns, strict=True):
        style = f"{_CELL}border-bottom:{_LINE};text-align:{'right' if column.is_number else 'left'};"
        style += "opacity:0.75;" if column.is_remark else ""
        made.append(f'<{tag} style="{style}">{_text(cell)}</{tag}>')
    return f"<tr>{''.join(made)}</tr>"


def _text(text: str) -> str:
    return escape(printable(text, limit=10_000))
