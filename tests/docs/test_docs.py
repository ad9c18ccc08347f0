"""The documentation: links lead somewhere, YAML compiles, figures name their command, the site builds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from quanta_compiler.driver import compile_circuit
from quanta_compiler.spec import load_spec

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for tongue, text in FENCE.findall(page.read_text(encoding="utf-8")) if tongue == language]


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub and the site make them."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"(?m)^#+ (.*)$", prose)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", text)).strip().lower().replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    """Within the repository; addresses on the web are listed and opened before a release (CONTRIBUTING.md)."""
    dead = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_yaml_compiles(page: Path) -> None:
    for text in blocks(page, "yaml"):
        data = yaml.safe_load(text)
        if isinstance(data, dict) and "name" in data:
            compile_circuit(load_spec(text))
        else:
            raise AssertionError(f"no circuit, so nothing tests it:\n{text}")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_table_of_figures_names_its_command(page: Path) -> None:
    """A script or a `quanta` command, in the section of the table; figures stand at the right of their cells."""
    text = FENCE.sub(lambda block: block[0].replace("\n#", "\n"), page.read_text(encoding="utf-8"))
    if re.search(r"(?m)^Made by `python \S+\.py", text):
        return
    figures = re.compile(r"(?m)^ *\|[-:| ]*--:")
    command = re.compile(r"(?m)(?:^|`)(?:\$ )?(?:python\s+\w\S*\.py|quanta\s+[a-z])")
    sections = re.split(r"(?m)^(?=#+ )", text)
    silent = [part for part in sections if figures.search(part) and not command.search(part)]
    assert [part.partition("\n")[0] for part in silent] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_json_is_json(page: Path) -> None:
    for text in blocks(page, "json"):
        json.loads(text)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    made = {str(page.parent.relative_to(tmp_path / "site")) for page in (tmp_path / "site").rglob("index.html")}
    assert made == {"."} | {page.stem for page in (ROOT / "docs").glob("*.md") if page.stem != "index"} | {
        *(str(page.relative_to(ROOT / "docs").with_suffix("")) for page in (ROOT / "docs").glob("*/*.md")),
        "commands",
        *(f"notebooks/{notebook.stem}" for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb")),
    }
    asked = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"')
    texts = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")]
    assert [address for text in texts for address in asked.findall(text)] == [], "the site asks no other server"


@pytest.mark.parametrize("name", ["tests.yml", "docs.yml"])
def test_workflows_are_what_github_reads(name: str) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    file = ROOT / ".github" / "workflows" / name
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_citation_has_the_version() -> None:
    from quanta_compiler import __version__

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == __version__


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(notebook: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    book = nbformat.read(notebook, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "notebooks are kept without what they print"
    nbclient.NotebookClient(book, timeout=120).execute()
