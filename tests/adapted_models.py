"""Small models, adapters on them, and a few steps of training, for the tests of the PEFT method."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from random_circuits import file_of
from safetensors.torch import load_file, save_file
from torch import nn

from quanta_compiler.peft import QuantaCircuitLayer, QuantaConfig

QUANTA = file_of("4x3x2", ["all_pairs"])
LORA = file_of(24, [{"axes": [0], "kind": "lowrank", "rank": 3, "init": "zeros"}])


class Mlp(nn.Module):
    """Three linear layers, 24 -> 24 -> 16 -> 24, with names as users know them."""

    def __init__(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.q_proj = nn.Linear(24, 24)
            self.k_proj = nn.Linear(24, 16, bias=False)
            self.o_proj = nn.Linear(16, 24)
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.o_proj(torch.tanh(self.k_proj(torch.relu(self.q_proj(x)))))
        return result


class Blocks(nn.Module):
    """Two blocks of three linear layers each, so that every layer has another one of its name and shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Mlp(seed=0), Mlp(seed=1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.layers:
            x = x + block(x)
        return x


def batch(dtype: torch.dtype = torch.float32, rows: int = 7, width: int = 24) -> torch.Tensor:
    """Return inputs, the same ones every time."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(5)).to(dtype)


def adapted(model: nn.Module, **keys: Any) -> Any:
    """Return the model with an adapter on all its projections."""
    keys = {"circuit": QUANTA, "target_modules": ["q_proj", "k_proj", "o_proj"], **keys}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="circuit '.*' on layers")
        return get_peft_model(model, QuantaConfig(**keys))


def train(model: nn.Module, x: torch.Tensor, steps: int = 3, rate: float = 0.05) -> None:
    """Take a few steps, so that every trained tensor has moved."""
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).float().pow(2).mean().backward()
        optimizer.step()
    model.eval()


def circuit_layers(model: nn.Module) -> dict[str, QuantaCircuitLayer]:
    """Return the adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantaCircuitLayer)}


def as_format_1(folder: Path) -> None:
    """Rewrite a saved adapter as versions before format 2 did: T in the place of D, no marker, no resolved circuits."""
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if weights.exists():
        tensors, then = load_file(weights), {}
        for key, tensor in tensors.items():
            copy = tensors.get(key.replace("_delta.", "_frozen.")) if "_delta." in key else None
            then[key.replace("_delta.", "_gates.")] = tensor if copy is None else tensor + copy
        save_file(then, weights, metadata={"format": "pt"})
    data = json.loads(config.read_text())
    for name in ("format", "resolved", "package_version", "target_parameters"):
        del data[name]
    config.write_text(json.dumps({**data, "preset": data["preset"] or "quanta"}))
