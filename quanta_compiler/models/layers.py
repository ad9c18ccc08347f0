"""What is known of a model's layers without its weights."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TargetLayer:
    """A layer that is adapted."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class ModelLayers:
    """What a comparison asks of a model: its size, its targeted layers, and the widths of its blocks.

    A width or number that the configuration does not give is 0.
    """

    name: str
    """From the configuration, else that of the folder."""
    parameters: int
    """All numbers of the base model, tied ones once: what a percentage is of."""
    blocks: int
    """Its transformer blocks; 0 for an encoder with a decoder, whose blocks are of two kinds."""
    hidden_size: int
    mlp_width: int
    heads: int
    """Of the queries."""
    head_width: int
    key_value_width: int
    """Numbers of all keys of a token, and of all values."""
    layers: tuple[TargetLayer, ...]
    """The targeted layers, in the model's order."""

    def groups(self) -> tuple[tuple[str, int, int, int], ...]:
        """Return (last part of the name, in_features, out_features, how many), in the order of first appearance."""
        kinds = Counter((layer.name.rpartition(".")[2], layer.in_features, layer.out_features) for layer in self.layers)
        return tuple((*kind, count) for kind, count in kinds.items())
