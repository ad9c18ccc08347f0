"""Containers for what an adapted layer holds beside its trained gates, and the sizes of a layer."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from torch import nn
from transformers.pytorch_utils import Conv1D

Tensors = dict[str, torch.Tensor]


class FrozenTensors(nn.Module):
    """Buffers by name: tensors that move and are saved with a layer, but do not train."""

    def __init__(self, tensors: Tensors, *, persistent: bool = True) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=persistent)


class Features(BufferDict):
    """`in_features` and `out_features` that an adapter was made for, int64 `[2]` by adapter.

    transformers loads adapters by assigning to attributes, past every hook of `load_state_dict`. As every saved layer
    brings its features, `replaced` tells for which adapters that has happened.
    """

    def __init__(self) -> None:
        super().__init__(persistent=True)
        self.replaced: set[str] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self.__dict__.get("_buffers", ()):
            self.replaced.add(name)


def held(container: nn.ModuleDict, adapter: str) -> Tensors:
    """Return an adapter's tensors by name, of a ParameterDict or of FrozenTensors."""
    holder: Any = container[adapter]
    return {**holder._parameters, **holder._buffers}


def layer_features(base_layer: nn.Module) -> tuple[int, int]:
    """Return `in_features` and `out_features` of a linear layer."""
    if isinstance(base_layer, Conv1D):
        rows, columns = base_layer.weight.shape
        return int(rows), int(columns)
    sizes = getattr(base_layer, "in_features", None), getattr(base_layer, "out_features", None)
    if sizes[0] is None or sizes[1] is None:
        raise TypeError(f"a layer of type {type(base_layer).__name__} has no in_features and out_features")
    return int(sizes[0]), int(sizes[1])


def computes_alone(base_layer: nn.Module) -> bool:
    """Say whether a layer computes W x + b and nothing else: a weight in its place stands for all of it."""
    return type(base_layer).forward in (nn.Linear.forward, Conv1D.forward)
