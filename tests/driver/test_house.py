"""Small rooms, and a map of them that is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "quanta_compiler"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE = 350
LONGEST_FUNCTION = 50
SCREEN = 45
"""Lines of a terminal on an ordinary screen."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    """A function's parameters are not counted: those of a command are the list of its options."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(one.name, (one.end_lineno or 0) - one.body[0].lineno + 1) for one in functions]
    assert [(name, length) for name, length in lengths if length > LONGEST_FUNCTION] == []


def test_the_map_of_the_house_is_true() -> None:
    """CONTRIBUTING.md names every folder and every file that lies loose, and fits one screen."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## How the compiler is laid out\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([^`]+)`", section, flags=re.MULTILINE)
    entries = [path for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.suffix in ("", ".py")]
    assert sorted(named) == sorted(f"{path.name}/" if path.is_dir() else path.name for path in entries)
    assert len(section.splitlines()) <= SCREEN
