"""What a notebook shows of a circuit and of a comparison: static HTML with pictures in it.

A whole page in a frame would carry the charting library into every cell, and viewers that do not run what they show
(GitHub, nbviewer, a notebook that is not trusted) would leave it out. A picture as the source of an `img` is shown by
all of them, and nothing in it can run or meet the styles of the notebook.
"""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.report.diagram import printable
from quanta_compiler.report.fragment import NO_FORMULAS, report_fragment, table_fragment
from quanta_compiler.report.report import Report
from quanta_compiler.report.svg import render_svg
from quanta_compiler.system.extras import MissingExtraError, require
from quanta_compiler.text.quantities import amount_text, bytes_text, percent_text, seconds_text
from quanta_compiler.text.tables import Column, Table

_SHOWN = ("name", "kind", "trainable", "percent", "step_flops_per_token", "saved_bytes_per_token", "rank_upper")
_LOOKS = {"circuit": ("#0072B2", "o"), "dense": ("#3c4654", "s"), "method": ("#D55E00", "^")}
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
    return _image(_scatter(data, cost), f"{data['title']}: cost against trainable numbers")


def _scatter(data: dict[str, Any], cost: dict[str, Any]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    points = [
        (row["trainable"], row[cost["key"]], row)
        for row in data["rows"]
        if (row["trainable"] or 0) > 0 and (row[cost["key"]] or 0) > 0
    ]
    # A hash salt of our own and no date: the same comparison gives the same picture.
    with rc_context({"svg.hashsalt": "quanta", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for what, (colour, marker) in _LOOKS.items():
            own = [(x, y) for x, y, row in points if row["kind"] == what]
            if own:
                axes.scatter([x for x, _ in own], [y for _, y in own], c=colour, marker=marker, label=what, zorder=3)
        best = [points[place] for place in pareto_front([(x, y) for x, y, _ in points])]
        xs, ys = [x for x, _, _ in best], [y for _, y, _ in best]
        axes.step(xs, ys, where="post", linestyle="--", linewidth=1, c="#00775a")
        for x, y, row in best[:_LABELLED]:
            # A name is no formula.
            name = printable(row["name"])
            axes.annotate(name, (x, y), (5, 5), textcoords="offset points", fontsize=8, parse_math=False)
        axes.legend(frameon=False, fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel="trainable numbers")
        axes.set_ylabel(f"{cost['title']} ({cost['unit']})")
        axes.grid(visible=True, linewidth=0.3, alpha=0.6)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().decode()


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that no other has fewer of both than, by the first figure; of equal ones all."""

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)

    order = sorted(range(len(points)), key=lambda place: points[place])
    return [place for place in order if not is_beaten(points[place])]
