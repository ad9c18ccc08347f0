"""A small model of two blocks, and circuits for it whose gates layers have together."""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from random_circuits import file_of
from torch import nn

from quanta_compiler.peft import QuantaConfig

SHARED = "quanta_circuit_shared"
NONE = file_of(
    24,
    [
        {"axes": [0], "to": [6], "across": "all", "name": "A"},
        {"axes": [0], "name": "one", "across": "targets"},
        {"axes": [0], "name": "own", "kind": "lowrank", "rank": 2},
        {"axes": [0], "name": "two", "kind": "diagonal", "across": "layers"},
        {"axes": [0], "to": [24], "across": "all", "name": "B", "init": "zeros"},
    ],
)
COPY = file_of(
    "6x4",
    [
        {"axes": [0, 1], "across": "layers"},
        {"axes": [0], "kind": "lowrank", "rank": 2, "across": "all"},
        {"axes": [1], "frozen": True, "across": "all"},
        [0, 1],
    ],
)
IDENTITY = file_of(
    "6x4", [{"axes": [0, 1], "kind": "orthogonal", "across": "layers"}, {"axes": [0], "init": "identity"}]
)
CIRCUITS = {"none": NONE, "frozen_copy": COPY, "folded": COPY, "identity": IDENTITY}


class Stack(nn.Module):
    """Two blocks of two square layers each, as models have them."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(2):
                self.layers.append(
                    nn.ModuleDict({"q_proj": nn.Linear(24, 24), "o_proj": nn.Linear(24, 24, bias=False)})
                )
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.layers:
            parts: Any = block
            x = x + parts["o_proj"](torch.tanh(parts["q_proj"](x)))
        return x


def config(residual: str, **keys: Any) -> QuantaConfig:
    given = {"circuit": CIRCUITS[residual], "residual": residual, "target_modules": ["q_proj", "o_proj"], **keys}
    return QuantaConfig(**given)


def shared_stack(residual: str, dtype: torch.dtype = torch.float32, **keys: Any) -> Any:
    return get_peft_model(Stack(dtype), config(residual, **keys))
