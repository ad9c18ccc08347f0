"""The page of one circuit: what it looks like, what it costs and where, and how it is computed."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.columns import INPUT, OUTPUT, gate_node, in_columns, leg_ways
from quanta_compiler.ir.parameters import matrix_shape
from quanta_compiler.kinds import KINDS
from quanta_compiler.kinds.looks import Look
from quanta_compiler.pages.page import assemble
from quanta_compiler.report.report import Report
from quanta_compiler.report.svg import render_svg
from quanta_compiler.report.terminal import folded_steps
from quanta_compiler.spec import to_yaml
from quanta_compiler.spec.circuit_spec import CircuitSpec


def report_page(spec: CircuitSpec, circuit: Circuit, report: Report) -> str:
    """Return STEM.report.html: the same bytes for the same circuit, no time and no path in them."""
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


def graph_data(circuit: Circuit) -> dict[str, list[dict[str, Any]]]:
    """Return `nodes` (`id`, `name`, `kind`, `shape`, `column`, of gates `parameter`, `words`) and `edges` between them.

    They are those of `ir.graph.contraction_graph`, read off the legs: networkx would take longer to import than all the
    rest. `words` are the kind with its options.

    An edge is a stretch of an axis, with its `axis` and `size`, from the node (`source`) that makes or passes it to the
    next one (`target`) that passes or contracts it.
    """
    ordered, end = in_columns(circuit)
    gates = [
        {
            "id": gate_node(gate),
            "name": gate.name,
            "kind": gate.kind,
            "words": gate.matrix.in_words(),
            "parameter": gate.parameter,
            "shape": matrix_shape(circuit, gate),
            "column": column,
        }
        for column, gate in ordered
    ]
    nodes = [_end(circuit, INPUT, circuit.inputs, -1), *gates, _end(circuit, OUTPUT, circuit.outputs, end)]
    edges = [
        {"source": source, "target": target, "axis": leg.axis, "size": leg.size}
        for leg, stops in zip(circuit.legs, leg_ways(circuit, [gate for _, gate in ordered]), strict=True)
        for (source, _), (target, _) in pairwise(stops)
    ]
    return {"nodes": nodes, "edges": edges}


def _end(circuit: Circuit, name: str, legs: tuple[int, ...], column: int) -> dict[str, Any]:
    shape = [circuit.legs[leg].size for leg in legs]
    return {"id": name, "name": name, "kind": name, "shape": shape, "column": column}
