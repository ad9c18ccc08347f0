"""Packages that bring kinds of gates, as if installed: a folder on sys.path with a module and its metadata."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quanta_compiler.kinds import plugins
from quanta_compiler.spec import models

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin" / "quanta_householder.py"
Install = Callable[..., None]


def _forget() -> None:
    for function in (plugins._brought, plugins.find_kind, models.forms):
        function.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return what installs a package: its name, version, module with its text, and the kinds that it brings."""
    modules: list[str] = []

    def package(name: str, module: str, text: str, *, version: str = "0.1", kinds: tuple[str, ...] = ()) -> None:
        folder = tmp_path / name
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{kind.lower()} = {module}:{kind}" for kind in kinds]
        (info / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *lines]) + "\n")
        monkeypatch.syspath_prepend(folder)
        modules.append(module)
        _forget()

    yield package
    monkeypatch.undo()
    for module in modules:
        sys.modules.pop(module, None)
    _forget()


@pytest.fixture
def householder(install: Install) -> None:
    """Install the example of the documentation."""
    text = EXAMPLE.read_text(encoding="utf-8")
    install("quanta-householder", "quanta_householder", text, kinds=("Householder",))
