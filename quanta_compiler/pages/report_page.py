"""The page of one circuit: what it looks like, what it costs and where, and how it is computed."""

from __future__ import annotations

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.pages.graph import graph_data
from quanta_compiler.pages.page import assemble
from quanta_compiler.report.report import Report
from quanta_compiler.report.svg import render_svg
from quanta_compiler.spec import to_yaml
from quanta_compiler.spec.circuit_spec import CircuitSpec


def report_page(spec: CircuitSpec, circuit: Circuit, report: Report) -> str:
    """Return STEM.report.html: the same bytes for the same circuit, no time and no path in them."""
    data = {"report": report.to_dict(), "graph": graph_data(circuit), "yaml": to_yaml(spec)}
    scripts = ("common.js", "graph.js", "report.js")
    return assemble("report.html", scripts, f"{report.name}: report", data, {"diagram": render_svg(circuit)})
