"""The style of plots, and plots as bytes. matplotlib is an extra of the package, loaded when a picture is asked for.

Figures are made without pyplot: no state is shared with the caller's own plots. An SVG file has texts, in the fonts of
the pages, and turns dark with the screen; other formats are on light paper. The same plot gives the same bytes with the
same matplotlib; before 3.11 its layout differs in the sixth decimal.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quanta_compiler.diagnostics import escape
from quanta_compiler.report.palette import DARK, FONTS, LIGHT, ON_DARK
from quanta_compiler.text.quantities import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SECTION: dict[str, Any] = {"fontsize": 11.0, "fontweight": "bold", "x": 0.01, "ha": "left"}
"""Of the title over some panels."""
SMALL = 8.0
"""Points, of notes beside what is drawn."""
_LETTER = 0.0088
"""Inches by point, at most, of a letter in a text of many."""
_SHORT = 50.0
"""From this ratio on a logarithmic axis has labels at powers of ten alone."""
_STYLE: dict[Any, Any] = {
    **{"font.family": "DejaVu Sans", "font.size": 9.0, "axes.titlesize": 9.0, "axes.labelsize": 9.0},
    **{"xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "legend.fontsize": 9.0, "legend.frameon": False},
    **{"figure.facecolor": LIGHT["paper"], "axes.facecolor": "none", "text.color": LIGHT["ink"]},
    **{f"{axis}tick.{part}color": LIGHT[name] for axis in "xy" for part, name in (("", "outline"), ("label", "muted"))},
    **{"axes.labelcolor": LIGHT["muted"], "axes.edgecolor": LIGHT["outline"], "grid.color": LIGHT["line"]},
    **{"axes.linewidth": 0.6, "grid.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    # A name is no formula, and a minus is one that every font has.
    **{"text.parse_math": False, "axes.unicode_minus": False},
    **{"svg.hashsalt": "quanta", "svg.fonttype": "none", "pdf.fonttype": 42},
}


def render(make_figure: Callable[[], Figure], file_format: str) -> bytes:
    """Return a figure, made in the style of all, as the bytes of an `svg`, `png` or `pdf` file."""
    import matplotlib

    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format, {})
    with matplotlib.rc_context(_STYLE):
        figure = make_figure()
        figure.patch.set_gid("paper")
        figure.savefig(buffer, format=file_format, dpi=200, metadata=metadata)
    return _as_ours(buffer.getvalue()) if file_format == "svg" else buffer.getvalue()


def wrapped(text: str, inches: float, points: float = 9.0) -> str:
    """Return a text in as many lines as it needs in a width."""
    lines = textwrap.wrap(escape(text), max(8, int(inches / (_LETTER * points))), break_on_hyphens=False)
    return "\n".join(lines) or " "


def logarithmic(axes: Axes, which: str) -> None:
    """Make the `x` or `y` axis logarithmic, with labels 1, 10, 100, and 2 and 5 in between where it is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set(**{f"{which}scale": "log"})
    axis: Axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < _SHORT * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: figure_text(value)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _as_ours(svg: bytes) -> bytes:
    """Number the identifiers of an SVG file, which matplotlib hashes from addresses; give it our fonts and the dark."""
    known = dict.fromkeys(re.findall(rb'id="([A-Za-z][0-9a-f]{10})"', svg))
    numbers = {name: b"s%d" % number for number, name in enumerate(known)}
    stable = re.sub(rb'(?<=["#])[A-Za-z][0-9a-f]{10}(?=[")])', lambda found: numbers.get(found[0], found[0]), svg)
    text = stable.replace(b"'DejaVu Sans'", FONTS.encode())
    head, end, rest = text.partition(b"<defs>")
    return head + f"<style>{_dark_style()}</style>\n ".encode() + end + rest


def _dark_style() -> str:
    """Return the dark colours: light ones stand in the elements, where every renderer understands them."""
    # Of two names with one light colour the first is that of plots.
    pairs = {LIGHT[name]: DARK[name] for name in reversed(DARK)}
    rules = "\n".join(
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}'
        for light, dark in pairs.items()
        for what in ("fill", "stroke")
    )
    return f"{ON_DARK} {{\n{rules}\n}}"
