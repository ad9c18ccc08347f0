"""The direction of the arrows in shared/design.md, by a walk over every import."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "quanta_compiler"
STAGES = [
    *("diagnostics", "kinds", "presets", "spec", "ir", "passes", "planner", "lowering", "emit", "report", "pages"),
    "driver",
]
"""From top to bottom: a stage imports itself and those above it."""
NO_TORCH_ABOVE = {*STAGES}
TORCH_AT_THE_TOP = {
    "oracle",
    "runtime",
    "kernels",
    "nn",
    "peft",
    "models",
    "adapters",
    "bench",
}
"""Modules that may import torch as they are loaded."""
FILES = sorted(PACKAGE.rglob("*.py"))


def stage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path, *, at_load: bool) -> tuple[str, ...]:
    """Return the modules that a file imports, those inside functions and for type checkers only on request."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            found.append(module)
            found.extend(f"{module}.{alias.name}" for alias in node.names if module.startswith("quanta_compiler"))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if at_load and (inside or types_only):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(parsed(path))
    return tuple(found)


def stages(path: Path, *, at_load: bool) -> set[str]:
    found: set[str] = set()
    for name in imported(path, at_load=at_load):
        parts = name.split(".")
        if parts[0] == "quanta_compiler" and len(parts) > 1:
            found.add(parts[1])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_stage_imports_itself_and_those_above(path: Path) -> None:
    stage = stage_of(path)
    if stage not in STAGES:
        return
    below = {*STAGES[STAGES.index(stage) + 1 :]}
    found = stages(path, at_load=True)
    assert found.isdisjoint(below), f"{stage} imports {sorted(found & below)}"
    if stage != "driver":
        # Not even inside a function.
        assert stages(path, at_load=False).isdisjoint({*below, *TORCH_AT_THE_TOP})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_where_it_may_be(path: Path) -> None:
    names = {name.split(".")[0] for name in imported(path, at_load=True)}
    if stage_of(path) not in TORCH_AT_THE_TOP:
        assert "torch" not in names
    if stage_of(path) in NO_TORCH_ABOVE - {"driver"}:
        # The type of a tensor may be named; nothing runs.
        everywhere = {name.split(".")[0] for name in imported(path, at_load=False)}
        assert "torch" not in everywhere


def test_the_oracle_shares_no_code_with_what_it_judges() -> None:
    assert stages(PACKAGE / "oracle" / "reference.py", at_load=False) <= {"ir", "spec"}


def test_only_the_planner_imports_opt_einsum_and_only_the_graph_networkx() -> None:
    # The benchmark measures opt_einsum beside what the planner made of it.
    for path in FILES:
        names = {name.split(".")[0] for name in imported(path, at_load=False)}
        assert "opt_einsum" not in names or stage_of(path) in ("planner", "bench"), path
        assert "networkx" not in names or stage_of(path) in ("ir", "driver"), path


def test_every_stage_of_the_design_is_looked_at() -> None:
    assert {stage_of(path) for path in FILES} >= set(STAGES)
