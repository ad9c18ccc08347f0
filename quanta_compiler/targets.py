"""Which circuit goes to which target: read, checked, and in a form that PEFT's JSON gives back unchanged.

PEFT itself is not imported here, so that saved adapters can be looked at without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from quanta_compiler.fitting import FeaturesError, checked_document
from quanta_compiler.spec.presets import preset_document

if TYPE_CHECKING:
    from quanta_compiler.nn import FittedCircuit

CircuitField = str | os.PathLike[str] | Mapping[str, Any] | None
Document = dict[str, Any] | str
"""A circuit as it is stored: a dict, or JSON text where the order of keys counts, because PEFT sorts the keys."""


def checked_circuit(value: CircuitField, preset: str) -> Any:
    """Return a circuit, or a mapping from target to circuit, as it is stored.

    Raises:
        SpecError: a circuit is wrong.
        ValueError: the preset is unknown or its options are wrong, or the mapping is no mapping from target to circuit.

    """
    if value is None:
        if not isinstance(preset, str):
            raise ValueError(f"`preset` is the name of a preset, such as 'lora:8', got {preset!r}")
        return preset_document(preset)
    if not isinstance(value, Mapping) or "version" in value:
        return _document(value)
    if not value:
        raise ValueError("`circuit` is an empty mapping: give a circuit, or a mapping from target to circuit")
    if any(key in value for key in ("layout", "gates", "preset")):
        raise ValueError("`circuit` has no `version`: a circuit needs `version: 1`, a mapping has targets as its keys")
    stored: dict[str, Document] = {}
    for target, source in value.items():
        if not isinstance(target, str) or not target:
            raise ValueError(f"the keys of the mapping `circuit` are names of targets, got {target!r}")
        if isinstance(source, Mapping) and "version" not in source:
            raise ValueError(f"the circuit for target {target!r} has no `version`: write `version: 1`")
        stored[target] = _document(source)
    check_targets(stored)
    return stored


def check_targets(targets: Collection[str]) -> None:
    """Refuse what is no regular expression, or means something else once it is an alternative of one.

    Raises:
        ValueError: a target is wrong.

    """
    for target in targets:
        try:
            with warnings.catch_warnings():
                # Python 3.10 only warns of a flag such as `(?i)` that is not at the start.
                warnings.simplefilter("error", DeprecationWarning)
                re.compile(_pattern(target))
        except (re.error, DeprecationWarning) as error:
            raise ValueError(f"the target {target!r} is no regular expression: {error}") from None
    if len(targets) > 1 and any(re.search(r"\\[1-9]|\(\?P[<=]", target) for target in targets):
        raise ValueError("the targets of `circuit` are joined to one regular expression: use (?:...) for groups")


def _pattern(target: str) -> str:
    """Return a target as PEFT matches it: at the end of a module's name."""
    return rf"(.*\.)?({target})$"


def matches(target: str, name: str) -> bool:
    """Say whether a target means a module, as PEFT matches `rank_pattern`: a regular expression for its end."""
    return re.match(_pattern(target), name) is not None


def _document(source: Any) -> Document:
    """Read and check one circuit."""
    data = checked_document(source)
    text = json.dumps(data)
    return text if _order_counts(data) else dict(json.loads(text))


def _order_counts(data: Mapping[str, Any]) -> bool:
    """Say whether sorting the keys would make another circuit: named axes, and gates that rename theirs."""
    layout = data.get("layout")
    targets = [gate.get("to") for gate in data.get("gates", ()) if isinstance(gate, Mapping)]
    return any(isinstance(mapping, Mapping) and len(mapping) > 1 for mapping in (layout, *targets))


def circuit_digest(stored: Any) -> str:
    """Return the SHA-256 of stored circuits, whatever the order of keys."""
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode("utf-8")).hexdigest()


def is_mapping(stored: Any) -> bool:
    """Say whether stored circuits are a mapping from target to circuit, not one circuit."""
    return isinstance(stored, Mapping) and "version" not in stored


def plain_targets(stored: Mapping[str, Any]) -> set[str] | str:
    """Return the keys of a mapping as `target_modules`: a set of names, or one regular expression."""
    if all(re.fullmatch(r"[\w.]+", target) for target in stored):
        return set(stored)
    return r"(?:.*\.)?(?:" + "|".join(f"(?:{target})" for target in sorted(stored)) + ")"


def circuit_for(stored: Any, name: str) -> Document:
    """Return the circuit for the module `name`, matched as PEFT matches `rank_pattern`; the longest pattern counts.

    Raises:
        FeaturesError: no pattern of the mapping matches, or two that are equally long.

    """
    if not is_mapping(stored):
        circuit: Document = stored
        return circuit
    matching = sorted((target for target in stored if matches(target, name)), key=len, reverse=True)
    if not matching:
        raise FeaturesError(f"none of the circuits is for it (they are for {', '.join(map(repr, sorted(stored)))})")
    if len(matching) > 1 and len(matching[0]) == len(matching[1]):
        first, second = sorted(matching[:2])
        raise FeaturesError(f"the circuits for {first!r} and for {second!r} both match, and neither is more specific")
    chosen: Document = stored[matching[0]]
    return chosen


def chosen_residual(residual: str, fitted: FittedCircuit) -> str:
    """Return what `auto` means for a circuit."""
    if residual != "auto":
        return residual
    return "none" if fitted.starts_at_zero else "frozen_copy"
