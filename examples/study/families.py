"""The families that are compared, each with the options that bring it to a budget, as one table.

A budget is a number of trained numbers in the adapters of all 36 linear layers of MiniLM; the head's 1,155 come on top.
About 85 thousand is what LoRA of rank 2 has, about 330 thousand what it has at rank 8. Where a family has no options
that lead there on layers of 384 and 1536 features, it has its nearest: the tables give the true numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from methods import TARGETS, Method
from peft import LoKrConfig, LoraConfig, OFTConfig, PeftConfig

from quanta_compiler.peft import QuantaConfig

ADAPTERS: dict[str, type[PeftConfig]] = {
    "LoRA": LoraConfig,
    "LoKr": LoKrConfig,
    "OFT": OFTConfig,
    "circuit": QuantaConfig,
}
WEIGHT_DECAY = 0.01
# The three shapes of layers: 384 -> 384, 384 -> 1536 and 1536 -> 384.
SQUARE, WIDEN, NARROW = r"attention\..*", r"intermediate\.dense", r"layer\.\d+\.output\.dense"


@dataclass(frozen=True, slots=True)
class Family:
    """A family at a budget."""

    summary: str
    budget: str
    """`ends`, `85k`, `330k`, or `analysis` for what is trained only to be looked at."""
    middle: float
    """The middle one of the three learning rates that the search begins with."""
    adapter: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    trains_encoder: bool = False
    saves_update: bool = False
    """Whether the update of a final run is kept for `quanta analyze`, where a folder for that is named."""
    weight_decay: float = WEIGHT_DECAY

    def method(self) -> Method:
        """Return what `build_model` takes."""
        return Method(self.summary, (), self._config if self.adapter else None, self.trains_encoder)

    def _config(self, seed: int) -> PeftConfig:
        assert self.adapter is not None
        drawn = {"init_seed": seed} if self.adapter == "circuit" else {}
        return ADAPTERS[self.adapter](**TARGETS, **drawn, **self.options)

    @property
    def definition(self) -> str:
        """A hash of what is trained. Runs of another definition do not count."""
        parts: list[Any] = [self.adapter, self.options, self.trains_encoder]
        # What is as everywhere is left out: runs from before it could be set count.
        parts += [self.weight_decay] if self.weight_decay != WEIGHT_DECAY else []
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def _lora(rank: int, **more: Any) -> dict[str, Any]:
    return {"r": rank, "lora_alpha": 2 * rank, **more}


def _preset(family: str, shapes: Mapping[str, Mapping[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
    """Return a family's preset, with more options for each shape of layer where those are given."""
    base = {"version": 1, "name": family, "preset": family, **options}
    return {"circuit": base if shapes is None else {shape: {**base, **more} for shape, more in shapes.items()}}


def _before(circuits: dict[str, Any]) -> dict[str, Any]:
    """Return what sits before the layer, which turns what the layer reads."""
    return {**circuits, "placement": "input"}


def _butterfly() -> dict[str, Any]:
    """Return butterflies over an axis of three and seven of two; the axis of three is the one that is resized.

    The preset pads to powers of two, 512 and 2048, which would more than double the numbers.
    """
    halves = [{"axes": [axis], "per": "rest"} for axis in range(7, 0, -1)]
    last = {"axes": [0], "per": "rest"}
    gates = {
        SQUARE: (3, [*halves, last]),
        WIDEN: (3, [*halves, {**last, "to": [12]}]),
        NARROW: (12, [{**last, "to": [3]}, *halves]),
    }
    common = {"version": 1, "name": "butterfly", "init": "orthogonal"}
    circuits = {
        shape: {**common, "layout": [size, *[2] * 7], "gates": listed} for shape, (size, listed) in gates.items()
    }
    return {"circuit": circuits, "residual": "folded"}


def _quanta(
    layouts: tuple[str, str, str], init: str = "kaiming_uniform", residual: str = "folded", **pattern: Any
) -> dict[str, Any]:
    """Return QuanTA for the three shapes of layers: `LAYOUT AXIS:SIZE` says which axis becomes of what size.

    Where a layer widens or narrows a rectangular gate does, so that every feature is reached and none is padded.
    """
    circuits = {}
    for shape, text in zip((SQUARE, WIDEN, NARROW), layouts, strict=True):
        layout, _, resized = text.partition(" ")
        axis, _, size = resized.partition(":")
        to = {"to": {int(axis): int(size)}} if resized else {}
        gates = [{"pattern": "all_pairs", **pattern, **to}]
        circuits[shape] = {"version": 1, "name": "quanta", "layout": _sizes(layout), "init": init, "gates": gates}
    return {"circuit": circuits, "residual": residual}


def _sizes(layout: str) -> list[int]:
    return [int(size) for size in layout.split("x")]


# All layouts have the widths of the layers; the axis that is resized is the one whose gate has the fewest numbers.
FOUR_AXES = ("6x4x4x4", "4x4x4x6 1:16", "6x4x4x16 3:4")
FIVE_AXES = ("6x4x4x2x2", "2x2x4x4x6 1:8", "6x4x4x2x8 4:2")
THREE_AXES = ("8x8x6", "6x8x8 1:32", "8x8x24 2:6")

# What sits before a layer is square, as wide as what the layer reads.
BEFORE = ("6x4x4x4", "6x4x4x4", "6x4x4x4x4")

_KRONA = {SQUARE: {"layout": [48, 8]}, WIDEN: {"layout": [48, 8]}, NARROW: {"layout": [96, 16]}}
_OFT = {SQUARE: {"blocks": 48}, WIDEN: {"blocks": 48}, NARROW: {"blocks": 192}}
_BOFT = {SQUARE: {"blocks": 96}, WIDEN: {"blocks": 96}, NARROW: {"blocks": 384}}

FAMILIES: dict[str, Family] = {
    "frozen": Family("frozen encoder, head only", "ends", 1e-2),
    "lora-r2": Family("LoRA r=2 (PEFT)", "85k", 3e-3, "LoRA", _lora(2)),
    "quanta-4": Family("QuanTA 6x4x4x4", "85k", 3e-3, "circuit", _quanta(FOUR_AXES)),
    "quanta-4-orthogonal": Family(
        "QuanTA 6x4x4x4, orthogonal start", "85k", 3e-3, "circuit", _quanta(FOUR_AXES, "orthogonal")
    ),
    "full": Family("full fine-tuning", "ends", 1e-4, trains_encoder=True, saves_update=True),
    "lora-r8": Family("LoRA r=8 (PEFT)", "330k", 3e-3, "LoRA", _lora(8), saves_update=True),
    "quanta-3-orthogonal": Family(
        "QuanTA 8x8x6, orthogonal start", "330k", 3e-3, "circuit", _quanta(THREE_AXES, "orthogonal")
    ),
    "dora-r2": Family("DoRA r=2 (PEFT)", "85k", 3e-3, "LoRA", _lora(2, use_dora=True)),
    "quanta-5": Family("QuanTA 6x4x4x2x2", "85k", 3e-3, "circuit", _quanta(FIVE_AXES)),
    "quanta-5-orthogonal": Family(
        "QuanTA 6x4x4x2x2, orthogonal start", "85k", 3e-3, "circuit", _quanta(FIVE_AXES, "orthogonal")
    ),
    "quanta-4-identity": Family(
        "QuanTA 6x4x4x4, identity start", "85k", 3e-3, "circuit", _quanta(FOUR_AXES, "identity", "auto")
    ),
    "quanta-input": Family(
        "QuanTA of four and five axes before the layer, identity start",
        "85k",
        3e-3,
        "circuit",
        _before(_quanta(BEFORE, "identity", "auto")),
    ),
    "tt": Family("tensor train of four axes, rank 7", "85k", 3e-3, "circuit", _preset("tt", rank=7)),
    "krona": Family("KronA 48x8", "85k", 3e-3, "circuit", _preset("krona", _KRONA)),
    "monarch": Family("Monarch, 4 blocks", "85k", 3e-3, "circuit", _preset("monarch", blocks=4, block_rank=2)),
    "lokr": Family("LoKr r=16, factor 8 (PEFT)", "85k", 3e-3, "LoKr", {"r": 16, "alpha": 16, "decompose_factor": 8}),
    "oft-peft": Family("OFT, blocks of 8 (PEFT)", "85k", 3e-3, "OFT", {"r": 0, "oft_block_size": 8}),
    "oft": Family("OFT, blocks of 8", "85k", 3e-3, "circuit", _before(_preset("oft", _OFT))),
    "boft": Family("BOFT, 3 factors, blocks of 4", "85k", 3e-3, "circuit", _before(_preset("boft", _BOFT, factors=3))),
    "loretta": Family("LoRETTA r=8, bonds of 9", "85k", 3e-3, "circuit", _preset("loretta", rank=8, tt_rank=9)),
    "lotr": Family("LoTR r=18", "85k", 3e-3, "circuit", _preset("lotr", rank=18)),
    "vera": Family("VeRA r=256", "85k", 1e-2, "circuit", _preset("vera", rank=256)),
    "quantum-peft": Family("Quantum-PEFT r=32", "85k", 1e-2, "circuit", _preset("quantum_peft", rank=32)),
    "quanta-3": Family("QuanTA 8x8x6", "330k", 3e-3, "circuit", _quanta(THREE_AXES)),
    "tt-large": Family("tensor train of four axes, rank 14", "330k", 3e-3, "circuit", _preset("tt", rank=14)),
    "monarch-large": Family(
        "Monarch, 4 blocks, block rank 8", "330k", 3e-3, "circuit", _preset("monarch", blocks=4, block_rank=8)
    ),
    "btt": Family("block tensor train of four axes", "330k", 3e-3, "circuit", _preset("btt", layout={"auto": 4})),
    "butterfly": Family("butterfly 3x2^7", "330k", 3e-3, "circuit", _butterfly()),
    "lora-r16": Family("LoRA r=16 (PEFT)", "analysis", 3e-3, "LoRA", _lora(16), saves_update=True),
    "quanta-4-twice": Family(
        "QuanTA 6x4x4x4 twice, orthogonal start",
        "analysis",
        3e-3,
        "circuit",
        _quanta(FOUR_AXES, "orthogonal", repeat=2),
    ),
    "quanta-4-no-decay": Family(
        "QuanTA 6x4x4x4, orthogonal start, no weight decay",
        "analysis",
        3e-3,
        "circuit",
        _quanta(FOUR_AXES, "orthogonal"),
        weight_decay=0.0,
    ),
}
"""In the order of the runs: first what an interrupted study must have."""
REFERENCES = {"ends": "lora-r2", "85k": "lora-r2", "330k": "lora-r8", "analysis": "lora-r8"}
"""The LoRA that methods of a budget are compared with, in the order of the table."""
CORE = 8
"""How many of them are run through, with one seed, before any other is begun."""
