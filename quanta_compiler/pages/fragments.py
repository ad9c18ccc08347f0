"""What a notebook shows of a circuit and of a comparison: static HTML with pictures in it.

A whole page in a frame would carry the charting library into every cell, and viewers that do not run what they show
(GitHub, nbviewer, a notebook that is not trusted) would leave it out. A picture as the source of an `img` is shown by
all of them, and nothing in it can run or meet the styles of the notebook.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.pages.plots import SMALL, logarithmic, render
from quanta_compiler.report.diagram import printable
from quanta_compiler.report.fragment import NO_FORMULAS, report_fragment, table_fragment
from quanta_compiler.report.palette import LIGHT
from quanta_compiler.report.report import Report
from quanta_compiler.report.svg import render_svg
from quanta_compiler.system.extras import MissingExtraError, require
from quanta_compiler.text.quantities import amount_text, bytes_text, percent_text, seconds_text
from quanta_compiler.text.tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = ("name", "kind", "trainable", "percent", "step_flops_per_token", "saved_bytes_per_token", "rank_upper")
_MARKERS = {"circuit": "o", "dense": "s", "method": "^"}
_WRITTEN = {"FLOPs": amount_text, "bytes": bytes_text, "s": seconds_text, "%": percent_text}
"""By the beginning of the column's unit; everything else is a whole number."""
_LABELLED = 12
"""The names of more circuits on the front would cover each other."""


def circuit_fragment(circuit: Circuit, report: Report) -> str:
    """Return the diagram of a circuit and its report."""
    image = _image(render_svg(circuit), f"The circuit {circuit.name}")
    return f"<div {NO_FORMULAS}>{image}{report_fragment(report)}</div>"


def comparison_fragment(data: dict[str, Any]) -> str:
    """Return the table of a comparison, under a picture where there is something to draw."""
    picture = _picture(data)
    lines = [printable(f"{problem['source']}: {problem['message']}", limit=1_000) for problem in data["problems"]]
    problems = "".join(f"<li>{escape(line)}</li>" for line in lines)
    notes = f"<p>Problems and warnings:</p><ul>{problems}</ul>" if problems else ""
    return f"<div {NO_FORMULAS}>{picture}{table_fragment(_comparison_table(data))}{notes}</div>"


def _image(svg: str, description: str) -> str:
    source = base64.b64encode(svg.encode("utf-8", "replace")).decode()
    return f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{source}" style="max-width:100%">'


def _comparison_table(data: dict[str, Any]) -> Table:
    """Return the figures that one chooses by; the page and the command have all of them."""
    columns = [column for key in (*_SHOWN, "step_seconds") for column in data["columns"] if column["key"] == key]
    headings = tuple(Column(one["title"], one["key"] not in ("name", "kind")) for one in columns)
    rows = tuple(tuple(_cell(row.get(one["key"]), one["unit"]) for one in columns) for row in data["rows"])
    return Table(data["title"], headings, rows)


def _cell(value: object, unit: str) -> str:
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    text = next((write for start, write in _WRITTEN.items() if unit.startswith(start)), "{:,}".format)
    return text(value)


def _picture(data: dict[str, Any]) -> str:
    """Return the step's cost over trainable numbers, or what is missing to draw it; nothing without two figures.

    The cost is the predicted time, or FLOPs where there is none.
    """
    drawn = [
        key
        for key in ("step_seconds", "step_flops_per_token")
        if sum((row.get(key) or 0) > 0 for row in data["rows"]) > 1
    ]
    cost = next((column for key in drawn for column in data["columns"] if column["key"] == key), None)
    if cost is None:
        return ""
    try:
        require("the picture", "matplotlib")
    except MissingExtraError as error:
        return f"<p>{escape(error.fact)}: {escape(error.hint)}</p>"
    svg = render(partial(_scatter, data, cost), "svg").decode()
    return _image(svg, f"{data['title']}: cost against trainable numbers")


def _scatter(data: dict[str, Any], cost: dict[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    points = [
        (row["trainable"], row[cost["key"]], row)
        for row in data["rows"]
        if (row["trainable"] or 0) > 0 and (row[cost["key"]] or 0) > 0
    ]
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for what, marker in _MARKERS.items():
        own = [(x, y) for x, y, row in points if row["kind"] == what]
        if own:
            axes.scatter([x for x, _ in own], [y for _, y in own], c=LIGHT[what], marker=marker, label=what, zorder=3)
    best = [points[place] for place in pareto_front([(x, y) for x, y, _ in points])]
    xs, ys = [x for x, _, _ in best], [y for _, y, _ in best]
    axes.step(xs, ys, where="post", linestyle="--", linewidth=1, c=LIGHT["front"])
    for x, y, row in best[:_LABELLED]:
        axes.annotate(printable(row["name"]), (x, y), (5, 5), textcoords="offset points", fontsize=SMALL)
    axes.legend()
    axes.set(xlabel="trainable numbers", ylabel=f"{cost['title']} ({cost['unit']})")
    for which in ("x", "y"):
        logarithmic(axes, which)
    axes.grid(visible=True)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that no other has fewer of both than, by the first figure; of equal ones all."""

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)

    order = sorted(range(len(points)), key=lambda place: points[place])
    return [place for place in order if not is_beaten(points[place])]
