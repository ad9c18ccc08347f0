"""A kind of gate is a room of its own: what it is called is known to its file, and to few others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from quanta_compiler.kinds import KINDS

PACKAGE = Path(__file__).parents[2] / "quanta_compiler"
ROOMS = ("kinds/", "kernels/matrices/", "oracle/", "presets/")
"""Where kinds are called by their names."""
MOST = 3
"""Other files that a kind's name may occur in."""
PYTHON = sorted(path for path in PACKAGE.rglob("*.py") if not str(path.relative_to(PACKAGE)).startswith(ROOMS))
ASSETS = sorted((PACKAGE / "pages" / "assets").iterdir())


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """Return the strings that stand by themselves: what a program says of itself."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def names_in(path: Path) -> Iterator[str]:
    """Yield the strings of a file, and what it calls by a name."""
    if path.suffix != ".py":
        yield from re.findall(r"[\"'`-]([a-z]+)[\"'`: ]", path.read_text(encoding="utf-8"))
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in said:
            yield node.value
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            yield from [name] if name[0].isupper() else []
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.name[0].isupper())


OTHER_WORDS = {"dense": ("bench/", "compare/", "pages/", "peft/readers.py")}
"""Where a word is none of a kind: a dense layer is what circuits are compared with."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_s_name_occurs_in_few_files(kind: str) -> None:
    class_name = KINDS[kind].__name__
    names = {kind, class_name, f"{class_name}Gate", f"{class_name}Pattern"}
    found = [str(path.relative_to(PACKAGE)) for path in (*PYTHON, *ASSETS) if names & set(names_in(path))]
    found = [path for path in found if not path.startswith(OTHER_WORDS.get(kind, ("no folder",)))]
    assert len(found) <= MOST, found


def compared_kinds(tree: ast.Module) -> Iterator[str]:
    """Yield what compares something called a kind with a string, or asks whether it is one of some."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides: list[ast.AST] = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            sides = [node.subject, *(case.pattern for case in node.cases)]
        else:
            continue
        parts = [part for side in sides for part in ast.walk(side)]
        has_text = any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts)
        called = {getattr(side, "attr", getattr(side, "id", None)) for side in sides}
        is_name = any(isinstance(side, ast.Attribute) and ast.unparse(side).endswith("matrix.name") for side in sides)
        if ("kind" in called or is_name) and has_text:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_stage_compares_a_kind_with_a_string(path: Path) -> None:
    assert not list(compared_kinds(ast.parse(path.read_text(encoding="utf-8"))))
