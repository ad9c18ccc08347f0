"""Pictures of an analysis as files. An HTML file has the tables below the picture, and loads nothing from elsewhere."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path

from quanta_compiler.adapters.analysis import Analysis
from quanta_compiler.adapters.plots import adapter_names, left_out, make_figure
from quanta_compiler.adapters.tables import analysis_tables
from quanta_compiler.diagnostics import Diagnostic
from quanta_compiler.pages.page import still_page
from quanta_compiler.pages.plots import render
from quanta_compiler.system.files import write_file
from quanta_compiler.text.tables import Table

_NOTES = (
    "rank: singular values above max(in, out) x eps(float32) x the largest. effective: exp of the entropy of the "
    "singular values divided by their sum. stable: squared Frobenius norm over squared largest singular value. "
    "phi(i, j) = ||V_i^T W_j||_F^2 / min(i, j); two random subspaces of i directions have about i / in_features."
)


def write_picture(analysis: Analysis, path: Path, top: int) -> tuple[Diagnostic, ...]:
    """Draw the analysis into `path`, in the format of its ending; return warnings about what is not drawn."""
    suffix = path.suffix.lower()[1:]
    draw = partial(make_figure, analysis)
    data = _page(analysis, render(draw, "svg").decode(), top).encode() if suffix == "html" else render(draw, suffix)
    write_file(path, data)
    return left_out(analysis, path)


def _page(analysis: Analysis, svg: str, top: int) -> str:
    """Return the page; like that of a comparison it calls folders by their names alone."""
    named = zip(analysis.adapters, adapter_names(analysis), strict=True)
    shown = replace(analysis, adapters=tuple(replace(adapter, path=name) for adapter, name in named))
    picture = svg[svg.index("<svg") :]
    body = [
        "<header><h1>Analysis of adapters</h1></header>",
        f'<figure class="card"><div class="wide" tabindex="0">{picture}</div></figure>',
        f'<p class="says">{escape(_NOTES)}</p>',
        *(_table(table) for table in analysis_tables(shown, top)),
    ]
    return still_page("Analysis of adapters", "\n".join(['<main class="broad">', *body, "</main>"]))


def _table(table: Table) -> str:
    classes = [' class="number"' if column.is_number else "" for column in table.columns]
    head = _row("th", [column.heading for column in table.columns], classes)
    body = "\n".join(_row("td", row, classes) for row in table.rows)
    rows = f"<table>\n<thead>{head}</thead>\n<tbody>{body}</tbody>\n</table>"
    return f'<section class="card"><h2>{escape(table.title)}</h2>\n<div class="wide">{rows}</div></section>'


def _row(tag: str, cells: Sequence[str], classes: Sequence[str]) -> str:
    made = (f"<{tag}{name}>{escape(cell)}</{tag}>" for cell, name in zip(cells, classes, strict=True))
    return f"<tr>{''.join(made)}</tr>"
