"""Pictures of an analysis as files. matplotlib is an extra of the package, loaded when a picture is asked for.

The same analysis gives the same bytes with the same matplotlib; before 3.11 its layout differs in the sixth decimal.
"""

import io
import re
from pathlib import Path
from typing import Any

from quanta_compiler.adapters.analyze import Analysis
from quanta_compiler.adapters.plots import STYLE, left_out, make_figure
from quanta_compiler.diagnostics import Diagnostic
from quanta_compiler.system.files import write_file


def write_picture(analysis: Analysis, path: Path, top: int) -> tuple[Diagnostic, ...]:
    """Draw the analysis into `path`, in the format of its ending; return warnings about what is not drawn."""
    suffix = path.suffix.lower()
    if suffix == ".html":
        from quanta_compiler.adapters.pages import analysis_page

        data = analysis_page(analysis, render(analysis, "svg").decode("utf-8"), top).encode("utf-8")
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
