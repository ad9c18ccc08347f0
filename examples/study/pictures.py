"""Accuracy against trained numbers and against time, in the style of the pages."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from families import REFERENCES
from summary import Summary

from quanta_compiler.pages.plots import SMALL, logarithmic, render
from quanta_compiler.report.palette import FAMILIES, LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = dict(zip(REFERENCES, (LIGHT["muted"], *FAMILIES), strict=False))
"""By budget."""


def write_picture(summaries: Sequence[Summary], title: str, path: Path) -> None:
    """Write two panels, with a point for each method that was tested; a bar is the standard deviation of its seeds."""
    tested = [summary for summary in summaries if summary.test]
    path.write_bytes(render(lambda: _figure(tested, title), path.suffix[1:]))


def _figure(summaries: Sequence[Summary], title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    figure.suptitle(title, fontsize=11.0, fontweight="bold", x=0.01, ha="left")
    _panel(left, summaries, lambda one: float(one.parameters or 1), "trained numbers")
    _panel(right, summaries, lambda one: float(one.cpu_seconds_per_step or 0), "CPU seconds per step")
    left.set_ylabel("test accuracy, %")
    left.legend(loc="lower right")
    return figure


def _panel(axes: Axes, summaries: Sequence[Summary], place: Callable[[Summary], float], label: str) -> None:
    points = {one.method: (place(one), 100 * statistics.fmean(one.test.values())) for one in summaries}
    heights = _spread(points)
    for budget, colour in COLOURS.items():
        of_budget = [one for one in summaries if one.family.budget == budget]
        if not of_budget:
            continue
        x, y = zip(*(points[one.method] for one in of_budget), strict=True)
        spreads = [100 * statistics.stdev(one.test.values()) if len(one.test) > 1 else 0.0 for one in of_budget]
        axes.errorbar(x, y, yerr=spreads, fmt="o", markersize=4, color=colour, elinewidth=0.6, label=budget)
        for one in of_budget:
            where = (points[one.method][0], heights[one.method])
            axes.annotate(one.method, where, (5, -2), textcoords="offset points", fontsize=SMALL - 1, color=colour)
    axes.set_xlabel(label)
    axes.grid(visible=True)
    axes.margins(x=0.15)
    if summaries:
        logarithmic(axes, "x")


def _spread(points: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the heights of the points' names: where two would overlap, the upper one is pushed up."""
    decades, all_heights = zip(*((math.log10(x), y) for x, y in points.values()), strict=True) if points else ((), ())
    wide, high = (max(values, default=0.0) - min(values, default=0.0) for values in (decades, all_heights))
    heights: dict[str, float] = {}
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        near = [heights[other] for other in heights if abs(math.log10(x / points[other][0])) < 0.3 * wide]
        height = y
        for taken in sorted(near):
            if abs(height - taken) < high / 40:
                height = taken + high / 40
        heights[name] = height
    return heights
