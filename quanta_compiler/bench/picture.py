"""The picture of a measurement: a row for every contestant, a panel for every mode, distances on a logarithmic axis."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from quanta_compiler.adapters.plots import STYLE
from quanta_compiler.bench.result import MODE_TITLES, Bench, Section
from quanta_compiler.bench.tables import conditions, heading
from quanta_compiler.system.files import write_file
from quanta_compiler.text.quantities import figure_text, times_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_COLOUR, _OURS, _MATMUL, _COPY = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_TITLES = {"circuit": "The circuit, and what could stand in its place", "adapters": "On a frozen layer"}
_ROW = 0.2
"""Inches for a contestant."""
_SHORT = 50.0
"""From this ratio on an axis has labels at powers of ten alone."""


def write_picture(bench: Bench, path: Path) -> None:
    """Draw the measurement into `path`, in the format of its ending."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        make_figure(bench).savefig(buffer, format=path.suffix.lower()[1:], dpi=200)
    write_file(path, buffer.getvalue())


def make_figure(bench: Bench) -> Figure:
    """Return the figure: one section under the other, a panel for every mode and one for what is saved."""
    from matplotlib.figure import Figure

    heights = [_ROW * len(section.contestants) + 1.1 for section in bench.sections]
    figure = Figure(figsize=(8.6, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(f"{heading(bench)}\n{conditions(bench)}", fontsize=8, x=0.01, ha="left")
    blocks = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for section, block in zip(bench.sections, blocks, strict=True):
        _draw_section(bench, section, block)
    return figure


def _draw_section(bench: Bench, section: Section, block: SubFigure) -> None:
    modes = section.modes
    has_saved = any(one.saved_bytes is not None for one in section.contestants)
    block.suptitle(_TITLES[section.name], fontsize=9, fontweight="bold", x=0.01, ha="left")
    panels = list(block.subplots(1, len(modes) + has_saved, squeeze=False, sharey=True)[0])
    names = [one.name for one in section.contestants]
    for mode, axes in zip(modes, panels, strict=False):
        _draw_times(section, mode, axes)
        if section.name == "circuit":
            _draw_limits(bench, section, mode, axes)
        _logarithmic(axes)
        axes.set_title(MODE_TITLES[mode])
        axes.set_xlabel("ms")
    if has_saved:
        _draw_saved(section, panels[-1])
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    if section.name == "circuit":
        _draw_legend(block)
    for axes in panels:
        axes.grid(visible=True, axis="x", which="major", linewidth=0.3, alpha=0.5)
        axes.tick_params(axis="y", length=0)


def _draw_times(section: Section, mode: str, axes: Axes) -> None:
    """Draw medians as points, quartiles as lines, and beside each the ratio to the first."""
    for place, one in enumerate(section.contestants):
        if mode not in one.modes:
            continue
        figures = one.modes[mode]
        low, high = (1e3 * seconds for seconds in figures.timing.seconds_quartiles)
        middle = 1e3 * figures.timing.seconds_median
        colour = _OURS if one.name == section.base else _COLOUR
        axes.plot([low, high], [place, place], color=colour, linewidth=2.0, alpha=0.5)
        axes.plot([middle], [place], color=colour, marker="o", markersize=4)
        if figures.ratio is not None:
            label = times_text(figures.ratio)
            axes.annotate(label, (middle, place), (0, 3), textcoords="offset points", ha="center", fontsize=6)


def _draw_limits(bench: Bench, section: Section, mode: str, axes: Axes) -> None:
    """Draw the limits of the circuit: those of other layers are their own."""
    base = section.contestants[0].modes.get(mode)
    if base is None or not base.flops:
        return
    axes.axvline(1e3 * bench.limits.matmul_seconds(base.flops), color=_MATMUL, linestyle="--", linewidth=1.0)
    copied = bench.limits.copy_seconds(mode)
    if copied is not None:
        axes.axvline(1e3 * copied, color=_COPY, linestyle=":", linewidth=1.0)


def _draw_legend(block: SubFigure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_MATMUL, linestyle="--", linewidth=1.0, label="the circuit's FLOPs in one large matmul"),
        Line2D([], [], color=_COPY, linestyle=":", linewidth=1.0, label="input read and output written once"),
    ]
    block.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2, fontsize=7)


def _draw_saved(section: Section, axes: Axes) -> None:
    for place, one in enumerate(section.contestants):
        if one.saved_bytes is not None:
            colour = _OURS if one.name == section.base else _COLOUR
            axes.barh(place, one.saved_bytes / 2**20, height=0.6, color=colour, alpha=0.8)
    axes.set_title("saved for backward")
    axes.set_xlabel("MiB")
    axes.set_xlim(left=0)


def _logarithmic(axes: Axes) -> None:
    """Label the axis 1, 10, 100, and 2 and 5 in between where it is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set_xscale("log")
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < _SHORT * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: figure_text(value)))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
