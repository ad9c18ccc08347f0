"""The circuit file as it is written, as pydantic models: the structure, and the source of the JSON Schema.

What holds between gates is checked in `resolve`. Values with several notations are checked in `values`; the schema of
each stands here, beside the field that it describes.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cached_property, lru_cache, partial, reduce
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema, create_model

from quanta_compiler.kinds import DEFAULT, KINDS, limits
from quanta_compiler.kinds.initialisers import ANGLES, ENTRIES
from quanta_compiler.kinds.kind import Kind
from quanta_compiler.kinds.options import Checked, Integer, Key, Sizes, Word
from quanta_compiler.kinds.plugins import blamed
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.spec import schema_parts as parts
from quanta_compiler.spec import values
from quanta_compiler.spec.circuit_spec import ACROSS, Init
from quanta_compiler.spec.patterns import MIXED, PATTERNS
from quanta_compiler.spec.values import AxisRef

Optimizer = Literal["auto", "dp", "greedy", "branch-1", "branch-2"]
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)


def _init_of(schemes: tuple[str, ...]) -> Any:
    return Annotated[
        Init | None, PlainValidator(partial(values.check_init_of, schemes)), WithJsonSchema(parts.init_of(schemes))
    ]


def _word_of(words: tuple[str, ...], schema: dict[str, Any]) -> Any:
    return Annotated[Literal[words], WithJsonSchema(schema)]


def _width(key: str) -> Any:
    return PlainValidator(partial(values.check_width, key))


# Where None stands in a type here it is only the default: the checks refuse a null in the file.
Version = Annotated[int, PlainValidator(values.check_version), WithJsonSchema(parts.VERSION)]
CircuitName = Annotated[str, PlainValidator(values.check_circuit_name), WithJsonSchema(parts.CIRCUIT_NAME)]
GateName = Annotated[str | None, PlainValidator(values.check_gate_name), WithJsonSchema(parts.GATE_NAME)]
PatternName = Annotated[str, PlainValidator(values.check_pattern_name), WithJsonSchema(parts.PATTERN_NAME)]
RuleName = Annotated[str, PlainValidator(values.check_pattern_name), WithJsonSchema(parts.RULE_NAME)]
Refs = tuple[AxisRef, ...]
Axes = Annotated[Refs, PlainValidator(values.check_axes), WithJsonSchema(parts.AXES)]
PatternAxes = Annotated[Refs | None, PlainValidator(values.check_axes), WithJsonSchema(parts.PATTERN_AXES)]
Output = Annotated[Refs | None, PlainValidator(values.check_output), WithJsonSchema(parts.OUTPUT)]
Per = Annotated[Refs | str, PlainValidator(values.check_per), WithJsonSchema(parts.PER)]
PatternPer = Annotated[str | None, PlainValidator(values.check_pattern_per), WithJsonSchema(parts.PATTERN_PER)]
To = Annotated[tuple[int, ...] | dict[AxisRef, int] | None, PlainValidator(values.check_to), WithJsonSchema(parts.TO)]
_final_sizes = partial(values.check_to_mapping, "`to` of a pattern is a mapping from axes to their final sizes")
PatternTo = Annotated[dict[AxisRef, int] | None, PlainValidator(_final_sizes), WithJsonSchema(parts.PATTERN_TO)]
InitField = Annotated[Init | None, PlainValidator(values.check_init), WithJsonSchema(parts.INIT)]
RotationInit = _init_of(ANGLES)
InFeatures = Annotated[int | None, _width("in_features"), WithJsonSchema(parts.IN_FEATURES)]
OutFeatures = Annotated[int | None, _width("out_features"), WithJsonSchema(parts.OUT_FEATURES)]
Packages = Annotated[dict[str, str] | None, PlainValidator(values.check_packages), WithJsonSchema(parts.PACKAGES)]
Repeat = Annotated[int, Field(ge=1, le=limits.REPEAT, description="Repetitions, each with its own gates.")]
Frozen = Annotated[bool, Field(description="Whether the parameter requires no gradient.")]
Across = _word_of(tuple(ACROSS), parts.ACROSS)
OF_PARAMETERS = ("init", "frozen", "across")
"""Keys of what a gate stores."""


class FileModel(BaseModel):
    """A mapping of the file: no key that is not known, no value of another type."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", defer_build=True)


def type_of(key: Key, kind: str = DEFAULT.name) -> Any:
    """Return what pydantic checks the value of an option with; what a kind's check raises is put down to it."""
    match key.type:
        case Integer(least, most):
            return Annotated[int, Field(ge=least, le=most, description=key.meaning)]
        case Word(words):
            return Annotated[Literal[words], Field(description=key.meaning)]
        case Sizes():
            return Annotated[Layout, PlainValidator(values.check_preset_layout), WithJsonSchema(parts.PRESET_LAYOUT)]
        case Checked(check, schema):
            described = {**schema, "description": key.meaning}
            return Annotated[Any, PlainValidator(partial(_checked, check, kind)), WithJsonSchema(described)]


def _checked(check: Callable[[Any], Any], kind: str, value: Any) -> Any:
    with blamed(kind, "fails for the value of an option", passing=(ValueError,)):
        return check(value)


def _options(kind: type[Kind]) -> dict[str, tuple[Any, Any]]:
    return {
        field.name: (
            type_of(field.metadata["key"], kind.name),
            ... if field.default is MISSING else field.default,
        )
        for field in fields(kind)
    }


def _parameter(kind: type[Kind], per: tuple[Any, Any]) -> dict[str, tuple[Any, Any]]:
    keys: dict[str, tuple[Any, Any]] = {"per": per} if kind.takes_per else {}
    if kind.schemes:
        keys |= {
            "init": (InitField if kind.schemes == ENTRIES else _init_of(kind.schemes), None),
            "frozen": (Frozen, False),
            "across": (Across, None),
        }
    return keys


def _name_of(kind: type[Kind]) -> tuple[Any, Any]:
    return Literal[kind.name], kind.name if kind.name == DEFAULT.name else ...


def _gate_model(kind: type[Kind]) -> type[FileModel]:
    keys: dict[str, tuple[Any, Any]] = {"axes": (Axes, ...)}
    if kind.takes_to:
        keys["to"] = (To, None)
    keys |= {"name": (GateName, None), "kind": _name_of(kind), **_options(kind), **_parameter(kind, (Per, ()))}
    return _model(f"{kind.name.title()}Gate", kind.meaning, keys)


def _pattern_model(kind: type[Kind]) -> type[FileModel]:
    keys: dict[str, tuple[Any, Any]] = {"pattern": (RuleName, ...), "repeat": (Repeat, 1), "axes": (PatternAxes, None)}
    keys |= {"kind": _name_of(kind), **_options(kind)}
    if kind.may_resize:
        keys["to"] = (PatternTo, None)
    keys |= _parameter(kind, (PatternPer, None))
    return _model(f"{kind.name.title()}Pattern", f"A pattern of {kind.name} gates.", keys)


def _model(name: str, meaning: str, keys: dict[str, tuple[Any, Any]]) -> type[FileModel]:
    return create_model(name, __base__=FileModel, __doc__=meaning, **cast(Any, keys))


class SharedGate(FileModel):
    """A gate that uses the parameter of an earlier gate."""

    axes: Axes
    to: To = None
    name: GateName = None
    share: Annotated[str, Field(description="The earlier gate whose parameter this one uses.")]
    transpose: Annotated[bool, Field(description="Use the transpose of the parameter.")] = False
    per: Per = ()


def _mixed_pattern(name: str) -> type[FileModel]:
    """Return the model of a pattern whose gates have kinds of their own, of which one stores angles."""
    pattern = PATTERNS[name]
    shown: dict[str, Any] = {"const": name, "description": pattern.meaning}
    title = "".join(map(str.capitalize, name.split("_"))) + "Pattern"
    meaning = f"The circuit of gates of the kinds {', '.join(pattern.kinds)} that the pattern `{name}` stands for."
    keys: dict[str, Any] = {
        "pattern": (Annotated[str, PlainValidator(values.check_pattern_name), WithJsonSchema(shown)], ...),
        "repeat": (Repeat, 1),
        "axes": (PatternAxes, None),
        "init": (RotationInit, None),
        "frozen": (Frozen, False),
        "across": (Across, None),
        **{option: (type_of(key), default) for option, (key, default) in pattern.options.items()},
    }
    return _model(title, meaning, keys)


class Plan(FileModel):
    """How to plan the contraction."""

    tokens: Annotated[int, Field(ge=1, le=limits.TOKENS, description="The batch to plan for.")] = 2048
    optimizer: Annotated[Optimizer, Field(description="How to search the order of contractions.")] = "auto"


class CircuitFile(FileModel):
    """A circuit: gates applied to the axes of a reshaped vector."""

    version: Version
    name: CircuitName
    layout: Annotated[Layout, PlainValidator(values.check_layout), WithJsonSchema(parts.LAYOUT)]
    in_features: InFeatures = None
    out_features: OutFeatures = None
    gates: list[Any]
    """Validated by the model of the file that `forms` returns."""
    output: Output = None
    init: InitField = None
    plan: Plan = Plan()
    packages: Packages = None


class PresetFile(FileModel):
    """What every preset file may say beside the options of its preset."""

    version: Version
    name: CircuitName
    preset: str
    in_features: InFeatures = None
    out_features: OutFeatures = None
    init: InitField = None
    plan: Plan = Plan()


@dataclass(frozen=True)
class Forms:
    """The forms that entries of `gates` have in files with gates of some kinds, and the model of such a file."""

    kinds: Mapping[str, type[Kind]]
    gates: Mapping[str, type[FileModel]]
    patterns: Mapping[str, type[FileModel]]

    def tag(self, item: Any) -> str | None:
        """Say which form an entry of `gates` has: the tag of a member of the union, or None for no form at all."""
        if isinstance(item, str):
            return "pattern name"
        if isinstance(item, list | tuple):
            return "axes"
        if not isinstance(item, dict):
            return None
        if item.get("pattern") in MIXED:
            return str(item["pattern"])
        if "pattern" not in item and "share" in item:
            return "share"
        kind = item.get("kind", DEFAULT.name)
        prefix, models = ("pattern", self.patterns) if "pattern" in item else ("gate", self.gates)
        return f"{prefix} {kind}" if isinstance(kind, str) and kind in models else None

    @cached_property
    def models(self) -> dict[str, type[FileModel]]:
        """The models of entries that are mappings, by tag."""
        return {
            **{f"gate {name}": model for name, model in self.gates.items()},
            "share": SharedGate,
            **{f"pattern {name}": model for name, model in self.patterns.items()},
            **{name: _mixed_pattern(name) for name in MIXED},
        }

    @cached_property
    def gate_keys(self) -> tuple[str, ...]:
        """All keys that gates take."""
        return _all_keys((*self.gates.values(), SharedGate))

    @cached_property
    def pattern_keys(self) -> tuple[str, ...]:
        """All keys that patterns take."""
        return _all_keys(model for model in self.models.values() if "pattern" in model.model_fields)

    @cached_property
    def options(self) -> dict[str, Key]:
        """The options of all kinds; those of one name mean the same."""
        return {name: key for kind in self.kinds.values() for name, key in kind.options().items()}

    @cached_property
    def file(self) -> type[CircuitFile]:
        """The model of the file."""
        union: dict[str, Any] = {"axes": Axes, "pattern name": PatternName, **self.models}
        members = (Annotated[form, Tag(tag)] for tag, form in union.items())
        item = Annotated[reduce(operator.or_, members), Discriminator(self.tag)]  # type: ignore[valid-type]
        field = Field(min_length=1, max_length=limits.GATES, description=parts.GATES_TEXT)
        keys: dict[str, Any] = {"gates": (list.__class_getitem__(item), field)}
        return create_model("CircuitFile", __base__=CircuitFile, __doc__=CircuitFile.__doc__, **keys)


def _all_keys(models: Iterable[type[FileModel]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for model in models for key in model.model_fields))


@lru_cache(maxsize=8)
def forms(added: tuple[type[Kind], ...] = ()) -> Forms:
    """Return the forms of files with gates of the kinds of this package, and of some that others add."""
    kinds = {**KINDS, **{kind.name: kind for kind in added}}
    return Forms(
        kinds,
        {name: _gate_model(kind) for name, kind in kinds.items()},
        {name: _pattern_model(kind) for name, kind in kinds.items() if kind.in_patterns},
    )
