"""One HTML file from a template, a style sheet, data and scripts.

What comes from a user goes into the page as JSON in an element that browsers do not run, and our script shows it by
`textContent` alone. The policy in the head is the second wall: it names the scripts by their hashes, and no request is
allowed at all.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.columns import INPUT, OUTPUT, gate_node, in_columns, leg_ways
from quanta_compiler.ir.parameters import matrix_shape
from quanta_compiler.kinds import KINDS
from quanta_compiler.kinds.looks import Look
from quanta_compiler.presets import REFERENCE
from quanta_compiler.report.palette import DARK, FONTS, LIGHT, variables
from quanta_compiler.report.report import Report
from quanta_compiler.report.svg import render_svg
from quanta_compiler.report.terminal import folded_steps
from quanta_compiler.spec import to_yaml
from quanta_compiler.spec.circuit_spec import CircuitSpec

_LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")


def comparison_page(data: dict[str, Any]) -> str:
    """Return compare.html, cost against parameters and every figure, from the data of `quanta compare --json`.

    Files are called by their names alone: a page that is passed on says nothing of the folders of its writer.
    """
    named = {
        **data,
        "rows": [{**row, "source": _without_folders(row["source"])} for row in data["rows"]],
        "problems": [{**one, "source": _without_folders(one["source"])} for one in data["problems"]],
        "reference": REFERENCE,
    }
    scripts = ("common.js", "filter.js", "findings.js", "scatter.js", "comparison.js")
    return assemble("comparison.html", scripts, data["title"], named)


def _without_folders(source: str) -> str:
    """Return `FILE`, or `TARGET=FILE,TARGET=FILE`, with the names of the files alone."""
    return re.sub(r"[^=,]+", lambda part: PurePath(part[0]).name or part[0], source)


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
    strokes = {f"kind-{name}": look.stroke for name, look in looks.items()}
    return variables(strokes, {f"kind-{name}": look.dark_stroke for name, look in looks.items()})


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


def assemble(
    body: str,
    scripts: Sequence[str],
    title: str,
    data: dict[str, Any],
    blocks: dict[str, str] | None = None,
    *,
    style: str = "",
    is_live: bool = False,
) -> str:
    """Return the page whose body is the asset `body`, drawn from `data` by the assets `scripts`.

    `blocks` are pieces of HTML for the body, already escaped, and `style` are rules beside those of all pages. A live
    page may ask the server that it comes from, and has no libraries. The same input gives the same text.
    """
    texts = [_text(path) for path in (*(() if is_live else _LIBRARIES), *(f"assets/{script}" for script in scripts))]
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in texts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    parts = [
        _fill(_text(f"assets/{body}"), blocks or {}),
        f'<script type="application/json" id="data">{json_for_html(data)}</script>',
        f"<!--\n{_text('vendor/LICENSES.txt')}-->",
        *(f"<script>{script}</script>" for script in texts),
    ]
    asks = "; connect-src 'self'" if is_live else ""
    return _document(title, parts, scripts=allowed, asks=asks, style=style)


def still_page(title: str, body: str) -> str:
    """Return a page in the style of the others that runs nothing; `body` is HTML, already escaped."""
    return _document(title, [body], scripts="'none'")


def _document(title: str, parts: Sequence[str], *, scripts: str, asks: str = "", style: str = "") -> str:
    """Return a page that may run `scripts`, named by their hashes, and fetches nothing but what `asks` adds."""
    return _fill(
        _text("assets/page.html"),
        {
            "policy": (
                f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; "
                f"base-uri 'none'; form-action 'none'{asks}"
            ),
            # A file's name may have bytes that are no characters.
            "title": escape(title.encode("utf-8", "replace").decode()),
            "style": variables({**LIGHT, "fonts": FONTS}, DARK) + _text("assets/page.css") + style,
            "body": "\n".join(parts),
        },
    )


def json_for_html(data: object) -> str:
    """Return JSON in ASCII that no HTML parser can see the end of an element or the start of a comment in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _text(path: str) -> str:
    return files("quanta_compiler.pages").joinpath(path).read_text(encoding="utf-8")


def _fill(template: str, values: dict[str, str]) -> str:
    """Replace every `{{name}}`, in one go: what is filled in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)
