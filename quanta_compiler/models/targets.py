"""Which circuit goes to which target: read, checked, and in a form that PEFT's JSON gives back unchanged.

PEFT itself is not imported here, so that saved adapters can be looked at without it.
"""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from quanta_compiler.models.fitting import FeaturesError, checked_document
from quanta_compiler.presets import EXAMPLES
from quanta_compiler.presets.layouts import AUTO_RULE
from quanta_compiler.spec.short_notation import preset_document

CircuitField = str | os.PathLike[str] | Mapping[str, Any] | None
Document = dict[str, Any] | str
"""A circuit as it is stored: a dict, or JSON text where the order of keys counts, because PEFT sorts the keys."""


def circuit_of_preset(preset: object) -> dict[str, Any]:
    """Return the circuit that a preset in short notation stands for, as it is stored.

    Raises:
        ValueError: the preset is unknown, or its options are wrong.

    """
    if not isinstance(preset, str):
        raise ValueError(f"`preset` is the name of a preset, such as {EXAMPLES[0]!r}, got {preset!r}")
    return preset_document(preset)


def is_of_preset(stored: Any, preset: object) -> bool:
    """Say whether a stored circuit was made from a preset, by this version or by one that wrote other options out."""
    document = circuit_of_preset(preset)
    return isinstance(stored, Mapping) and all(stored.get(key) == document[key] for key in ("preset", "name"))


def checked_circuit(value: CircuitField, auto_rule: int = AUTO_RULE) -> Any:
    """Return a circuit, or a mapping from target to circuit, as it is stored; `auto_rule` is that of `load_spec`.

    Raises:
        SpecError: a circuit is wrong.
        ValueError: the mapping is no mapping from target to circuit.

    """
    if not isinstance(value, Mapping) or "version" in value:
        return _document(value, auto_rule)
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
        stored[target] = _document(source, auto_rule)
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


def _document(source: Any, auto_rule: int) -> Document:
    document = checked_document(source, auto_rule=auto_rule)
    if isinstance(source, str) and source.startswith("{"):
        # Text that was stored stays as it is: read as YAML, `layout: 64` is the text 64.
        with contextlib.suppress(json.JSONDecodeError):
            document = json.loads(source)
    return stored_document(document)


def stored_document(data: Mapping[str, Any]) -> Document:
    """Return a circuit as it is stored: JSON text where the order of its keys counts."""
    text = json.dumps(data)
    # Sorting the keys would make another circuit of named axes, and of gates that rename theirs.
    targets = [gate.get("to") for gate in data.get("gates", ()) if isinstance(gate, Mapping)]
    is_text = any(isinstance(mapping, Mapping) and len(mapping) > 1 for mapping in (data.get("layout"), *targets))
    return text if is_text else dict(json.loads(text))


def circuit_digest(stored: Any) -> str:
    """Return the SHA-256 of stored circuits, whatever the order of keys."""
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode("utf-8")).hexdigest()


def is_mapping(stored: Any) -> bool:
    """Say whether stored circuits are a mapping from target to circuit, not one circuit."""
    return isinstance(stored, Mapping) and "version" not in stored


def is_name(target: str) -> bool:
    """Say whether a target is the end of a module's name as it stands, not a regular expression for several."""
    return re.fullmatch(r"[\w.]+", target) is not None


def plain_targets(stored: Mapping[str, Any]) -> set[str] | str:
    """Return the keys of a mapping as `target_modules`: a set of names, or one regular expression."""
    if all(is_name(target) for target in stored):
        return set(stored)
    return r"(?:.*\.)?(?:" + "|".join(f"(?:{target})" for target in sorted(stored)) + ")"


def target_for(stored: Any, name: str) -> str | None:
    """Return the key whose circuit is for the module `name`; None where one circuit is for all of them.

    Keys are matched as PEFT matches `rank_pattern`; the longest counts.

    Raises:
        FeaturesError: no key of the mapping matches, or two that are equally long.

    """
    if not is_mapping(stored):
        return None
    matching = sorted((target for target in stored if matches(target, name)), key=len, reverse=True)
    if not matching:
        raise FeaturesError(f"none of the circuits is for it (they are for {', '.join(map(repr, sorted(stored)))})")
    if len(matching) > 1 and len(matching[0]) == len(matching[1]):
        first, second = sorted(matching[:2])
        raise FeaturesError(f"the circuits for {first!r} and for {second!r} both match, and neither is more specific")
    return str(matching[0])


def circuit_for(stored: Any, name: str) -> Document:
    """Return the circuit for the module `name`; see `target_for`."""
    target = target_for(stored, name)
    circuit: Document = stored if target is None else stored[target]
    return circuit
