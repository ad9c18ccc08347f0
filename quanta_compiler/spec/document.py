"""Plain data to models, with every complaint of pydantic told in our own words.

What is wrong is reported and then mended or left out, so that the rest of the file is still checked against the rest.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from quanta_compiler.diagnostics import DataPath, Problems, did_you_mean
from quanta_compiler.kinds import KINDS, limits
from quanta_compiler.kinds.checks import describe
from quanta_compiler.kinds.kind import Kind
from quanta_compiler.kinds.plugins import PACKAGES, PluginError, find_kind, package_of
from quanta_compiler.spec.complaints import Translator, by_mapping, data_path
from quanta_compiler.spec.models import OF_PARAMETERS, CircuitFile, Forms, PresetFile, forms
from quanta_compiler.spec.patterns import MIXED
from quanta_compiler.spec.values import VERSION

_NO_FILE = CircuitFile.model_construct()


@dataclass(frozen=True, slots=True)
class BrokenItem:
    """An entry of `gates` of which too little can be read to go on with it."""

    name: str | None
    """The gate's name where that can be read; None for a pattern."""
    is_pattern: bool
    has_effect: bool
    """Whether it may create, remove or resize axes."""


_REPORT = {"init_gain", "breakeven_tokens", "backends"}
"""Keys of STEM.report.json, which is easily given in the place of the circuit."""


@dataclass(slots=True)
class Document:
    """A file's models, and what could not be read of it."""

    file: CircuitFile
    broken: dict[int, BrokenItem] = field(default_factory=dict)
    unjudged: set[int] = field(default_factory=set)
    """Entries of `gates` whose axes can be read, but not their matrices."""
    unreadable: set[str] = field(default_factory=set)
    """Top-level keys whose value was refused: the models hold a placeholder."""


ROUNDS = 4
_KEYS = 100
"""No mapping but `to` has a tenth of that."""
_MENDABLE = 500
"""With more errors the file is no circuit with mistakes in it, and mending it would only take time."""
# What stands in for a value that was refused, so that the others are still checked.
PLACEHOLDERS: dict[str, Any] = {"version": VERSION, "name": "unnamed", "layout": 1, "gates": ()}
_DECISIVE = ("axes", "to", "pattern", "repeat")
"""Keys of a gate without which its effect on the axes is unknown."""
_STRUCTURE = ("name", "axes", "to", "pattern", "repeat")
"""Keys that say a gate's effect on the axes; what remains of it where its matrix cannot be read."""


def read_document(data: Any, problems: Problems) -> Document | PresetFile | None:
    """Validate plain data; report every problem, and return what can be gone on with."""
    if not isinstance(data, dict):
        hint = "such as `version: 1`, `name: example`, `layout: 16x8x8x4`, `gates: [all_pairs]`"
        problems.error((), f"a circuit file is a mapping, got {describe(data)}", hint)
        return None
    if data.keys() >= _REPORT:
        problems.error((), "this is the report of a circuit, not the circuit", "give the file that it was made of")
        return None
    gates = data.get("gates")
    if isinstance(gates, list | tuple) and len(gates) > limits.GATES:
        problems.error(("gates",), f"`gates` has {len(gates):,} entries; the limit is {limits.GATES:,}")
        return None
    document = Document(_NO_FILE)
    if len(data) > _KEYS:
        problems.error((), f"a circuit has {len(data):,} keys", "is this another file?")
        return None
    if "preset" in data:
        from quanta_compiler.spec.preset_files import read_preset

        return read_preset(data, problems)
    if "gates" in data and gates in (None, [], ()):
        hint = "name a pattern such as `all_pairs`, or write gates such as `[0, 1]`"
        problems.error(("gates",), "`gates` is empty", hint, key=True)
        document.broken[0] = BrokenItem(None, True, True)
        data = {**data, "gates": [[0]]}
    elif isinstance(gates, list | tuple):
        data = {**data, "gates": list(gates)}
        for index, item in enumerate(gates):
            # Given up before each of its keys is complained about.
            if isinstance(item, dict) and len(item) > _KEYS:
                problems.error(("gates", index), f"a gate has {len(item):,} keys")
                document.broken[index] = BrokenItem(None, "pattern" in item, True)
                data["gates"][index] = [0]
    known = forms(added_kinds(data, problems))
    # A round can bring up what the last one's problems kept pydantic from looking at.
    for _ in range(ROUNDS):
        try:
            document.file = known.file.model_validate(data)
            return document
        except ValidationError as error:
            errors = error.errors(include_url=False)
            translator = Translator(data, known, problems)
            if len(errors) > _MENDABLE:
                for path, group in by_mapping(errors[:_MENDABLE]):
                    translator.report(path, group)
                problems.omit(len(errors) - _MENDABLE)
                return None
            data = _mend(translator, errors, document)
    return None


def added_kinds(data: Mapping[Any, Any], problems: Problems) -> tuple[type[Kind], ...]:
    """Return the kinds that a file names and that other packages bring; those that are broken are reported later.

    The package that the file was saved with is compared with the one that is installed.
    """
    gates, packages = data.get("gates"), data.get(PACKAGES)
    if not isinstance(gates, list | tuple):
        return ()
    named = {item["kind"]: None for item in gates if isinstance(item, dict) and isinstance(item.get("kind"), str)}
    found: list[type[Kind]] = []
    for name in named:
        with suppress(PluginError):
            kind = None if name in KINDS else find_kind(name)
            found += [kind] if kind is not None else []
    for kind in found:
        given = packages.get(kind.name) if isinstance(packages, dict) else None
        installed = package_of(kind.name) or ""
        if isinstance(given, str) and given != installed:
            is_other = given.partition("==")[0] != installed.partition("==")[0]
            report = problems.error if is_other else problems.warning
            fact = f"the circuit was saved with kind {kind.name!r} of {given}, and {installed} is installed"
            report((PACKAGES, kind.name), fact, "its matrix may be another")
    return tuple(found)


def _mend(translator: Translator, errors: list[Any], document: Document) -> dict[Any, Any]:
    """Report the errors; return the data without what they are about."""
    data = translator.data
    mended = dict(data)
    gates = data.get("gates")
    mended["gates"] = list(gates) if isinstance(gates, list | tuple) else []
    for path, group in by_mapping(errors):
        translator.report(path, group)
        for error in group:
            place = data_path(error["loc"])
            if place[:1] == ("gates",) and len(place) > 1:
                _mend_item(mended["gates"], place, document, translator.forms)
            else:
                _mend_top(mended, place, document)
    for index in document.broken:
        mended["gates"][index] = [0]
    if not mended["gates"]:
        document.unreadable.add("gates")
        mended["gates"] = [[0]]
    return mended


def _mend_top(mended: dict[Any, Any], path: DataPath, document: Document) -> None:
    key = path[0] if path else None
    mended.pop(key, None)
    if isinstance(key, str):
        document.unreadable.add(key)
        if key in PLACEHOLDERS:
            mended[key] = PLACEHOLDERS[key]


def _mend_item(gates: list[Any], path: DataPath, document: Document, known: Forms) -> None:
    """Take what is wrong out of an entry of `gates`, or give the entry up."""
    index = path[1]
    assert isinstance(index, int)
    item = gates[index]
    key = path[2] if len(path) > 2 else None
    if index in document.broken:
        return
    if not isinstance(item, dict):
        document.broken[index] = BrokenItem(None, isinstance(item, str), False)
    elif key in _DECISIVE or (item.get("pattern") in MIXED and key not in OF_PARAMETERS):
        name = item.get("name")
        document.broken[index] = BrokenItem(name if isinstance(name, str) else None, "pattern" in item, "to" in item)
    elif key is None or (key in known.gate_keys and key not in ("name", *OF_PARAMETERS)):
        # Its matrix is not known: only its axes are gone on with.
        document.unjudged.add(index)
        gates[index] = {other: item[other] for other in _STRUCTURE if other in item}
    else:
        gates[index] = {other: value for other, value in item.items() if other != key}
        if did_you_mean(key, known.gate_keys) == "to":
            document.broken[index] = BrokenItem(None, "pattern" in item, True)
