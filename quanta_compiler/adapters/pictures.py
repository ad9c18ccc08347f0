"""Pictures of an analysis as files. matplotlib is an extra of the package, loaded when a picture is asked for.

The same analysis gives the same bytes with the same matplotlib; before 3.11 its layout differs in the sixth decimal.
An HTML file has the tables beside the picture, and loads nothing from elsewhere.
"""

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from quanta_compiler.adapters.analysis import Analysis
from quanta_compiler.adapters.plots import STYLE, left_out, make_figure
from quanta_compiler.adapters.tables import analysis_tables
from quanta_compiler.diagnostics import Diagnostic
from quanta_compiler.system.files import write_file
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
_NOTES = (
    "rank: singular values above max(in, out) x eps(float32) x the largest. effective: exp of the entropy of the "
    "singular values divided by their sum. stable: squared Frobenius norm over squared largest singular value. "
    "phi(i, j) = ||V_i^T W_j||_F^2 / min(i, j); two random subspaces of i directions have about i / in_features."
)


def write_picture(analysis: Analysis, path: Path, top: int) -> tuple[Diagnostic, ...]:
    """Draw the analysis into `path`, in the format of its ending; return warnings about what is not drawn."""
    suffix = path.suffix.lower()
    if suffix == ".html":
        data = _page(analysis, render(analysis, "svg").decode("utf-8"), top).encode("utf-8")
    else:
        data = render(analysis, suffix[1:])
    write_file(path, data)
    return left_out(analysis, path)


def render(analysis: Analysis, file_format: str) -> bytes:
    """Return the picture as the bytes of an `svg`, `png` or `pdf` file."""
    import matplotlib

    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format, {})
    with matplotlib.rc_context(STYLE):
        make_figure(analysis).savefig(buffer, format=file_format, dpi=200, metadata=metadata)
    return _with_stable_ids(buffer.getvalue()) if file_format == "svg" else buffer.getvalue()


def _with_stable_ids(svg: bytes) -> bytes:
    """Number the identifiers of an SVG file: matplotlib hashes some of them from addresses in memory."""
    known = dict.fromkeys(re.findall(rb'id="([A-Za-z][0-9a-f]{10})"', svg))
    numbers = {name: b"s%d" % number for number, name in enumerate(known)}
    return re.sub(rb'(?<=["#])[A-Za-z][0-9a-f]{10}(?=[")])', lambda found: numbers.get(found[0], found[0]), svg)


def _page(analysis: Analysis, svg: str, top: int) -> str:
    picture = svg[svg.index("<svg") :]
    tables = "\n".join(_table(table) for table in analysis_tables(analysis, top))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Analysis of adapters</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Analysis of adapters</h1>\n<figure>\n{picture}</figure>\n<p>{escape(_NOTES)}</p>\n{tables}\n"
        "</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    classes = [
        ' class="number"' if column.is_number else ' class="remark"' if column.is_remark else ""
        for column in table.columns
    ]
    head = _row("th", [column.heading for column in table.columns], classes)
    body = "\n".join(_row("td", row, classes) for row in table.rows)
    return f"<h2>{escape(table.title)}</h2>\n<div><table>\n{head}\n{body}\n</table></div>"


def _row(tag: str, cells: Sequence[str], classes: Sequence[str]) -> str:
    made = (f"<{tag}{name}>{escape(cell)}</{tag}>" for cell, name in zip(cells, classes, strict=True))
    return f"<tr>{''.join(made)}</tr>"
