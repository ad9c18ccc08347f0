"""The direction of imports, by a walk over every one of them."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "quanta_compiler"
ROOMS = (
    *("diagnostics", "system", "text", "kinds", "presets", "spec", "ir", "passes", "planner", "lowering", "emit"),
    *("report", "pages", "driver", "models", "predict", "compare", "recommend", "search", "watch", "notebook", "cli"),
)
"""From top to bottom: a room imports itself and those above it."""
TORCH_ROOMS = ("oracle", "runtime", "kernels", "nn", "peft", "adapters", "bench")
"""Likewise, below all others: torch starts here."""
ORDER = (*ROOMS, *TORCH_ROOMS)
WITHOUT_TORCH = {
    *("predict.engines", "runtime.backends", "oracle.verification", "bench.options"),
    "kernels.engines.triton.architectures",
}
"""What others may load of the rooms below them: a few figures, and torch at the earliest where something is called."""
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
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


def modules(path: Path, *, at_load: bool) -> set[str]:
    """Return the modules of this package that a file imports, as `spec.limits`; its own folder is there already."""
    own = module_of(path)
    names = {name.partition("quanta_compiler.")[2] for name in imported(path, at_load=at_load)}
    return {module for module in names & {*map(module_of, FILES)} if not own.startswith(f"{module}.")}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def rooms(path: Path, *, at_load: bool) -> set[str]:
    return {module.split(".")[0] for module in modules(path, at_load=at_load)}


def packages(path: Path, *, at_load: bool) -> set[str]:
    return {name.split(".")[0] for name in imported(path, at_load=at_load)}


@cache
def all_loaded(path: Path) -> frozenset[Path]:
    """Return a file and all that loading it loads."""
    files = {module_of(file): file for file in FILES}
    found, waiting = {path}, [path]
    while waiting:
        new = {files[module] for module in modules(waiting.pop(), at_load=True)} - found
        found |= new
        waiting += new
    return frozenset(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_itself_and_those_above(path: Path) -> None:
    room = room_of(path)
    if room.startswith("__"):
        return
    below = {*ORDER[ORDER.index(room) + 1 :]}
    found = {module for module in modules(path, at_load=True) if module.split(".")[0] in below}
    assert found <= WITHOUT_TORCH, f"{room} imports {sorted(found)}"
    if room in ROOMS[: ROOMS.index("driver")]:
        # Not even inside a function.
        assert rooms(path, at_load=False).isdisjoint(below)


def test_no_module_needs_itself_to_be_loaded() -> None:
    graph = {module_of(path): modules(path, at_load=True) - {module_of(path)} for path in FILES}
    tuple(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_where_it_may_be(path: Path) -> None:
    room = room_of(path)
    if room not in TORCH_ROOMS or module_of(path) in WITHOUT_TORCH:
        loads_torch = {module_of(file) for file in all_loaded(path) if "torch" in packages(file, at_load=True)}
        assert not loads_torch
    if room in ROOMS[: ROOMS.index("driver")]:
        # The type of a tensor may be named; nothing runs.
        assert "torch" not in packages(path, at_load=False)


def test_the_oracle_shares_no_code_with_what_it_judges() -> None:
    used = modules(PACKAGE / "oracle" / "reference.py", at_load=False)
    # Kinds of other packages bring a reference of their own, and are blamed for it.
    assert {one.partition(".")[0] for one in used if not one.startswith("kinds.plugins")} <= {"ir", "spec"}, used


def test_only_the_planner_imports_opt_einsum_and_only_the_graph_networkx() -> None:
    # The benchmark measures opt_einsum beside what the planner made of it.
    for path in FILES:
        names = packages(path, at_load=False)
        assert "opt_einsum" not in names or room_of(path) in ("planner", "bench"), path
        assert "networkx" not in names or room_of(path) in ("ir", "driver"), path


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(path) for path in FILES} - {"__init__", "__main__"} == set(ORDER)
