"""Kinds of gates that other packages bring, by entry points of the group `quanta_compiler.kinds`.

Only a package that is installed can bring one, never a name in a file: a saved circuit is data, and reading it runs
nothing that it names. Packages are looked at when a file has a kind that this package does not have.
"""

import ast
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from quanta_compiler.kinds import KINDS
from quanta_compiler.kinds.initialisers import ANGLES
from quanta_compiler.kinds.kind import Complaint, Form, Kind, Sides, sides
from quanta_compiler.kinds.looks import Look
from quanta_compiler.kinds.made import Made
from quanta_compiler.kinds.options import Key

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
        raise PluginError(f"kind {name!r} is brought by {_packages(entries)}", "uninstall all but one of them")
    return _loaded(entries[0]) if entries else None


def all_plugins() -> tuple[type[Kind], ...]:
    """Return all kinds that installed packages bring; raise PluginError where one is broken, or has a name of ours."""
    for name in plugin_names():
        if name in KINDS:
            raise PluginError(f"{_whose(name)} has the name of a kind of quanta-compiler", "uninstall it")
    return tuple(kind for kind in map(find_kind, plugin_names()) if kind is not None)


def package_of(name: str) -> str | None:
    """Return the package that brings a kind, with its version, as pip writes them; None for a kind of our own."""
    return None if name in KINDS or name not in _brought() else _package(_brought()[name][0])


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name}=={entry.dist.version}" if entry.dist is not None else entry.value.partition(":")[0]


def _packages(entries: Iterable[EntryPoint]) -> str:
    return " and ".join(_package(entry).replace("==", " ") for entry in entries)


def _whose(name: str) -> str:
    return f"kind {name!r} of {_packages(_brought()[name])}"


def _loaded(entry: EntryPoint) -> type[Kind]:
    name = entry.name
    with blamed(name, "cannot be loaded"):
        kind = entry.load()
        if not (isinstance(kind, type) and issubclass(kind, Kind)):
            raise PluginError(f"{_whose(name)} is {entry.value}, which is no class derived from Kind", _REPORT)
        wrong = _wrong_with(kind, name)
    if wrong is not None:
        raise PluginError(f"{_whose(name)} {wrong}", _REPORT)
    return kind


def _wrong_with(kind: type[Kind], name: str) -> str | None:
    own = {field.name: field.metadata.get("key") for field in dataclasses.fields(kind)}
    ours = {option: key for known in KINDS.values() for option, key in known.options().items()}
    taken = [option for option in own if option in _GATE_KEYS or own[option] is not ours.get(option, own[option])]
    said = getattr(kind, "name", None), getattr(kind, "meaning", None)
    if said[0] != name or not name.isidentifier():
        return f"calls itself {said[0]!r}; a kind has one name, an identifier"
    if not isinstance(said[1], str) or not isinstance(kind.look, Look):
        return "has no `meaning` in words, or a `look` that is no Look"
    if getattr(kind, "form", None) is not Form.FUNCTION:
        # The others are what stages know by themselves.
        return f"has the form {getattr(kind.form, 'name', kind.form)}; packages bring the form FUNCTION"
    if not kind.schemes or not set(kind.schemes) <= set(ANGLES):
        return f"has the schemes {kind.schemes!r}; those of numbers that are no entries are {', '.join(ANGLES)}"
    if kind.reference is Kind.reference or kind.fixed_gain is Kind.fixed_gain:
        return "brings no `reference` that its matrix is compared with, or no `fixed_gain`"
    if not all(isinstance(key, Key) for key in own.values()):
        return "has fields that are no options with a Key"
    return f"has options whose names mean something else: {', '.join(taken)}" if taken else None


_GATE_KEYS = (
    *("axes", "to", "name", "kind", "per", "init", "frozen", "across", "share", "transpose", "pattern", "repeat"),
)
PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(==(?P<version>[A-Za-z0-9.!+_-]+))?\Z")
"""A package with its version, as pip writes them."""
_REPORT = "tell its authors; docs/extending.md says what a kind gives"


@contextmanager
def blamed(name: str, what: str, *, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Say of what a kind of another package raises whose fault it is, but for exceptions that it may raise."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if name in KINDS or isinstance(error, (PluginError, *passing)):
            raise
        raise PluginError(f"{_whose(name)} {what}: {type(error).__name__}: {error}", _REPORT) from error


def checked(kind: Kind, gate: Sides, label: str) -> list[Complaint]:
    """Return what a gate's kind complains of, once it has answered what stages will ask; PluginError where it fails."""
    if kind.name in KINDS:
        return list(kind.check(gate, label))
    rows, columns = sides(gate)
    with blamed(kind.name, f"fails for a matrix {rows} x {columns}"):
        stored = kind.stored(rows, columns)
        if len(stored) != 1:
            raise ValueError(f"`stored` gives {len(stored)} tensors, and a function takes one")
        hash(kind)
        json.dumps(kind.data())
        answers = [kind.flops(rows, columns), kind.largest_rank(rows, columns), kind.fixed_gain(rows, columns)]
        if not all(isinstance(answer, int | float) for answer in answers):
            raise TypeError("`flops`, `largest_rank` and `fixed_gain` are numbers")
        if not all(isinstance(text, str) for text in (kind.in_words(), *kind.notes())):
            raise TypeError("`note` and what options say of themselves are texts")
        kind.ways(rows, columns)
        kind.still_wires(rows, columns)
        kind.makes_transpose(rows, columns)
        kind.holds_products(rows, columns)
        _check_made(kind.name, kind.made(rows, columns))
        complaints = list(kind.check(gate, label))
        if not all(isinstance(complaint, Complaint) for complaint in complaints):
            raise TypeError("`check` yields what is no Complaint")
    return complaints


def _check_made(name: str, made: Made | None) -> None:
    """Refuse a function without costs, so that no figure is silently too small, and one that cannot be written out."""
    if made is None or not made.steps:
        fact = f"{_whose(name)} says nothing of what its matrix costs: `made` gives no steps"
        raise PluginError(fact, _REPORT)
    if made.text is None:
        raise PluginError(f"{_whose(name)} gives no text of its function", _REPORT)
    ast.literal_eval(repr(made.arguments))
    nodes = ast.parse(made.text).body
    defined = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.body[0].lineno > node.lineno]
    if made.function not in defined or len(defined) < len(nodes):
        fact = f"the text of {_whose(name)} is not {made.function!r} and the functions that it calls alone"
        raise PluginError(fact, "each begins with a line of its own; there are no imports and no constants beside them")
