"""Trains adapters under DeepSpeed's ZeRO-3 with every tensor partitioned, beside one process; one of two programs."""

from __future__ import annotations

import sys
from typing import Any

import deepspeed
import torch
from adapted_models import LORA, QUANTA
from peft import get_peft_model
from random_circuits import file_of
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.peft import QuantaConfig

SHARED = file_of("4x3x2", [{"pattern": "all_pairs", "across": "all"}, [0, 1]])
RATE, STEPS = 0.01, 3
SETTINGS = {
    "train_micro_batch_size_per_gpu": 2,
    # Nothing is so small that it stays whole.
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "optimizer": {"type": "Adam", "params": {"lr": RATE, "torch_adam": True}},
    "zero_force_ds_cpu_optimizer": False,
}


class Pair(nn.Module):
    """A linear layer, 24 -> 16, and transformers' Conv1D, 16 -> 24."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(24, 16), Conv1D(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.b(torch.relu(self.a(x)))
        return result


def adapted(base: nn.Module, residual: str) -> Any:
    """Return a model with adapters on both layers."""
    circuit = {"none": LORA, "shared": SHARED}.get(residual, QUANTA)
    residual = "frozen_copy" if residual == "shared" else residual
    return get_peft_model(base, QuantaConfig(circuit=circuit, residual=residual, target_modules=["a", "b"]))


def in_one_process(model: Any, x: torch.Tensor) -> None:
    """Train on the whole batch."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        optimizer.step()


def main(residual: str) -> None:
    """Train, compare the updates with those of one process, merge and take out again."""
    deepspeed.init_distributed(dist_backend="gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    x = torch.randn(2 * world, 24, generator=torch.Generator().manual_seed(1))
    plain = adapted(Pair(), residual)
    with deepspeed.zero.Init(config_dict_or_path=SETTINGS):
        base = Pair()
    model = adapted(base, residual)
    with deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=0):
        for parameter, own in zip(model.parameters(), plain.parameters(), strict=True):
            parameter.data.copy_(own.data)
    in_one_process(plain, x)
    trained = [p for p in model.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=SETTINGS)
    for _ in range(STEPS):
        engine.backward(engine(x[2 * rank : 2 * rank + 2]).pow(2).mean())
        engine.step()
    for name in ("a", "b"):
        delta = getattr(model.base_model.model, name).get_delta_weight("default")
        expected = getattr(plain.base_model.model, name).get_delta_weight("default")
        assert expected.abs().max() > RATE
        torch.testing.assert_close(delta, expected, rtol=1e-2, atol=1e-4)
    with torch.no_grad():
        before = engine(x)
        model.merge_adapter()
        torch.testing.assert_close(engine(x), before, rtol=1e-4, atol=1e-5)
        model.unmerge_adapter()
        torch.testing.assert_close(engine(x), before, rtol=1e-4, atol=1e-5)


main(sys.argv[1])
