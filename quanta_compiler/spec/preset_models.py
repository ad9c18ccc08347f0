"""Preset files as they are written, as pydantic models: one per preset, so that each takes its own options only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from quanta_compiler.kinds import limits
from quanta_compiler.spec import layout_values
from quanta_compiler.spec import schema_parts as parts
from quanta_compiler.spec.layout_values import Layout
from quanta_compiler.spec.models import (
    CircuitName,
    FileModel,
    InFeatures,
    InitField,
    Layers,
    OutFeatures,
    Plan,
    Version,
)

PresetLayout = Annotated[
    Layout, PlainValidator(layout_values.check_preset_layout), WithJsonSchema(parts.PRESET_LAYOUT, mode="validation")
]


def _positive(default: int, text: str) -> Any:
    return Field(default=default, ge=1, le=limits.WIDTH, description=text)


def _auto(axes: int) -> Any:
    """Return the field of a layout that the compiler chooses unless the file does."""
    return Field(
        default_factory=lambda: Layout(auto=axes),
        description="The factors of in_features, one for each axis, or how many of them to choose.",
        json_schema_extra={"default": {"auto": axes}},
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


class QuantaPreset(PresetFile):
    """QuanTA: a gate on every pair of axes."""

    preset: Literal["quanta"]
    layout: PresetLayout = _auto(4)


class LoraPreset(PresetFile):
    """LoRA: a low-rank product B A."""

    preset: Literal["lora"]
    rank: int = _positive(8, "The rank of B A.")


class KronaPreset(PresetFile):
    """KronA: a Kronecker product of a matrix for each axis."""

    preset: Literal["krona"]
    layout: PresetLayout = _auto(2)


class TensorTrainPreset(PresetFile):
    """A tensor-train matrix: a core for each axis, joined by bonds."""

    preset: Literal["tt"]
    layout: PresetLayout = _auto(4)
    rank: int = _positive(8, "The size of every bond.")


class LorettaPreset(PresetFile):
    """LoRETTA: a LoRA whose A and B are tensor trains."""

    preset: Literal["loretta"]
    layout: PresetLayout = _auto(4)
    rank: int = _positive(8, "The rank of B A.")
    tt_rank: int = _positive(8, "The size of every bond of the two trains; it bounds the rank too.")


class MonarchPreset(PresetFile):
    """Monarch: two block-diagonal matrices and a fixed permutation after each."""

    preset: Literal["monarch"]
    blocks: int = _positive(4, "The blocks of each of the two matrices.")
    block_rank: int = _positive(4, "The rows of a block of the first matrix, the columns of one of the second.")


class BlockTensorTrainPreset(PresetFile):
    """A block tensor train: a tensor train whose cores differ for every index of the other axes."""

    preset: Literal["btt"]
    layout: PresetLayout = _auto(2)
    rank: int = _positive(1, "The size of every bond.")


class ButterflyPreset(PresetFile):
    """Butterfly: log2(n) sparse factors of 2 x 2 blocks."""

    preset: Literal["butterfly"]


class QuantumPeftPreset(PresetFile):
    """Quantum-PEFT: U diag(s) V^T, U and V of orthonormal columns from few angles."""

    preset: Literal["quantum_peft"]
    rank: int = _positive(8, "The rank of U diag(s) V^T.")
    layers: Layers = 1


class QuantumPeftFullPreset(PresetFile):
    """Quantum-PEFT of full rank: one orthogonal matrix from few angles."""

    preset: Literal["quantum_peft_full"]
    layers: Layers = 1


PRESET_MODELS: dict[str, type[PresetFile]] = {
    "quanta": QuantaPreset,
    "lora": LoraPreset,
    "krona": KronaPreset,
    "tt": TensorTrainPreset,
    "loretta": LorettaPreset,
    "monarch": MonarchPreset,
    "btt": BlockTensorTrainPreset,
    "butterfly": ButterflyPreset,
    "quantum_peft": QuantumPeftPreset,
    "quantum_peft_full": QuantumPeftFullPreset,
}
