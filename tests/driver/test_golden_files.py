"""Every golden file is one that a test compares with: an orphan would look as if something were held by it."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"


def claimed(test: Callable[..., None]) -> Iterator[str]:
    """Yield the paths that a test gives to the fixture `golden`, for all its parameters."""
    calls = [
        node for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(test)))) if isinstance(node, ast.Call)
    ]
    paths = [
        ast.unparse(call.args[0]) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "golden"
    ]
    cases = [list(parameters(mark)) for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for given in itertools.product(*cases):
        names = {name: value for case in given for name, value in case.items()}
        yield from (eval(path, {**vars(sys.modules[test.__module__]), **names}) for path in paths)


def parameters(mark: Any) -> Iterator[dict[str, Any]]:
    """Yield the arguments of every case of a parametrization."""
    names = re.findall(r"\w+", mark.args[0]) if isinstance(mark.args[0], str) else mark.args[0]
    for case in mark.args[1]:
        values = getattr(case, "values", None)
        values = values if isinstance(values, tuple) else (case,) if len(names) == 1 else case
        yield dict(zip(names, values, strict=True))


def test_every_golden_file_is_claimed_by_a_test() -> None:
    wanted: set[str] = set()
    for file in TESTS.glob("*/test_*.py"):
        if not re.search(r"\bgolden\(", file.read_text(encoding="utf-8")) or file == Path(__file__):
            continue
        # As pytest finds it: by its name, from its folder.
        sys.path.insert(0, str(file.parent))
        module = importlib.import_module(file.stem)
        sys.path.remove(str(file.parent))
        for name, test in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_"):
                wanted.update(claimed(test))
    there = {file.relative_to(GOLDEN).as_posix() for file in GOLDEN.rglob("*") if file.is_file()}
    assert there == wanted
