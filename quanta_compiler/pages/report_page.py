"""The page of one circuit: what it looks like, what it costs and where, and how it is computed."""

from collections.abc import Mapping
from typing import Any

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.kinds import KINDS
from quanta_compiler.kinds.looks import Look
from quanta_compiler.pages.graph import graph_data
from quanta_compiler.pages.page import assemble
from quanta_compiler.report.folding import folded_steps
from quanta_compiler.report.report import Report
from quanta_compiler.report.svg import render_svg
from quanta_compiler.spec import to_yaml
from quanta_compiler.spec.circuit_spec import CircuitSpec


def report_page(spec: CircuitSpec, circuit: Circuit, report: Report, beside: Mapping[str, Any]) -> str:
    """Return STEM.report.html: the same bytes for the same circuit, no time of day and no path in them.

    `beside` are its figures and those of the reference, as `beside_reference` gives them.
    """
    plans = {"apply": report.apply.steps, "operator": report.operator.steps}
    # The first and the last of each run of small steps that the page folds, as they are numbered: from 1.
    folds = {
        mode: [[fold.start + 1, fold.stop] for fold in folded_steps(report, steps)] for mode, steps in plans.items()
    }
    looks = {kind.name: kind.look for kind in KINDS.values()} | {
        gate.kind: gate.matrix.look for gate in circuit.gates if gate.kind.isidentifier()
    }
    data = {
        "report": report.to_dict(),
        "beside": dict(beside),
        "folds": folds,
        "graph": graph_data(circuit),
        "yaml": to_yaml(spec),
        "kinds": [*looks],
        "angles": report.stores_angles,
    }
    scripts = ("common.js", "graph.js", "report.js")
    blocks = {"diagram": render_svg(circuit)}
    return assemble("report.html", scripts, f"{report.name}: report", data, blocks, style=_kind_colours(looks))


def _kind_colours(looks: Mapping[str, Look]) -> str:
    """Return the colours of kinds as variables of the style sheet, on light and on dark paper."""
    light = " ".join(f"--kind-{name}: {look.stroke};" for name, look in looks.items())
    dark = " ".join(f"--kind-{name}: {look.dark_stroke};" for name, look in looks.items())
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
