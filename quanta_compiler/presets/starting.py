"""With which numbers a family was trained well, where that was measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What to begin a training with, and what it comes from."""

    learning_rate: float
    """Of AdamW."""
    scale: float
    residual: str
    init: str
    measured: str
    """The model, the task, and the script."""


_ENCODER = "MiniLM, sarcastic headlines, rates of 0.001, 0.003 and 0.01 (examples/finetune/encoder.py)"
STARTING_POINTS = {
    "lora": StartingPoint(0.003, 2.0, "none", "B is zero", _ENCODER),
    "quanta": StartingPoint(0.003, 1.0, "folded", "as the file says", _ENCODER),
}
"""By family; families that are not here were not measured."""
