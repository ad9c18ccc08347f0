"""Preset files as they are written, as pydantic models: one for each family, of the family's own options."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Annotated, Any, Literal, cast

from pydantic import Field, PlainValidator, WithJsonSchema, create_model

from quanta_compiler.kinds.options import Integer, Key
from quanta_compiler.presets.layouts import Layout
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec import schema_parts as parts
from quanta_compiler.spec import values
from quanta_compiler.spec.models import CircuitName, FileModel, InFeatures, InitField, OutFeatures, Plan, Version

_Layout = Annotated[
    Layout, PlainValidator(values.check_preset_layout), WithJsonSchema(parts.PRESET_LAYOUT, mode="validation")
]


class PresetFile(FileModel):
    """What every preset file may say beside the options of its preset."""

    version: Version
    name: CircuitName
    preset: str
    in_features: InFeatures = None
    out_features: OutFeatures = None
    init: InitField = None
    plan: Plan = Plan()


@cache
def preset_model(name: str) -> type[PresetFile]:
    """Return the model of the files of a family."""
    family, literal = PRESETS[name], cast(Any, Literal)
    own: dict[str, Any] = {field.name: _field(field) for field in dataclasses.fields(family)}
    title, meaning = f"{family.__name__}Preset", f"{family.meaning}."
    return create_model(title, __base__=PresetFile, __doc__=meaning, preset=(literal[name], ...), **own)


def _field(option: dataclasses.Field[Any]) -> tuple[Any, Any]:
    """Return the type and the field of an option."""
    key: Key = option.metadata["key"]
    default: Any = option.default
    if isinstance(key.type, Integer):
        return int, Field(default=default, ge=key.type.least, le=key.type.most, description=key.meaning)
    shown: Any = {"default": {"auto": default.auto}}
    return _Layout, Field(default_factory=lambda: default, description=key.meaning, json_schema_extra=shown)
