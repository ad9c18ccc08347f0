"""The runs of several processes: what the programs below launched/ do, and what their tests compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from client_models import token_batch, with_adapter


@dataclass(frozen=True)
class Run:
    """An adapter and how it is trained."""

    preset: str = "quanta"
    residual: str = "auto"
    steps: int = 6
    rate: float = 0.02

    def adapted(self, model: Any, init_seed: int = 0) -> tuple[Any, torch.optim.Optimizer]:
        """Return a model with the adapter, and the optimizer of what trains."""
        result = with_adapter(model, preset=self.preset, residual=self.residual, init_seed=init_seed)
        return result, torch.optim.Adam([p for p in result.parameters() if p.requires_grad], lr=self.rate)

    def alone(self, model: Any) -> tuple[Any, list[float]]:
        """Train in this process, on whole batches; return the adapted model and the loss before every step."""
        adapted, optimizer = self.adapted(model)
        losses = []
        for _ in range(self.steps):
            loss = adapted(token_batch(), labels=token_batch()).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return adapted, losses


@dataclass(frozen=True)
class FsdpRun(Run):
    """Sharded by accelerate's FSDP2."""

    state_dict_type: str = "FULL_STATE_DICT"
    in_bfloat16: bool = False


@dataclass(frozen=True)
class DeepspeedRun(Run):
    """Sharded by DeepSpeed, in bfloat16."""

    stage: int = 2


FSDP_RUNS = {
    "full": FsdpRun(),
    "sharded": FsdpRun(state_dict_type="SHARDED_STATE_DICT"),
    "bfloat16": FsdpRun(in_bfloat16=True),
    "bfloat16_angles": FsdpRun(
        preset="quantum_peft_full", state_dict_type="SHARDED_STATE_DICT", in_bfloat16=True, rate=0.05
    ),
    "folded": FsdpRun(residual="folded"),
    "none": FsdpRun(preset="lora:4", state_dict_type="SHARDED_STATE_DICT", in_bfloat16=True),
}
DEEPSPEED_RUNS = {
    "zero2": DeepspeedRun(stage=2),
    "zero3": DeepspeedRun(stage=3),
    "zero3_angles": DeepspeedRun(preset="quantum_peft_full", stage=3, rate=0.05),
}
