"""pydantic's errors in our own words: a place, the fact and the remedy."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

from quanta_compiler.diagnostics import DataPath, Problems, did_you_mean, offered, quote
from quanta_compiler.kinds import DEFAULT
from quanta_compiler.kinds.checks import BadValueError, describe
from quanta_compiler.kinds.options import Key, Word
from quanta_compiler.kinds.plugins import PACKAGE, PACKAGES, PluginError, find_kind, plugin_names
from quanta_compiler.spec.circuit_spec import ACROSS
from quanta_compiler.spec.models import OF_PARAMETERS, OPTIMIZERS, CircuitFile, Forms, Plan, PresetFile, SharedGate
from quanta_compiler.spec.patterns import MIXED, PATTERNS

_RANK = "LoRA's r is `rank`"
_ADAPTER_WORDS = {
    "alpha": "a scale belongs to the adapter: QuantaConfig(scale=...), LoRA's alpha / r",
    "lora_alpha": "a scale belongs to the adapter: QuantaConfig(scale=...), LoRA's alpha / r",
    "lora_dropout": "dropout belongs to the adapter: QuantaConfig(dropout=...)",
    "dropout": "dropout belongs to the adapter: QuantaConfig(dropout=...)",
    "target_modules": "targets belong to the adapter: QuantaConfig(target_modules=[...])",
    "modules_to_save": "they belong to the adapter: QuantaConfig(modules_to_save=[...])",
}
"""Keys that users of PEFT's LoRA write into a circuit, and where they belong."""


def data_path(loc: tuple[Any, ...]) -> DataPath:
    """Take the tag of the union out of pydantic's path: it follows the index of a gate."""
    return loc[:2] + loc[3:] if loc[:1] == ("gates",) and len(loc) > 2 else loc


def by_mapping(errors: list[Any]) -> list[tuple[DataPath, list[Any]]]:
    """Group errors by the mapping that they are in: a missing and an unknown key may be one mistake."""
    groups: dict[DataPath, list[Any]] = {}
    for error in errors:
        path = data_path(error["loc"])
        own = error["type"] in ("missing", "extra_forbidden")
        groups.setdefault(path[:-1] if own else path[:2] if path[:1] == ("gates",) else (), []).append(error)
    return list(groups.items())


class Translator:
    """Tells pydantic's errors about one mapping in sentences with a place, the fact and the remedy."""

    def __init__(self, data: dict[Any, Any], forms: Forms, problems: Problems) -> None:
        self.data = data
        self.forms = forms
        self.problems = problems
        self.told: set[str] = set()
        """Kinds of which has been said that they cannot be used."""

    def _value_at(self, path: DataPath) -> Any:
        value: Any = self.data
        for step in path:
            value = value[step]
        return value

    def report(self, path: DataPath, errors: list[Any]) -> None:
        """Report pydantic's errors about the mapping at `path`."""
        missing = [error["loc"][-1] for error in errors if error["type"] == "missing"]
        for error in errors:
            if not self.problems.has_room:
                self.problems.omit(1)
            elif error["type"] == "extra_forbidden":
                self._unknown_key(data_path(error["loc"]), missing)
            elif error["type"] != "missing":
                self._bad_value(data_path(error["loc"]), error)
        for key in missing:
            self._missing_key(path, key)

    def _unknown_key(self, path: DataPath, missing: list[Any]) -> None:
        *outer, key = path
        mapping = self._value_at(tuple(outer))
        allowed, others, what = self._keys_for(tuple(outer), mapping)
        if key in others:
            why = self._why_not(str(key), mapping) if outer else _why_not_with_preset(key, mapping)
            self.problems.error(path, f"{quote(key)} does not go with {what}", why, key=True)
            return
        absent = [name for name in allowed if name not in mapping]
        close = did_you_mean(key, absent)
        if close in missing:
            missing.remove(close)
        if close == "preset":
            missing.clear()
        hint = f"did you mean `{close}`?" if close else f"the keys are {', '.join(allowed)}"
        if key == "r" and "rank" in allowed:
            hint = _RANK
            missing[:] = [name for name in missing if name != "rank"]
        elif key == "r" and not outer and "preset" not in mapping:
            missing.clear()
            hint = f"{_RANK}, and goes with a preset: `preset: lora` and `rank: 8`"
        elif key in _ADAPTER_WORDS and not outer:
            hint = _ADAPTER_WORDS[key]
        if key in PATTERNS and "axes" in missing:
            missing.remove("axes")
            hint = f"a pattern is written `{{pattern: {key}, ...}}`"
        if key == "<<":
            missing.clear()
            hint = "merge keys are no part of YAML 1.2; write the keys out"
        self.problems.error(path, f"unknown key {quote(key)} in {what}", hint, key=True)

    def _keys_for(self, path: DataPath, mapping: dict[Any, Any]) -> tuple[list[str], tuple[str, ...], str]:
        """Return the keys that a mapping takes, those that its relatives take, and what it is called."""
        if not path:
            return _keys_of_file(mapping)
        if path == ("plan",):
            return list(Plan.model_fields), (), "`plan`"
        model = self.forms.models[self.forms.tag(mapping) or ""]
        allowed = list(model.model_fields)
        if "pattern" in mapping:
            kind = mapping.get("kind", DEFAULT.name)
            name = mapping["pattern"]
            what = f"pattern `{name}`" if name in MIXED else f"a pattern of kind `{kind}`"
            return allowed, (*self.forms.pattern_keys, "name", "share", "transpose", "value"), what
        if model is SharedGate:
            return allowed, self.forms.gate_keys, "`share`"
        return allowed, (*self.forms.gate_keys, "repeat"), f"a gate of kind `{mapping.get('kind', DEFAULT.name)}`"

    def _missing_key(self, path: DataPath, key: Any) -> None:
        hint = _EXAMPLES.get(str(key))
        what = "the circuit" if not path else "the pattern" if "pattern" in self._value_at(path) else "the gate"
        if path and key in self.forms.options:
            kind = self._value_at(path)["kind"]
            self.problems.error(path, f"kind `{kind}` needs a `{key}`", self.forms.options[key].example)
        else:
            self.problems.error(path, f"{what} has no `{key}`", hint)

    def _bad_value(self, path: DataPath, error: Any) -> None:
        code, value = error["type"], error["input"]
        cause = error.get("ctx", {}).get("error")
        if isinstance(cause, BadValueError):
            for inner, message, hint in cause.problems:
                # An item that is a bare list is refused as a whole value, at the path of the item.
                self.problems.error(path + inner, message, hint)
        elif code == "union_tag_not_found":
            self._bad_item(path, value)
        elif code == "literal_error":
            key = str(path[-1])
            option = self.forms.options.get(key)
            words = option.type.words if option is not None and isinstance(option.type, Word) else _WORDS[key]
            report_unknown(key, path, value, words, self.problems)
        else:
            message = f"{_label(path)} {_expectation(code, error.get('ctx', {}))}, got {describe(value)}"
            self.problems.error(path, message, _HINTS.get(code) or self._range_hint(path))

    def _range_hint(self, path: DataPath) -> str | None:
        options: Mapping[Any, Key] = self.forms.options
        if len(path) == 1 and "preset" in self.data:
            from quanta_compiler.presets.table import PRESETS

            options = PRESETS[self.data["preset"]].options() if self.data["preset"] in PRESETS else {}
        option = options.get(path[-1]) if path else None
        return option.hint if option is not None else None

    def _bad_item(self, path: DataPath, item: Any) -> None:
        if not isinstance(item, dict):
            hint = "write `[0, 1]`, the name of a pattern, or a mapping with `axes`"
            self.problems.error(path, f"expected a gate or a pattern, got {describe(item)}", hint)
            return
        kinds = self.forms.patterns if "pattern" in item else self.forms.gates
        what = "pattern" if "pattern" in item else "gate"
        value = item.get("kind")
        if not isinstance(value, str):
            self.problems.error((*path, "kind"), f"`kind` must be a name, got {describe(value)}", _one_of(kinds))
        elif value in self.forms.gates:
            message = f"a pattern cannot have gates of kind {quote(value)}"
            self.problems.error((*path, "kind"), message, _one_of(kinds))
        else:
            self._unknown_kind((*path, "kind"), value, what, kinds)

    def _unknown_kind(self, path: DataPath, value: str, what: str, kinds: Collection[str]) -> None:
        """Report a kind that there is not, or once for all gates one of a package that is missing or broken."""
        reason = self._reason(value)
        if reason is None:
            hint = offered(value, {*kinds, *plugin_names()}, _one_of((*kinds, *sorted(plugin_names()))))
            self.problems.error(path, f"unknown kind {quote(value)} of a {what}", hint)
        elif value not in self.told:
            self.told.add(value)
            self.problems.error(path, reason.fact, reason.hint)

    def _reason(self, kind: str) -> PluginError | None:
        """Return why a kind of another package cannot be used; None where nothing says that it is one."""
        try:
            find_kind(kind)
        except PluginError as error:
            return error
        packages = self.data.get(PACKAGES)
        given = packages.get(kind) if isinstance(packages, dict) else None
        package = PACKAGE.match(given) if isinstance(given, str) else None
        if package is None:
            return None
        name, version = package["name"], package["version"]
        with suppress(metadata.PackageNotFoundError):
            fact = f"the package {name} {metadata.version(name)} has no kind {quote(kind)}"
            return PluginError(fact, "install the version that the circuit was saved with")
        fact = f"kind {quote(kind)} is one of the package {quote(name)}, which is missing"
        saved = f"; the circuit was saved with version {version}" if version else ""
        return PluginError(fact, f"pip install {name}, where you trust it{saved}")

    def _home(self, key: str) -> str | None:
        if key in ("transpose", "repeat"):
            return f"`{key}` goes with `{'share' if key == 'transpose' else 'pattern'}`"
        homes = [f"`kind: {name}`" for name, kind in self.forms.kinds.items() if key in kind.options()]
        homes += [f"with the pattern `{name}`" for name, pattern in PATTERNS.items() if key in pattern.options]
        return f"`{key}` goes with {' and '.join(homes)}" if homes else None

    def _why_not(self, key: str, mapping: dict[Any, Any]) -> str | None:
        name = mapping.get("kind", DEFAULT.name)
        if "pattern" in mapping:
            return self._why_not_in_a_pattern(key, mapping["pattern"], name)
        if "share" in mapping:
            return "a shared parameter is described where it is first used"
        if key in OF_PARAMETERS:
            return f"a {name} gate has no parameter"
        if key == "per":
            return f"a {name} gate is the same for every index; leave `per` out"
        return self.forms.kinds[name].refusals.get(key) or self._home(key)

    def _why_not_in_a_pattern(self, key: str, pattern: Any, name: str) -> str:
        if key == "name":
            return "the gates of a pattern are called g0, g1, ... by position"
        if pattern in MIXED:
            return PATTERNS[pattern].refusals.get(key, _WRITE_OUT)
        kind = self.forms.kinds[name]
        if key in kind.refusals:
            return kind.refusals[key]
        if key in OF_PARAMETERS and not kind.trains:
            return f"a {name} gate has no parameter"
        is_option = any(key in self.forms.kinds[other].options() for other in self.forms.patterns)
        return (self._home(key) if is_option else None) or _WRITE_OUT


def report_unknown(key: str, path: DataPath, value: Any, words: Collection[str], problems: Problems) -> None:
    """Report a value that is none of the words that its key takes."""
    if not isinstance(value, str):
        problems.error(path, f"`{key}` must be a name, got {describe(value)}", _one_of(words))
        return
    problems.error(path, f"unknown {key} {quote(value)}", offered(value, words, _one_of(words)))


def _keys_of_file(data: dict[Any, Any]) -> tuple[list[str], tuple[str, ...], str]:
    if "preset" not in data:
        return [*CircuitFile.model_fields, "preset"], (), "a circuit"
    from quanta_compiler.presets.table import PRESETS

    family = PRESETS.get(data["preset"])
    own = [*PresetFile.model_fields, *(family.options() if family else ())]
    others = [key for other in PRESETS.values() for key in other.options()]
    return own, (*others, *CircuitFile.model_fields), f"preset `{data['preset']}`"


_WORDS: Mapping[str, Collection[str]] = {"optimizer": OPTIMIZERS, "across": ACROSS}
"""The values of keys that are no options of kinds."""
_WRITE_OUT = "write the gates out where they differ"
_EXAMPLES = {
    "version": "write `version: 1`",
    "name": "such as `name: my-circuit`",
    "layout": "such as `layout: 16x8x8x4`",
    "gates": "such as `gates: [all_pairs]`",
    "axes": "such as `axes: [0, 1]`",
}
_HINTS = {
    "too_short": "name a pattern such as `all_pairs`, or write gates such as `[0, 1]`",
    "bool_type": "write true or false",
    "model_type": "such as `plan: {tokens: 2048, optimizer: auto}`",
}


def _one_of(words: Any) -> str:
    return "there are " + ", ".join(words)


def _label(path: DataPath) -> str:
    return f"`{path[-1]}`" if path and isinstance(path[-1], str) else "the value"


def _expectation(code: str, context: dict[str, Any]) -> str:
    if code == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if code == "less_than_equal":
        return f"is limited to {context['le']}"
    words = {
        "int_type": "must be an integer",
        "int_parsing_size": "is a number too large",
        "bool_type": "must be true or false",
        "string_type": "must be the name of an earlier gate",
        "list_type": "must be a list",
        "too_short": "must have at least one entry",
        "model_type": "must be a mapping",
    }
    return words.get(code, "has a value that is not allowed")


def _why_not_with_preset(key: Any, mapping: dict[Any, Any]) -> str:
    if key in ("gates", "output"):
        return "a preset has gates of its own; `quanta expand` writes them out to be changed"
    from quanta_compiler.presets.table import PRESETS

    options = PRESETS[mapping["preset"]].options()
    return "its options are " + ", ".join(f"`{name}`" for name in options) if options else "it has no options"
