"""The circuit file as it is written, as pydantic models: the structure, and the source of the JSON Schema.

What holds between gates is checked in `resolve`. Values with several notations are checked in `values`; the schema of
each stands here, beside the field that it describes.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema, create_model

from quanta_compiler.kinds import limits
from quanta_compiler.kinds.options import Key, Sizes
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.spec import schema_parts as parts
from quanta_compiler.spec import values
from quanta_compiler.spec.circuit_spec import Init
from quanta_compiler.spec.patterns import MIXED, PATTERNS
from quanta_compiler.spec.values import AxisRef

Optimizer = Literal["auto", "dp", "greedy", "branch-1", "branch-2"]
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)
Map = Literal["exp", "cayley"]
MAPS: tuple[str, ...] = get_args(Map)

# Where None stands in a type here it is only the default: the checks refuse a null in the file.
Version = Annotated[int, PlainValidator(values.check_version), WithJsonSchema(parts.VERSION)]
CircuitName = Annotated[str, PlainValidator(values.check_circuit_name), WithJsonSchema(parts.CIRCUIT_NAME)]
GateName = Annotated[str | None, PlainValidator(values.check_gate_name), WithJsonSchema(parts.GATE_NAME)]
PatternName = Annotated[str, PlainValidator(values.check_pattern_name), WithJsonSchema(parts.PATTERN_NAME)]
RuleName = Annotated[str, PlainValidator(values.check_pattern_name), WithJsonSchema(parts.RULE_NAME)]
Share = Annotated[str, PlainValidator(values.check_share), WithJsonSchema(parts.SHARE)]
LayoutField = Annotated[Layout, PlainValidator(values.check_layout), WithJsonSchema(parts.LAYOUT)]
Refs = tuple[AxisRef, ...]
Axes = Annotated[Refs, PlainValidator(values.check_axes), WithJsonSchema(parts.AXES)]
PatternAxes = Annotated[Refs | None, PlainValidator(values.check_axes), WithJsonSchema(parts.PATTERN_AXES)]
Output = Annotated[Refs | None, PlainValidator(values.check_output), WithJsonSchema(parts.OUTPUT)]
Per = Annotated[Refs | str, PlainValidator(values.check_per), WithJsonSchema(parts.PER)]
PatternPer = Annotated[str | None, PlainValidator(values.check_pattern_per), WithJsonSchema(parts.PATTERN_PER)]
To = Annotated[tuple[int, ...] | dict[AxisRef, int] | None, PlainValidator(values.check_to), WithJsonSchema(parts.TO)]
PatternTo = Annotated[
    dict[AxisRef, int] | None, PlainValidator(values.check_pattern_to), WithJsonSchema(parts.PATTERN_TO)
]
InitField = Annotated[Init | None, PlainValidator(values.check_init), WithJsonSchema(parts.INIT)]
RotationInit = Annotated[Init | None, PlainValidator(values.check_rotation_init), WithJsonSchema(parts.ROTATION_INIT)]
Matrix = Annotated[tuple[tuple[float, ...], ...], PlainValidator(values.check_matrix), WithJsonSchema(parts.MATRIX)]
InFeatures = Annotated[int | None, PlainValidator(values.check_in_features), WithJsonSchema(parts.IN_FEATURES)]
OutFeatures = Annotated[int | None, PlainValidator(values.check_out_features), WithJsonSchema(parts.OUT_FEATURES)]
Rank = Annotated[int, Field(ge=1, le=limits.WIDTH, description="The rank r of the product B A.")]
MapField = Annotated[Map, Field(description="How an orthogonal matrix is made of a skew-symmetric one.")]
Layers = Annotated[
    int, Field(ge=0, le=limits.LAYERS, description="The entangling layers of the two-design circuit, from 0.")
]
RankParameters = Annotated[
    int | None, PlainValidator(values.check_rank_parameters), WithJsonSchema(parts.RANK_PARAMETERS)
]
Repeat = Annotated[int, Field(ge=1, le=limits.REPEAT, description="Repetitions, each with its own gates.")]
Frozen = Annotated[bool, Field(description="Whether the parameter requires no gradient.")]


def type_of(key: Key) -> Any:
    """Return what pydantic checks the value of an option with."""
    if isinstance(key.type, Sizes):
        return Annotated[Layout, PlainValidator(values.check_preset_layout), WithJsonSchema(parts.PRESET_LAYOUT)]
    return Annotated[int, Field(ge=key.type.least, le=key.type.most, description=key.meaning)]


class FileModel(BaseModel):
    """A mapping of the file: no key that is not known, no value of another type."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", defer_build=True)


class _Gate(FileModel):
    """A matrix applied to some axes, which it may change."""

    axes: Axes
    to: To = None
    name: GateName = None


class _RotationGate(_Gate):
    """An orthogonal matrix, of orthonormal columns or rows where it is rectangular."""

    per: Per = ()
    init: RotationInit = None
    frozen: Frozen = False
    rank_parameters: RankParameters = None


class DenseGate(_Gate):
    """A gate whose matrix is trained entry by entry."""

    kind: Literal["dense"] = "dense"
    per: Per = ()
    init: InitField = None
    frozen: Frozen = False


class LowrankGate(_Gate):
    """A gate whose matrix is the product B A of two trained factors."""

    kind: Literal["lowrank"]
    rank: Rank
    per: Per = ()
    init: InitField = None
    frozen: Frozen = False


class DiagonalGate(_Gate):
    """A gate that scales each index of its axes by a trained number."""

    kind: Literal["diagonal"]
    per: Per = ()
    init: InitField = None
    frozen: Frozen = False


class OrthogonalGate(_RotationGate):
    """A gate whose matrix is orthogonal, made of a skew-symmetric one."""

    kind: Literal["orthogonal"]
    map: MapField = "exp"


class PauliGate(_RotationGate):
    """A gate whose matrix is orthogonal, a circuit of a few rotations."""

    kind: Literal["pauli"]
    layers: Layers = 1


class RyGate(FileModel):
    """A gate that turns an axis of size 2 by a trained angle."""

    axes: Axes
    name: GateName = None
    kind: Literal["ry"]
    per: Per = ()
    init: RotationInit = None
    frozen: Frozen = False


class CzGate(FileModel):
    """A fixed gate on two axes: -1 at the last index of both, 1 elsewhere."""

    axes: Axes
    name: GateName = None
    kind: Literal["cz"]


class SliceGate(_Gate):
    """A fixed gate: the identity, its first rows, or its first columns."""

    kind: Literal["slice"]


class ConstantGate(_Gate):
    """A gate with a fixed matrix that the file gives."""

    kind: Literal["constant"]
    value: Matrix


class SharedGate(_Gate):
    """A gate that uses the parameter of an earlier gate."""

    share: Share
    transpose: Annotated[bool, Field(description="Use the transpose of the parameter.")] = False
    per: Per = ()


class _Pattern(FileModel):
    """A list of gates by rule."""

    pattern: RuleName
    repeat: Repeat = 1
    axes: PatternAxes = None


class _TrainedPattern(_Pattern):
    """A pattern of gates with parameters."""

    per: PatternPer = None
    init: InitField = None
    frozen: Frozen = False


class _RotationPattern(_Pattern):
    """A pattern of orthogonal gates."""

    per: PatternPer = None
    init: RotationInit = None
    frozen: Frozen = False


class DensePattern(_TrainedPattern):
    """A pattern of dense gates."""

    kind: Literal["dense"] = "dense"
    to: PatternTo = None


class LowrankPattern(_TrainedPattern):
    """A pattern of lowrank gates."""

    kind: Literal["lowrank"]
    rank: Rank
    to: PatternTo = None


class DiagonalPattern(_TrainedPattern):
    """A pattern of diagonal gates."""

    kind: Literal["diagonal"]


class OrthogonalPattern(_RotationPattern):
    """A pattern of orthogonal gates."""

    kind: Literal["orthogonal"]
    map: MapField = "exp"
    rank_parameters: RankParameters = None
    to: PatternTo = None


class PauliPattern(_RotationPattern):
    """A pattern of pauli gates."""

    kind: Literal["pauli"]
    layers: Layers = 1
    rank_parameters: RankParameters = None
    to: PatternTo = None


class RyPattern(_RotationPattern):
    """A pattern of RY."""

    kind: Literal["ry"]


class CzPattern(_Pattern):
    """A pattern of CZ."""

    kind: Literal["cz"]


def _mixed_pattern(name: str) -> type[FileModel]:
    """Return the model of a pattern whose gates have kinds of their own, of which one stores angles."""
    pattern = PATTERNS[name]
    shown: dict[str, Any] = {"const": name, "description": pattern.meaning}
    title = "".join(map(str.capitalize, name.split("_"))) + "Pattern"
    meaning = f"The circuit of {' and '.join(map(str.upper, pattern.kinds))} that the pattern `{name}` stands for."
    keys: dict[str, Any] = {
        "pattern": (Annotated[str, PlainValidator(values.check_pattern_name), WithJsonSchema(shown)], ...),
        "repeat": (Repeat, 1),
        "axes": (PatternAxes, None),
        "init": (RotationInit, None),
        "frozen": (Frozen, False),
        **{option: (type_of(key), default) for option, (key, default) in pattern.options.items()},
    }
    return create_model(title, __base__=FileModel, __doc__=meaning, **keys)


MIXED_PATTERNS: dict[str, type[FileModel]] = {name: _mixed_pattern(name) for name in MIXED}
GATE_KINDS: dict[str, type[FileModel]] = {
    "dense": DenseGate,
    "lowrank": LowrankGate,
    "diagonal": DiagonalGate,
    "orthogonal": OrthogonalGate,
    "pauli": PauliGate,
    "ry": RyGate,
    "cz": CzGate,
    "slice": SliceGate,
    "constant": ConstantGate,
}
PATTERN_KINDS: dict[str, type[FileModel]] = {
    "dense": DensePattern,
    "lowrank": LowrankPattern,
    "diagonal": DiagonalPattern,
    "orthogonal": OrthogonalPattern,
    "pauli": PauliPattern,
    "ry": RyPattern,
    "cz": CzPattern,
}


def item_form(item: Any) -> str | None:
    """Say which form an entry of `gates` has: the tag of a member of `GateItem`, or None for no form at all."""
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
    kind = item.get("kind", "dense")
    prefix, kinds = ("pattern", PATTERN_KINDS) if "pattern" in item else ("gate", GATE_KINDS)
    return f"{prefix} {kind}" if isinstance(kind, str) and kind in kinds else None


_Plain = (
    Annotated[Axes, Tag("axes")]
    | Annotated[PatternName, Tag("pattern name")]
    | Annotated[DenseGate, Tag("gate dense")]
    | Annotated[LowrankGate, Tag("gate lowrank")]
    | Annotated[DiagonalGate, Tag("gate diagonal")]
    | Annotated[OrthogonalGate, Tag("gate orthogonal")]
    | Annotated[PauliGate, Tag("gate pauli")]
    | Annotated[RyGate, Tag("gate ry")]
    | Annotated[CzGate, Tag("gate cz")]
    | Annotated[SliceGate, Tag("gate slice")]
    | Annotated[ConstantGate, Tag("gate constant")]
    | Annotated[SharedGate, Tag("share")]
    | Annotated[DensePattern, Tag("pattern dense")]
    | Annotated[LowrankPattern, Tag("pattern lowrank")]
    | Annotated[DiagonalPattern, Tag("pattern diagonal")]
    | Annotated[OrthogonalPattern, Tag("pattern orthogonal")]
    | Annotated[PauliPattern, Tag("pattern pauli")]
    | Annotated[RyPattern, Tag("pattern ry")]
    | Annotated[CzPattern, Tag("pattern cz")]
)
if TYPE_CHECKING:
    GateItem = Any
else:
    _Mixed = (Annotated[model, Tag(name)] for name, model in MIXED_PATTERNS.items())
    GateItem = Annotated[functools.reduce(operator.or_, _Mixed, _Plain), Discriminator(item_form)]


class Plan(FileModel):
    """How to plan the contraction."""

    tokens: Annotated[int, Field(ge=1, le=limits.TOKENS, description="The batch to plan for.")] = 2048
    optimizer: Annotated[Optimizer, Field(description="How to search the order of contractions.")] = "auto"


class CircuitFile(FileModel):
    """A circuit: gates applied to the axes of a reshaped vector."""

    version: Version
    name: CircuitName
    layout: LayoutField
    in_features: InFeatures = None
    out_features: OutFeatures = None
    gates: Annotated[list[GateItem], Field(min_length=1, max_length=limits.GATES, description=parts.GATES_TEXT)]
    output: Output = None
    init: InitField = None
    plan: Plan = Plan()
