"""A family is known by its own file: no other names it, so that a new one is one file and its line in the table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from quanta_compiler.presets.table import PRESETS

PACKAGE = Path(__file__).parents[2] / "quanta_compiler"
ALLOWED = {
    # PEFT's LoRA, which benchmarks, analyses and searches measure against, and whose words are answered with ours.
    "lora": {"adapters", "bench", "search", "pages/assets/comparison.js", "peft/keywords.py", "spec/complaints.py"},
    # Triton's own name for an attribute of an argument.
    "tt": {"kernels/engines/triton/resources.py"},
}
NAMES = [name for name in PRESETS if name != "quanta"]
"""`quanta` is the command's name too."""
FILES = [
    path
    for path in PACKAGE.rglob("*")
    if path.suffix in (".py", ".js", ".css", ".html", ".json", ".cpp") and "vendor" not in path.parts
]


def words(path: Path) -> Iterator[str]:
    """What a file says beside documentation: of a module its names and texts without docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    tree = ast.parse(text)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.keyword):
            yield getattr(node, {"Name": "id", "Attribute": "attr"}.get(type(node).__name__, "arg")) or ""


def is_allowed(name: str, place: str) -> bool:
    return any(place == one or place.startswith(f"{one}/") for one in ("presets", *ALLOWED.get(name, ())))


@pytest.mark.parametrize("name", NAMES)
def test_only_its_own_room_names_a_family(name: str) -> None:
    pattern = re.compile(rf"(?<![\w-]){name}(?!\w)")
    found = {
        place
        for path in FILES
        if not is_allowed(name, place := path.relative_to(PACKAGE).as_posix())
        and any(pattern.search(word) for word in words(path))
    }
    assert not found
