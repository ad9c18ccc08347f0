"""An analysis as one HTML file: the picture and the tables, nothing loaded from elsewhere."""

from html import escape

from quanta_compiler.adapters.analyze import Analysis
from quanta_compiler.adapters.tables import analysis_tables
from quanta_compiler.text.tables import Table

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  background: #fff; }
figure { margin: 0 0 2rem; } figure svg { max-width: 100%; height: auto; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
div { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem .15rem 0; text-align: left; white-space: nowrap; }
th { border-bottom: 1px solid #999; } .number { text-align: right; } .remark { color: #666; }
"""
NOTES = (
    "rank: singular values above max(in, out) x eps(float32) x the largest. effective: exp of the entropy of the "
    "singular values divided by their sum. stable: squared Frobenius norm over squared largest singular value. "
    "phi(i, j) = ||V_i^T W_j||_F^2 / min(i, j); two random subspaces of i directions have about i / in_features."
)


def analysis_page(analysis: Analysis, svg: str, top: int) -> str:
    """Return the page; `svg` is the picture's file."""
    picture = svg[svg.index("<svg") :]
    tables = "\n".join(_table(table) for table in analysis_tables(analysis, top))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Analysis of adapters</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Analysis of adapters</h1>\n<figure>\n{picture}</figure>\n<p>{escape(NOTES)}</p>\n{tables}\n"
        "</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    classes = ["number" if it.is_number else "remark" if it.is_remark else "" for it in table.columns]
    head = _row("th", [column.heading for column in table.columns], classes)
    body = "\n".join(_row("td", list(row), classes) for row in table.rows)
    return f"<h2>{escape(table.title)}</h2>\n<div><table>\n{head}\n{body}\n</table></div>"


def _row(tag: str, cells: list[str], classes: list[str]) -> str:
    return "<tr>" + "".join(_cell(tag, cell, name) for cell, name in zip(cells, classes, strict=True)) + "</tr>"


def _cell(tag: str, cell: str, name: str) -> str:
    attribute = f' class="{name}"' if name else ""
    return f"<{tag}{attribute}>{escape(cell)}</{tag}>"
