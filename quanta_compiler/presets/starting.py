"""With which numbers a family was trained well, where that was measured."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What to begin a training with, and what it comes from."""

    learning_rate: float
    """Of AdamW."""
    scale: float
    residual: str
    init: str
    """Of the circuit's gates."""
    measured: str
    """The model, the task, and the script."""


_MEASURED = "best of 0.001, 0.003 and 0.01 for MiniLM on sarcastic headlines: examples/finetune/encoder.py"
STARTING_POINTS = {
    "quanta, 3 axes": StartingPoint(0.003, 1.0, "folded", "kaiming_uniform", _MEASURED),
    "quanta, 4 axes": StartingPoint(0.003, 1.0, "folded", "orthogonal", _MEASURED),
}
"""By the name of what is recommended; LoRA was measured there as PEFT has it, the others were not."""


def starting_notes(families: Collection[str]) -> list[str]:
    """Return a line for every point of some families: what to start with, and where it was measured."""
    return [
        f"{name}: start with learning rate {one.learning_rate:g}, scale {one.scale:g}, init {one.init}, "
        f"residual {one.residual} ({one.measured})"
        for name, one in STARTING_POINTS.items()
        if name.partition(",")[0] in families
    ]
