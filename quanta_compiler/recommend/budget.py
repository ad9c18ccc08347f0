"""How many numbers may train in a whole model, and how many of them fall to a layer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from quanta_compiler.models.layers import ModelLayers
from quanta_compiler.text.counts import count_of

Shape = tuple[int, int]
"""A layer's (in_features, out_features)."""


@dataclass(frozen=True, slots=True)
class Alike:
    """The layers of one shape."""

    shape: Shape
    count: int

    @property
    def dense_numbers(self) -> int:
        """Return how many numbers their weights have."""
        return self.count * self.shape[0] * self.shape[1]


@dataclass(frozen=True, slots=True)
class Budget:
    """A number of parameters, or a share of those of the model."""

    text: str
    count: int | None = None
    share: Fraction | None = None

    def numbers(self, model: ModelLayers) -> int:
        """Return the most numbers that may train."""
        return self.count if self.count is not None else int((self.share or 0) * model.parameters)


def parse_budget(text: str) -> Budget:
    """Read `0.05%`, of the model's parameters, or a count such as `50000`, `50k` or `1.5M`.

    Raises:
        ValueError: the text is neither, or nothing would train.

    """
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if percent is not None:
        budget = Budget(text, share=Fraction(percent[1]) / 100)
    else:
        try:
            budget = Budget(text, count=count_of(text))
        except ValueError:
            fault = f"{text!r} is no budget: write a share of the model, such as 0.05%, or a count, such as 50k or 1.5M"
            raise ValueError(fault) from None
    if not (budget.count or budget.share):
        raise ValueError(f"{text!r} leaves nothing to train")
    if budget.share is not None and budget.share > 1:
        raise ValueError(f"{text!r} is more than the model has")
    return budget


def shares(layers: Sequence[Shape], numbers: int) -> dict[Shape, int]:
    """Return how many numbers fall to a layer of each shape: in proportion to its widths, as LoRA's numbers are."""
    widths = sum(sum(shape) for shape in layers)
    return {shape: numbers * sum(shape) // widths for shape in dict.fromkeys(layers)}
