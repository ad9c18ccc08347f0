"""What is known of a model without its weights: its `config.json`, read before any slow import, and its layers."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "config.json"


class ModelError(ValueError):
    """A model's folder, or the targets in it, are no good; the message is one sentence."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's configuration as it is written.

    Raises:
        ModelError: there is none.

    """
    path = folder / CONFIG
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "does not exist"
        raise ModelError(f"{folder} {fault}: name the folder of a model, with a {CONFIG} in it")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {CONFIG}: name the folder of a Hugging Face model") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise ModelError(f"{path} is nested too deeply to be a configuration") from None
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("model_type"), str):
        raise ModelError(f"{path} has no `model_type`, so it does not say which model it is for")
    return data


@dataclass(frozen=True, slots=True)
class TargetLayer:
    """A layer that is adapted, or a tensor of experts, each of which is one."""

    name: str
    in_features: int
    out_features: int
    experts: int = 1
    """How many layers it stands for."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (in_features, out_features)."""
        return self.in_features, self.out_features


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
    others: tuple[str, ...] = ()
    """The names of all other modules, which no target may mean."""
    remark: str = ""
    """What the targets seem to mean and no layer is adapted for."""

    def shapes(self) -> list[tuple[int, int]]:
        """Return `in_features` and `out_features` of each layer, of tensors of experts for each expert."""
        return [(layer.in_features, layer.out_features) for layer in self.layers for _ in range(layer.experts)]

    def groups(self) -> tuple[tuple[str, int, int, int], ...]:
        """Return (last part of the name, in_features, out_features, how many), in the order of first appearance."""
        kinds: Counter[tuple[str, int, int]] = Counter()
        for layer in self.layers:
            kinds[layer.name.rpartition(".")[2], layer.in_features, layer.out_features] += layer.experts
        return tuple((*kind, count) for kind, count in kinds.items())
