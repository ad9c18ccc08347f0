"""Loops that users write, and Lightning's: what trains is cast to bfloat16, or decays without a gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from client_models import (
    adapted_layers,
    applied_deltas,
    deltas,
    distance,
    logits,
    save_llama,
    token_batch,
    with_adapter,
)
from peft import PeftModel
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.slow

PRESETS = ["quanta", "quantum_peft_full"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the tiny Llama."""
    return save_llama(tmp_path_factory.mktemp("llama"))


def base(llama: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(llama, dtype=dtype)


def trained(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def cast(model: Any) -> Any:
    """Cast what trains to bfloat16, as recipes of QLoRA do."""
    for parameter in trained(model):
        parameter.data = parameter.data.to(torch.bfloat16)
    return model


def run_steps(model: Any, steps: int = 6, rate: float = 0.02) -> list[float]:
    optimizer, losses = torch.optim.AdamW(trained(model), lr=rate), []
    for _ in range(steps):
        loss = model(token_batch(), labels=token_batch()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_cast_that_nobody_trained_is_the_base_model_bit_for_bit(
    llama: Path, tmp_path: Path, preset: str, dtype: torch.dtype
) -> None:
    before = logits(base(llama, dtype))
    model = cast(with_adapter(base(llama, dtype), preset=preset))
    assert torch.equal(logits(model), before)
    assert not any(bool(delta.any()) for delta in deltas(model).values())
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base(llama, dtype), str(tmp_path))), before)
    assert torch.equal(logits(model.merge_and_unload()), before)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_cast_costs_a_rounding_of_the_update_and_nothing_else(llama: Path, tmp_path: Path, preset: str) -> None:
    model = with_adapter(base(llama), preset=preset)
    run_steps(model, rate=0.001)
    exact = deltas(model)
    assert distance(deltas(cast(model)), exact) < 2**-7
    assert distance(applied_deltas(model), deltas(model)) < 1e-3  # of an update that is a thousandth of T and S
    losses = run_steps(model)
    assert losses[-1] < losses[0] - 0.1
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base(llama), str(tmp_path))
    assert distance(deltas(loaded), deltas(model)) == 0
    assert torch.equal(logits(loaded), logits(model))
    torch.testing.assert_close(logits(model.merge_and_unload()), logits(loaded), rtol=0, atol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_weight_decay_without_a_gradient_pulls_towards_the_base_model(llama: Path, preset: str) -> None:
    model = with_adapter(base(llama), preset=preset)
    optimizer = torch.optim.AdamW(trained(model), lr=0.01, weight_decay=0.5)
    for parameter in trained(model):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert not any(bool(delta.any()) for delta in deltas(model).values())

    run_steps(model)
    before = {name: float(delta.norm()) for name, delta in deltas(model).items()}
    optimizer = torch.optim.AdamW(trained(model), lr=0.01, weight_decay=10)
    for parameter in trained(model):
        parameter.grad = torch.zeros_like(parameter)
    for steps, factor in ((10, 0.5), (80, 1e-3)):
        for _ in range(steps):
            optimizer.step()
        assert all(float(delta.norm()) < factor * before[name] for name, delta in deltas(model).items())


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_lightning_trains_saves_and_loads_one_update(llama: Path, tmp_path: Path, precision: str) -> None:
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = with_adapter(base(llama))
            self.losses: list[float] = []

        def training_step(self, tokens: torch.Tensor, _: int) -> torch.Tensor:
            loss: torch.Tensor = self.model(tokens, labels=tokens).loss
            self.losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(trained(self.model), lr=0.02)

    module = Module()
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"default_root_dir": tmp_path, "enable_checkpointing": False}
    trainer = lightning.Trainer(accelerator="cpu", precision=precision, max_epochs=6, **options)
    tokens: Any = [*token_batch()]
    trainer.fit(module, torch.utils.data.DataLoader(tokens, batch_size=4))
    assert len(list(adapted_layers(module.model))) == 6
    assert module.losses[-1] < module.losses[0] - 0.1
    reported = deltas(module.model)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    again = Module.load_from_checkpoint(tmp_path / "whole.ckpt", map_location="cpu")
    module.model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(base(llama), str(tmp_path / "adapter"))
    for other in (again.model, loaded):
        assert distance(deltas(other), reported) < 1e-4
        assert distance(applied_deltas(other), reported) < 1e-4
