"""Kinds of gates that other packages bring, by entry points of the group `quanta_compiler.kinds`.

Only a package that is installed can bring one, never a name in a file: a saved circuit is data, and reading it runs
nothing that it names. Packages are looked at when a file has a kind that this package does not have.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from quanta_compiler.kinds import KINDS
from quanta_compiler.kinds.kind import Form, Kind
from quanta_compiler.kinds.made import Made

GROUP = "quanta_compiler.kinds"
PACKAGES = "packages"
"""The key of a file that says from which packages its kinds are: `{householder: quanta-householder==0.1}`."""


class PluginError(Exception):
    """A kind that another package brings cannot be used."""

    def __init__(self, fact: str, hint: str) -> None:
        super().__init__(f"{fact}\nhint: {hint}")
        self.fact = fact
        self.hint = hint


@cache
def _brought() -> dict[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def plugin_names() -> tuple[str, ...]:
    """Return the names of all kinds that installed packages bring."""
    return tuple(_brought())


@cache
def find_kind(name: str) -> type[Kind] | None:
    """Return the kind of a name, of this package or of another one; None where there is none.

    Raises:
        PluginError: the package that brings it is broken, or there are two.

    """
    if name in KINDS:
        return KINDS[name]
    entries = _brought().get(name, ())
    if len(entries) > 1:
        packages = " and ".join(_package(entry).replace("==", " ") for entry in entries)
        raise PluginError(f"kind {name!r} is brought by {packages}", "uninstall all but one of them")
    return _loaded(entries[0]) if entries else None


def all_plugins() -> tuple[type[Kind], ...]:
    """Return all kinds that installed packages bring; raise PluginError where one is broken, or has a name of ours."""
    for name in plugin_names():
        if name in KINDS:
            packages = " and ".join(_package(entry).replace("==", " ") for entry in _brought()[name])
            raise PluginError(f"kind {name!r} of {packages} has the name of a kind of quanta-compiler", "uninstall it")
    return tuple(kind for kind in map(find_kind, plugin_names()) if kind is not None)


def package_of(name: str) -> str | None:
    """Return the package that brings a kind, with its version, as pip writes them; None for a kind of our own."""
    return None if name in KINDS or name not in _brought() else _package(_brought()[name][0])


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name}=={entry.dist.version}" if entry.dist is not None else entry.value.partition(":")[0]


def _loaded(entry: EntryPoint) -> type[Kind]:
    """Load a kind, and look at what does not depend on a gate."""
    with _blamed(entry.name, "cannot be loaded"):
        kind = entry.load()
    whose = f"kind {entry.name!r} of {_package(entry).replace('==', ' ')}"
    if not (isinstance(kind, type) and issubclass(kind, Kind)):
        raise PluginError(f"{whose} is {entry.value}, which is no class derived from Kind", _REPORT)
    if kind.name != entry.name or not entry.name.isidentifier():
        raise PluginError(f"{whose} calls itself {kind.name!r}; a kind has one name, an identifier", _REPORT)
    if kind.form is not Form.FUNCTION:
        # The others are what stages know by themselves.
        raise PluginError(f"{whose} has the form {kind.form.name}; packages bring the form FUNCTION", _REPORT)
    if kind.reference is Kind.reference:
        raise PluginError(f"{whose} brings no `reference` that its matrix is compared with", _REPORT)
    return kind


PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(==(?P<version>[A-Za-z0-9.!+_-]+))?\Z")
"""A package with its version, as pip writes them."""
_REPORT = "tell its authors; docs/extending.md says what a kind gives"


@contextmanager
def _blamed(name: str, what: str) -> Iterator[None]:
    """Say of everything that is raised whose fault it is."""
    try:
        yield
    except PluginError:
        raise
    except Exception as error:
        package = (package_of(name) or name).replace("==", " ")
        raise PluginError(f"kind {name!r} of {package} {what}: {type(error).__name__}: {error}", _REPORT) from error


@contextmanager
def guarded(kind: Kind, rows: int, columns: int) -> Iterator[None]:
    """Ask a gate's kind for what stages will ask it for; what goes wrong here or within is a PluginError."""
    if kind.name in KINDS:
        yield
        return
    with _blamed(kind.name, f"fails for a matrix {rows} x {columns}"):
        if len(kind.stored(rows, columns)) != 1:
            raise ValueError("`stored` gives several tensors, and a function takes one")
        kind.flops(rows, columns)
        kind.largest_rank(rows, columns)
        kind.in_words()
        kind.notes()
        _check_made(kind, kind.made(rows, columns))
        yield


def _check_made(kind: Kind, made: Made | None) -> None:
    """Refuse a function without costs, so that no figure is silently too small, and one that cannot be written out."""
    package = (package_of(kind.name) or kind.name).replace("==", " ")
    if made is None or not made.steps:
        fact = f"kind {kind.name!r} of {package} says nothing of what its matrix costs: `made` gives no steps"
        raise PluginError(fact, _REPORT)
    if made.text is None:
        raise PluginError(f"kind {kind.name!r} of {package} gives no text of its function", _REPORT)
    defined = [node.name for node in ast.parse(made.text).body if isinstance(node, ast.FunctionDef)]
    if made.function not in defined:
        fact = f"the text of kind {kind.name!r} of {package} defines {', '.join(defined) or 'nothing'}"
        raise PluginError(fact, f"it defines {made.function!r}, and the functions that this calls")
