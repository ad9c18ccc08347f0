"""With which numbers a family was trained well, where that was measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What to begin a training with, and what it comes from."""

    learning_rate: float
    """Of AdamW."""
    residual: str
    measured: str
    """The model, the task, and the script."""


_DENSE = StartingPoint(
    0.003, "folded", "best of 0.001, 0.003 and 0.01 for MiniLM on sarcastic headlines: examples/finetune/encoder.py"
)
STARTING_POINTS = {"quanta, 3 axes": _DENSE, "quanta, 4 axes": _DENSE}
"""By the name of what is recommended; LoRA was measured there as PEFT has it, the others were not."""
