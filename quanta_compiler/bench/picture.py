"""The picture of a measurement: a row for every contestant, a panel for every mode, distances on a logarithmic axis."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_compiler.bench.result import MODE_TITLES, Bench, Section
from quanta_compiler.bench.tables import conditions, heading
from quanta_compiler.pages.plots import SECTION, SMALL, logarithmic, render, wrapped
from quanta_compiler.report.palette import LIGHT
from quanta_compiler.system.files import write_file
from quanta_compiler.text.quantities import figure_text, times_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_BASE, _OTHER, _MATMUL, _COPY = LIGHT["circuit"], LIGHT["muted"], LIGHT["front"], LIGHT["method"]
_TITLES = {"circuit": "The circuit, and what could stand in its place", "adapters": "On a frozen layer"}
_WIDTH, _ROW, _LINE = 9.2, 0.21, 0.18
"""Inches: of the figure, and for a contestant and a line of text."""
_BESIDE: dict[str, Any] = {
    "va": "center",
    "fontsize": SMALL,
    "bbox": {"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 0.6},
}
_ROOM = 0.45
"""For what is written beside the longest time, as a share of the axis."""


def write_picture(bench: Bench, path: Path) -> None:
    """Draw the measurement into `path`, in the format of its ending."""
    write_file(path, render(partial(make_figure, bench), path.suffix.lower()[1:]))


def make_figure(bench: Bench) -> Figure:
    """Return the figure: one section under the other, a panel for every mode and one for what is saved."""
    from matplotlib.figure import Figure

    heights = [_ROW * len(section.contestants) + 1.25 for section in bench.sections]
    title = "\n".join(wrapped(line, 0.97 * _WIDTH) for line in (heading(bench), conditions(bench)))
    head = _LINE * (1 + title.count("\n")) + 0.15
    figure = Figure(figsize=(_WIDTH, sum(heights) + head), layout="constrained")
    figure.suptitle(title, fontsize=9.0, x=0.01, ha="left")
    blocks = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for section, block in zip(bench.sections, blocks, strict=True):
        _draw_section(bench, section, block)
    return figure


def _draw_section(bench: Bench, section: Section, block: SubFigure) -> None:
    modes = section.modes
    has_saved = any(one.saved_bytes is not None for one in section.contestants)
    block.suptitle(_TITLES[section.name], **SECTION)
    panels = list(block.subplots(1, len(modes) + has_saved, squeeze=False, sharey=True)[0])
    names = [one.name for one in section.contestants]
    for mode, axes in zip(modes, panels, strict=False):
        _draw_times(section, mode, axes)
        if section.name == "circuit":
            _draw_limits(bench, section, mode, axes)
        _make_room(axes)
        axes.set_title(MODE_TITLES[mode])
        axes.set_xlabel("ms")
    if has_saved:
        _draw_saved(section, panels[-1])
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    if section.name == "circuit":
        _draw_legend(block)
    for axes in panels:
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)


def _draw_times(section: Section, mode: str, axes: Axes) -> None:
    """Draw medians as points, quartiles as lines, and beside each its ratio to the first, over the lines of limits."""
    for place, one in enumerate(section.contestants):
        if mode not in one.modes:
            continue
        figures = one.modes[mode]
        low, high = (1e3 * seconds for seconds in figures.timing.seconds_quartiles)
        middle = 1e3 * figures.timing.seconds_median
        colour = _BASE if one.name == section.base else _OTHER
        axes.plot([low, high], [place, place], color=colour, linewidth=2.5, alpha=0.6)
        axes.plot([middle], [place], color=colour, marker="o", markersize=4)
        if figures.ratio is not None:
            axes.annotate(times_text(figures.ratio), (high, place), (5, 0), textcoords="offset points", **_BESIDE)


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
    block.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=SMALL)


def _draw_saved(section: Section, axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for place, one in enumerate(section.contestants):
        if one.saved_bytes is not None:
            colour = _BASE if one.name == section.base else _OTHER
            axes.barh(place, one.saved_bytes / 2**20, height=0.6, color=colour)
    axes.set_title("saved for backward")
    axes.set_xlabel("MiB")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_formatter(lambda value, _: figure_text(value))


def _make_room(axes: Axes) -> None:
    """Make the axis of times logarithmic and leave room beside the longest for its ratio."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** _ROOM)
    logarithmic(axes, "x")
