"""What a notebook shows: pictures and tables that run nothing and ask for nothing."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from browser import Open, count, texts
from comparison_data import comparison, many_rows, row
from hostile_names import NAMES, hostile

import quanta_compiler as qc
from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.pages.fragments import comparison_fragment, pareto_front
from quanta_compiler.report.diagram import printable
from quanta_compiler.report.svg import render_svg


def pictures(html: str) -> list[str]:
    """Return the SVG texts of a fragment's images, each of which parses."""
    found = [base64.b64decode(one).decode() for one in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)]
    for one in found:
        ET.fromstring(one)
    return found


def test_a_compiled_circuit_is_its_diagram_and_its_report(mixed: CompiledCircuit) -> None:
    assert mixed._repr_svg_() == render_svg(mixed.circuit)
    html = mixed._repr_html_()
    assert pictures(html) == [render_svg(mixed.circuit)]
    assert mixed.report._repr_html_() in html
    assert all(f">{gate.name}</td>" in html for gate in mixed.report.gates)


def test_a_comparison_is_a_picture_and_a_table() -> None:
    pytest.importorskip("matplotlib")
    problem = {"source": "bad.yaml", "message": "unknown pattern <b>'x'</b>"}
    html = comparison_fragment(comparison(many_rows(12), problems=[problem]))
    (picture,) = pictures(html)
    assert "trainable numbers" in picture
    assert html.count("<tr>") == 13
    assert "<li>bad.yaml: unknown pattern &lt;b&gt;" in html
    assert comparison_fragment(comparison(many_rows(12))) == comparison_fragment(comparison(many_rows(12)))


def test_without_figures_the_table_stands_alone_and_without_matplotlib_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    without_figures = comparison_fragment(comparison([row("one", 5, None)]))
    html = comparison_fragment(comparison(many_rows(3)))
    assert not pictures(without_figures + html)
    assert "pip install" not in without_figures
    assert "pip install &#x27;quanta-compiler[plots]&#x27;" in html
    assert "circuit-2" in html


def test_the_front_is_what_nothing_beats() -> None:
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 3.0), (2.0, 2.0), (2.0, 2.0), (3.0, 2.0), (4.0, 1.0)]
    by_definition = {
        place
        for place, (x, y) in enumerate(points)
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)
    }
    assert {*pareto_front(points)} == by_definition == {0, 1, 3, 4}


def test_what_is_shown_opens_quietly_and_hostile_names_are_text(opened: Open, mixed: CompiledCircuit) -> None:
    rows = [row(name, 100 + place, 0.1 / (place + 1), source=name) for place, name in enumerate(NAMES)]
    shown = [hostile(mixed)._repr_html_(), comparison_fragment(comparison(rows, title=NAMES[1]))]
    page = opened(f"<!doctype html><meta charset=utf-8><body>{''.join(shown)}")
    assert count(page, "img") == len(pictures(shown[0]) + pictures(shown[1]))
    assert count(page, "script, iframe, a, svg") == 0
    loaded = "return [...document.images].map((one) => one.complete && one.naturalWidth > 100)"
    assert page.execute_script(loaded) == [True] * count(page, "img")
    told = [printable(name, limit=1000) for name in NAMES]
    assert [text for text in texts(page, "td:first-child") if text in told] == told


NOTEBOOK = [
    "import quanta_compiler as qc",
    "compiled = qc.compile_circuit({'version': 1, 'name': 'shown', 'layout': '4x3', 'gates': [[0, 1]]})",
    "compiled",
    "compiled.report",
    "compiled.spec",
]


def test_a_session_is_told_how_to_draw_a_spec() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    script = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "import quanta_compiler as qc, sys\n"
        "spec = qc.load_spec({'version': 1, 'name': 'shown', 'layout': '4x3', 'gates': [[0, 1]]})\n"
        "shown, _ = shell.display_formatter.format(spec)\n"
        "print(sorted(shown), shown['image/svg+xml'].startswith('<svg '), 'torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['image/svg+xml', 'text/plain'] True False"
    # Outside of a session nothing is shown differently, and nothing is registered.
    assert formatters.SVGFormatter()(qc.load_spec({"version": 1, "name": "a", "layout": "2", "gates": [[0]]})) is None


@pytest.mark.slow
def test_a_real_notebook_shows_circuits_and_reports(opened: Open) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    nbconvert = pytest.importorskip("nbconvert")
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in NOTEBOOK])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [cell.outputs[0].data for cell in notebook.cells[2:]]
    assert ["text/html" in one for one in shown] == [True, True, False]
    assert ["image/svg+xml" in one for one in shown] == [True, False, True]
    html, _ = nbconvert.HTMLExporter(template_name="basic").from_notebook_node(notebook)
    page = opened(f"<!doctype html><meta charset=utf-8><body>{html}")
    assert count(page, "img, svg.quanta-circuit") == 2
    assert count(page, "table") >= 4
