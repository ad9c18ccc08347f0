"""Preset files as they are written, as pydantic models: one for each family, of the family's own options."""

import dataclasses
from functools import cache
from typing import Any, Literal, cast

from pydantic import Field, create_model

from quanta_compiler.presets.layouts import Layout
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec.models import (
    CircuitName,
    FileModel,
    InFeatures,
    InitField,
    OutFeatures,
    Plan,
    Version,
    type_of,
)


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
    key, default = option.metadata["key"], option.default
    if not isinstance(default, Layout):
        return type_of(key), default
    shown: Any = {"default": {"auto": default.auto}}
    return type_of(key), Field(default_factory=lambda: default, description=key.meaning, json_schema_extra=shown)
