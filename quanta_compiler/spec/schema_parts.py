"""JSON Schema of the values that may be written in several ways, with the texts that an editor shows."""

import keyword
from typing import Any

from quanta_compiler.kinds import limits
from quanta_compiler.kinds.initialisers import ANGLES, ENTRIES
from quanta_compiler.spec.circuit_spec import ACROSS as WHO
from quanta_compiler.spec.names import NAME_LENGTH, RESERVED_AXES, TORCH_NAMES
from quanta_compiler.spec.patterns import MIXED, PATTERNS
from quanta_compiler.spec.values import WITH_STD

NAME = "x-name"
"""Marks a part that `schema` moves to the definitions, so that it is written once."""

_IDENTIFIER = f"[A-Za-z_][A-Za-z0-9_]{{0,{NAME_LENGTH - 1}}}"
_POSITION = "-?(0|[1-9][0-9]{0,9})"
_SIZE: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": limits.WIDTH}
_AXIS: dict[str, Any] = {
    NAME: "Axis",
    "anyOf": [{"type": "integer"}, {"type": "string", "pattern": f"^({_POSITION}|[A-Za-z_][A-Za-z0-9_]*)$"}],
    "description": "A position in the input layout (negative: from the end), or the name of an axis.",
}
_NO_AXIS = {"enum": sorted({*RESERVED_AXES, *keyword.kwlist})}
_TO_MAPPING: dict[str, Any] = {
    NAME: "Resized",
    "type": "object",
    "propertyNames": {"pattern": f"^({_POSITION}|{_IDENTIFIER})$", "not": _NO_AXIS},
    "additionalProperties": _SIZE,
    "maxProperties": limits.AXES,
}

_PATTERN_TEXT = "; ".join(f"{name}: {pattern.meaning}" for name, pattern in PATTERNS.items())
GATES_TEXT = "The gates, applied top to bottom: `[0, 1]` is a dense gate on two axes, `all_pairs` a pattern."

PATTERN_NAME: dict[str, Any] = {NAME: "PatternName", "enum": list(PATTERNS), "description": _PATTERN_TEXT}
RULE_NAME: dict[str, Any] = {
    **PATTERN_NAME,
    NAME: "RuleName",
    "enum": [name for name in PATTERNS if name not in MIXED],
}
VERSION: dict[str, Any] = {"type": "integer", "const": 1, "description": "The version of the file format."}
CIRCUIT_NAME: dict[str, Any] = {
    "type": "string",
    "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,63}$",
    "description": "The circuit's name; the files that are written for it are called after it.",
}
GATE_NAME: dict[str, Any] = {
    NAME: "GateName",
    "type": "string",
    "pattern": f"^{_IDENTIFIER}$",
    "not": {"anyOf": [{"enum": sorted({*TORCH_NAMES, *keyword.kwlist})}, {"pattern": "^__(.*__)?$"}]},
    "description": "A unique name; by default g0, g1, ... by position.",
}
LAYOUT: dict[str, Any] = {
    NAME: "Layout",
    "description": "The axes that the input vector is reshaped to.",
    "anyOf": [
        {
            "type": "string",
            "pattern": "^0*[1-9][0-9]*((x0*[1-9][0-9]*)*|(-0*[1-9][0-9]*)*)$",
            "description": "Sizes with x or - between them, such as 16x8x8x4.",
        },
        {**_SIZE, "description": "One axis."},
        {"type": "array", "items": _SIZE, "minItems": 1, "maxItems": limits.AXES, "description": "Sizes."},
        {
            "type": "object",
            "properties": {"auto": {"type": "integer", "minimum": 1, "maximum": limits.AXES}},
            "required": ["auto"],
            "additionalProperties": False,
            "description": "The number of axes, whose sizes the compiler chooses for in_features.",
        },
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{_IDENTIFIER}$", "not": _NO_AXIS},
            "additionalProperties": _SIZE,
            "minProperties": 1,
            "maxProperties": limits.AXES,
            "description": "Names and sizes.",
        },
    ],
}
PRESET_LAYOUT: dict[str, Any] = {**LAYOUT, NAME: "PresetLayout", "anyOf": LAYOUT["anyOf"][:-1]}
AXES: dict[str, Any] = {
    NAME: "Axes",
    "type": "array",
    "items": _AXIS,
    "minItems": 1,
    "maxItems": limits.AXES,
    "uniqueItems": True,
    "description": "The axes that the gate contracts, in the order of its matrix's column index.",
}
PATTERN_AXES: dict[str, Any] = {
    **AXES,
    NAME: "PatternAxes",
    "description": "The axes that the pattern runs over, in the order of the layout; by default all of them.",
}
OUTPUT: dict[str, Any] = {
    "type": "array",
    "items": _AXIS,
    "maxItems": limits.AXES,
    "uniqueItems": True,
    "description": "The order of the final axes; by default that of the layout, new axes last.",
}
PER: dict[str, Any] = {
    NAME: "Per",
    "anyOf": [{"const": "rest"}, {"type": "array", "items": _AXIS, "uniqueItems": True}],
    "description": "Axes along which every index has a matrix of its own; rest: all other axes.",
}
PATTERN_PER: dict[str, Any] = {"const": "rest", "description": "A matrix for every index of all other axes."}
TO: dict[str, Any] = {
    NAME: "To",
    "anyOf": [{"type": "array", "items": _SIZE, "description": "One new size per axis."}, _TO_MAPPING],
    "description": "What the axes become: new sizes, or a mapping that lists exactly the axes present afterwards.",
}
PATTERN_TO: dict[str, Any] = {**_TO_MAPPING, NAME: "PatternTo", "description": "The sizes of axes after the pattern."}
ACROSS: dict[str, Any] = {
    NAME: "Across",
    "enum": list(WHO),
    "description": "Which layers of a model have one parameter, where its matrix has the same shape. "
    + "; ".join(f"{word}: {meaning}" for word, meaning in WHO.items()),
}
_SCHEMES = list(ENTRIES)
INIT: dict[str, Any] = {
    NAME: "Init",
    "description": "How the parameter is drawn.",
    "anyOf": [
        {"enum": _SCHEMES},
        {
            "type": "object",
            "properties": {"scheme": {"const": WITH_STD}, "std": {"type": "number", "exclusiveMinimum": 0}},
            "required": ["scheme"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"scheme": {"enum": _SCHEMES}},
            "required": ["scheme"],
            "additionalProperties": False,
        },
    ],
}


def init_of(schemes: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of an initialiser of a kind that takes some schemes only."""
    _, with_std, long = INIT["anyOf"]
    forms = [{"enum": list(schemes)}, {**long, "properties": {"scheme": {"enum": list(schemes)}}}]
    if WITH_STD in schemes:
        forms.insert(1, with_std)
    of_angles = {NAME: "RotationInit", "description": "How the angles are drawn: by default they are zero."}
    return {**(of_angles if schemes == ANGLES else {"description": INIT["description"]}), "anyOf": forms}


PACKAGES: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": "string"},
    "description": "The packages that bring kinds of gates that quanta-compiler does not have, with their versions.",
}
IN_FEATURES: dict[str, Any] = {
    **_SIZE,
    "description": "The length of the input vector; by default the product of the layout.",
}
OUT_FEATURES: dict[str, Any] = {
    **_SIZE,
    "description": "The length of the output vector; by default in_features with a preset or {auto: N}, "
    "else the product of the final axes.",
}
