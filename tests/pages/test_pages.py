"""Pages as text: what is in them, that it stays data, and that the same circuit gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from commands import quanta
from comparison_data import comparison, many_rows, row
from hostile_names import NAMES, hostile
from random_circuits import file_of, random_file

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.ir.graph import contraction_graph
from quanta_compiler.pages.page import comparison_page, graph_data, json_for_html

VENDOR = Path(__file__).parents[2] / "quanta_compiler" / "pages" / "vendor"


class Page(HTMLParser):
    """The elements of a page as an HTML parser sees them, with the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def test_the_libraries_are_those_that_were_published() -> None:
    told = dict(re.findall(r"^\| `([\w.]+)` \|.*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.M))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}
    assert told == files


def test_a_report_page_holds_the_report_and_the_file(mixed: CompiledCircuit) -> None:
    text = mixed.page()
    page = Page(text)
    assert page.data["report"] == mixed.report.to_dict()
    assert compile_circuit(page.data["yaml"]).source == mixed.source
    assert text == mixed.page()
    assert len(text.encode()) < 1_000_000


def test_a_comparison_page_holds_the_comparison() -> None:
    data = comparison(many_rows(5), problems=[{"severity": "error", "message": "no", "source": "a", "hint": None}])
    assert Page(comparison_page(data)).data == {**data, "reference": "lora:8"}


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_only_our_scripts_may_run_and_nothing_is_fetched(kind: str, mixed: CompiledCircuit) -> None:
    page = Page(mixed.page() if kind == "report" else comparison_page(comparison(many_rows(2))))
    policy = next(found["content"] for tag, found in page.elements if "http-equiv" in found)
    assert policy is not None
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in page.scripts[1:]]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    assert policy.split("; ")[:2] == ["default-src 'none'", f"script-src {allowed}"]
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "formaction", "background"} & {*attributes}, tag
        assert attributes.get("href") in (None, "data:,")
        assert not [name for name in attributes if name.startswith("on")]


def test_hostile_names_stay_data(mixed: CompiledCircuit) -> None:
    plain, attacked = Page(mixed.page()), Page(hostile(mixed).page())
    counted = [tag for tag, _ in attacked.elements if tag in ("script", "style", "img", "title", "body", "meta")]
    diagram_titles = len(mixed.circuit.gates) + 2  # of the page, of the picture, of every gate
    assert counted.count("title") == diagram_titles
    assert [tag for tag, _ in attacked.elements].count("script") == [tag for tag, _ in plain.elements].count("script")
    assert attacked.scripts[1:] == plain.scripts[1:]
    assert attacked.data["report"]["name"] == NAMES[0]
    rows = [row(name, 100, 0.1, source=name) for name in NAMES]
    page = Page(comparison_page(comparison(rows, title=NAMES[0])))
    assert [tag for tag, _ in page.elements].count("script") == 8
    assert [one["name"] for one in page.data["rows"]] == [*NAMES]


def test_json_cannot_end_its_element() -> None:
    text = json_for_html({name: name for name in NAMES})
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == {name: name for name in NAMES}
    with pytest.raises(ValueError, match="JSON compliant"):
        json_for_html([float("nan")])


def test_a_title_that_utf_8_cannot_hold_is_no_error() -> None:
    comparison_page(comparison([], title="a file called \udcff")).encode()


def expected_graph(compiled: CompiledCircuit) -> tuple[list[Any], list[Any]]:
    graph = contraction_graph(compiled.circuit)
    nodes = [(node, found["kind"], [*found["shape"]], found["column"]) for node, found in graph.nodes(data=True)]
    edges = [(source, target, found["axis"], found["size"]) for source, target, found in graph.edges(data=True)]
    return sorted(nodes), sorted(edges)


@pytest.mark.parametrize("seed", range(20))
def test_the_graph_is_the_contraction_graph(seed: int) -> None:
    compiled = compile_circuit(random_file(seed))
    data = graph_data(compiled.circuit)
    nodes = sorted((one["id"], one["kind"], [*one["shape"]], one["column"]) for one in data["nodes"])
    edges = sorted((one["source"], one["target"], one["axis"], one["size"]) for one in data["edges"])
    assert (nodes, edges) == expected_graph(compiled)


def test_the_graph_names_kinds_with_their_options() -> None:
    gates = [{"axes": [0], "kind": "pauli", "rank_parameters": 2}, {"axes": [0], "kind": "orthogonal", "map": "cayley"}]
    nodes = graph_data(compile_circuit(file_of(8, gates)).circuit)["nodes"]
    assert [node["words"] for node in nodes if "words" in node] == ["pauli of 1 layer, K' 2", "orthogonal by cayley"]


# ---- the command line -----------------------------------------------------------------------------------------------

FILE = "version: 1\nname: small\nlayout: 4x3\ngates: [[0, 1]]\n"


def test_report_writes_the_page_that_compile_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("circuit.yaml").write_text(FILE, encoding="utf-8")
    result = quanta("report", "circuit.yaml", "-o", "page.html")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "page.html\n", "")
    assert quanta("compile", "circuit.yaml").exit_code == 0
    assert Path("page.html").read_bytes() == Path("small.report.html").read_bytes()
    figures = quanta("report", "circuit.yaml", "-o", "page.html", "--json")
    assert json.loads(figures.stdout) == json.loads(Path("small.report.json").read_text())


@pytest.mark.parametrize(("output", "code", "message"), [
    ("page.htm1", 2, "should end in .html"),
    ("nowhere/page.html", 1, "cannot write nowhere"),
    ("folder.html", 1, "is a folder"),
    ("circuit.html", 1, "is the circuit file itself"),
])  # fmt: skip
def test_report_refuses_what_it_cannot_write(
    output: str, code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.html").mkdir()
    Path("circuit.html").write_text(FILE, encoding="utf-8")
    result = quanta("report", "circuit.html", "-o", output)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert Path("circuit.html").read_text(encoding="utf-8") == FILE


def test_a_name_that_no_module_can_have_has_a_page_all_the_same() -> None:
    assert "torch" in compile_circuit({**file_of("4", [[0]]), "name": "torch"}).page()
