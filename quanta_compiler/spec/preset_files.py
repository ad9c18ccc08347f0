"""Preset files to the circuits that they stand for.

    version: 1
    name: adapter
    preset: lora
    rank: 8
    in_features: 4096

What is wrong with such a circuit is reported at the options that it comes from.
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, Literal, cast

from pydantic import Field, ValidationError, create_model

from quanta_compiler.diagnostics import REACH, Diagnostic, Problems
from quanta_compiler.presets.family import Expansion, Family
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.spec.complaints import Translator, by_mapping, report_unknown
from quanta_compiler.spec.document import PLACEHOLDERS, ROUNDS, Document, read_document
from quanta_compiler.spec.loader import DictSource
from quanta_compiler.spec.models import PresetFile, forms, type_of
from quanta_compiler.spec.render import init_data
from quanta_compiler.spec.resolve import refuse_many_axes, resolve
from quanta_compiler.spec.suspects import padding_of

_UNEVEN = 16
"""At most this many times the smaller of two factors the larger one should be: each is within four times the root."""


@cache
def preset_model(name: str) -> type[PresetFile]:
    """Return the model of the files of a family."""
    family, literal = PRESETS[name], cast(Any, Literal)
    own: dict[str, Any] = {field.name: _field(field) for field in dataclasses.fields(family)}
    title, meaning = f"{family.__name__}Preset", f"{family.meaning}."
    return create_model(title, __base__=PresetFile, __doc__=meaning, preset=(literal[name], ...), **own)


def _field(option: dataclasses.Field[Any]) -> tuple[Any, Any]:
    key, default = option.metadata["key"], option.default
    if not isinstance(default, Layout):
        return type_of(key), default
    shown: Any = {"default": {"auto": default.auto}}
    return type_of(key), Field(default_factory=lambda: default, description=key.meaning, json_schema_extra=shown)


def read_preset(data: dict[Any, Any], problems: Problems) -> PresetFile | None:
    """Validate a file that names a preset in place of its gates; what cannot be read of it has its default."""
    name = data["preset"]
    model = preset_model(name) if isinstance(name, str) and name in PRESETS else PresetFile
    if model is PresetFile:
        report_unknown("preset", ("preset",), name, PRESETS, problems)
        # Which options it takes is not known: only what every preset takes is checked.
        data = {**{key: data[key] for key in PresetFile.model_fields if key in data}, "preset": ""}
    # A round can bring up what the last one's problems kept pydantic from looking at.
    for _ in range(ROUNDS):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            translator = Translator(data, forms(), problems)
            data = dict(data)
            for path, group in by_mapping(error.errors(include_url=False)):
                translator.report(path, group)
                for item in group:
                    key = item["loc"][0] if item["loc"] else None
                    data.pop(key, None)
                    if key in ("version", "name"):
                        data[key] = PLACEHOLDERS[key]
    return None


def resolve_preset(
    file: PresetFile,
    problems: Problems,
    in_features: int | None,
    out_features: int | None,
    auto_rule: int,
) -> CircuitSpec | None:
    """Resolve a preset file to the circuit that it stands for; None where problems were reported.

    `in_features` and `out_features` are taken where the file does not write its own; `out_features` is `in_features`
    where neither gives it. `auto_rule` is the rule by which layouts are chosen.
    """
    if problems.has_errors:
        return None
    columns = _in_features(file, in_features, problems)
    if columns is None:
        return None
    rows = next((width for width in (file.out_features, out_features) if width is not None), columns)
    family = _family(file, auto_rule)
    layout: Layout | None = getattr(family, "layout", None)
    if layout is not None and refuse_many_axes(layout, layout.sizes_for(columns), problems):
        return None
    expansion = family.circuit(columns, rows)
    for option, limit in expansion.limits.items():
        value = getattr(file, option)
        if value > limit.value:
            message = f"`{option}` {value} is more than {limit.reason}, {limit.value}"
            problems.error(_at(file, option), message, f"write `{option}: {limit.value}` at most")
    if problems.has_errors:
        return None
    inner = Problems(DictSource())
    expanded = read_document(_circuit_data(file, expansion, columns, rows), inner)
    assert isinstance(expanded, Document), "a preset expands to a circuit"
    spec = resolve(expanded, inner)
    _relay(inner, file, expansion, problems)
    _warn_about_options(file, expansion, problems)
    if spec is not None:
        _warn_about_pairs(file, spec, problems)
    if expansion.chosen_width is not None:
        _warn_about_fitting(file, family, expansion, max(columns, rows), problems)
    elif layout is not None:
        _warn_about_factors(file, layout, dict.fromkeys((columns, rows)), problems)
    return None if problems.has_errors else spec


def _family(file: PresetFile, auto_rule: int) -> Family:
    family = PRESETS[file.preset]
    options = {option: getattr(file, option) for option in family.options()}
    if "layout" in options:
        options["layout"] = replace(options["layout"], rule=auto_rule)
    return family(**options)


def _in_features(file: PresetFile, given: int | None, problems: Problems) -> int | None:
    """Return the width of the input: the file's, the layer's, or that of a layout which is written out."""
    if file.in_features is not None or given is not None:
        return file.in_features if file.in_features is not None else given
    layout: Layout | None = getattr(file, "layout", None)
    if layout is not None and layout.auto is None:
        return math.prod(layout.sizes)
    message = (
        f"preset `{file.preset}` needs `in_features`; without it the file is a template, which only adapters accept"
    )
    problems.error(("preset",), message, "add `in_features`, or use the file as a template in an adapter")
    return None


def _circuit_data(file: PresetFile, expansion: Expansion, in_features: int, out_features: int) -> dict[str, Any]:
    """Return the circuit file that a preset file stands for; its `init` is that of every gate."""
    data: dict[str, Any] = {
        "version": file.version,
        "name": file.name,
        "in_features": in_features,
        "out_features": out_features,
        **expansion.circuit,
        "plan": {"tokens": file.plan.tokens, "optimizer": file.plan.optimizer},
    }
    if file.init is not None:
        data["init"] = init_data(file.init)
        gates = [
            {key: gate[key] for key in gate if key != "init"} if isinstance(gate, dict) else gate
            for gate in data["gates"]
        ]
        data["gates"] = gates
    return data


def _relay(inner: Problems, file: PresetFile, expansion: Expansion, problems: Problems) -> None:
    """Report the problems of the expanded circuit at the options that they come from."""
    for diagnostic in (*inner.errors(), *inner.warnings()):
        option = _option(diagnostic, file)
        # In the preset's own words; a rank, or an axis that costs much, is what the preset is known to have.
        is_told = expansion.chosen_width is not None and diagnostic.path in ("in_features", "out_features")
        if diagnostic.severity == "error":
            of_gate = diagnostic.path.startswith("gates[") and not diagnostic.path.endswith("]")
            hint = f"preset `{file.preset}` has this gate: choose smaller options" if of_gate else diagnostic.hint
            problems.error((option,), diagnostic.message, hint)
        elif not is_told and not diagnostic.path.endswith((".rank", ".axes")):
            takes_layout = hasattr(file, "layout") or "layout:" not in (diagnostic.hint or "")
            problems.warning((option,), diagnostic.message, diagnostic.hint if takes_layout else None)


def _option(diagnostic: Diagnostic, file: PresetFile) -> str:
    part = re.split(r"[.\[]", diagnostic.path)[0]
    candidates = [part]
    if part == "gates":
        # Of the list as a whole only what all gates start at is complained about.
        candidates = ["init"] if diagnostic.path == "gates" else [PRESETS[file.preset].main or "preset", "layout"]
    return next((key for key in candidates if key in file.model_fields_set), "preset")


def _at(file: PresetFile, option: str) -> tuple[str]:
    """Return where a problem with an option is shown: at the preset's name where the file does not give the option."""
    return (option if option in file.model_fields_set else "preset",)


def _warn_about_options(file: PresetFile, expansion: Expansion, problems: Problems) -> None:
    for option, largest in expansion.largest.items():
        value = getattr(file, option)
        if value > largest:
            message = f"`{option}` {value} is more than this circuit can use ({largest})"
            hint = f"`{option}: {largest}` has the same updates with fewer parameters"
            problems.warning(_at(file, option), message, hint, topic=REACH)
    for option, least in expansion.connecting.items():
        value = getattr(file, option)
        if value < least:
            message = f"`{option}` {value} is too small for every output to depend on every input"
            hint = f"`{option}: {least}` is enough; with less, some entries stay zero"
            problems.warning(_at(file, option), message, hint, topic=REACH)


def _warn_about_pairs(file: PresetFile, spec: CircuitSpec, problems: Problems) -> None:
    """Warn of widths that are no powers of two, each once, where orthogonal matrices come from angles."""
    for size, gate in {max(gate.shape[-2:]): gate for gate in spec.gates}.items():
        costly = gate.matrix.costly_size(size, f"an orthogonal matrix of size {size}")
        if costly is None:
            continue
        message, hint = costly
        width = "in_features" if size == spec.in_features else "out_features"
        padded = 1 << size.bit_length()
        how = f"for that, write {padded} for {size} in the `layout` and each `to` that `quanta expand` prints"
        problems.warning(_at(file, width), message, f"{hint}: {how}")


def _warn_about_factors(file: PresetFile, layout: Layout, widths: Iterable[int], problems: Problems) -> None:
    """Warn of widths whose only two factors are very uneven: gates on single axes have numbers by the larger one."""
    if layout.auto != 2:
        return
    for width in widths:
        large, small = layout.sizes_for(width)
        if large > _UNEVEN * small:
            three = replace(layout, auto=3).sizes_for(width)
            message = f"on two axes {width} is {large}x{small}, and gates on the larger one have most of the numbers"
            hint = f"`layout: {{auto: 3}}` has {'x'.join(map(str, three))} in its place"
            problems.warning(_at(file, "layout"), message, hint)


def _warn_about_fitting(
    file: PresetFile, family: Family, expansion: Expansion, wanted: int, problems: Problems
) -> None:
    """Warn where a square circuit is wider than the larger of the two widths; the smaller is padded in any case."""
    width = expansion.chosen_width
    if width == wanted:
        return
    if family.widths is not None:
        message, hint = f"{wanted} is no {family.widths}: the circuit is {width} wide", None
    else:
        message, hint = padding_of(wanted, tuple(expansion.circuit["layout"]))
        hint = hint if hasattr(file, "layout") else _unpadded(file, family, wanted)
    problems.warning(_at(file, "layout"), message, hint)


def _unpadded(file: PresetFile, family: Family, wanted: int) -> str | None:
    """Return the nearest value of the main option with which nothing is padded, up to twice as large or small."""
    option = family.main or ""
    given = getattr(file, option, None)
    if not isinstance(given, int):
        return None
    # What deals out a width without padding divides it.
    values = [value for value in range(-(-given // 2), min(2 * given, wanted) + 1) if wanted % value == 0]
    for value in sorted(values, key=lambda value: max(value / given, given / value)):
        other: Any = family
        if replace(other, **{option: value}).circuit(wanted, wanted).chosen_width == wanted:
            return f"`{option}: {value}` is not padded"
    return None
