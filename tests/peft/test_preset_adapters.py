"""Presets as adapters: on layers of three shapes each begins as the base model, trains, saves and loads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import Blocks, Mlp, adapted, batch, circuit_layers, train
from peft import PeftModel

from quanta_compiler.presets.table import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_with_a_preset_trains_saves_and_loads(preset: str, tmp_path: Path) -> None:
    x = batch()
    before = Blocks()(x).detach()
    model = adapted(Blocks(), circuit=None, preset=preset)
    assert torch.equal(model(x), before)
    train(model, x)
    trained = model(x).detach()
    assert not torch.allclose(trained, before)
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="circuit '.*' on layers")
        again = PeftModel.from_pretrained(Blocks(), tmp_path)
    torch.testing.assert_close(again(x), trained, rtol=0, atol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_that_begins_at_zero_needs_no_frozen_copy(preset: str) -> None:
    model = adapted(Blocks(), circuit=None, preset=preset)
    residuals = {layer.quanta_circuit_residual["default"] for layer in circuit_layers(model).values()}
    if preset in ("oft", "boft", "gsoft"):
        # The layers of 24 -> 24 and of two widths.
        assert residuals == {"identity", "frozen_copy"}
        return
    assert residuals == {"frozen_copy" if preset in ("quanta", "butterfly", "quantum_peft_full") else "none"}


def test_a_preset_file_is_a_circuit_of_a_mapping_too() -> None:
    file: dict[str, Any] = {"version": 1, "name": "a", "preset": "lora", "rank": 2}
    krona: dict[str, Any] = {"version": 1, "name": "b", "preset": "krona", "layout": "4-4"}
    model = adapted(Mlp(), circuit={"q_proj": file, "o_proj": krona}, target_modules=None)
    assert model.peft_config["default"].circuit == {"q_proj": file, "o_proj": krona}
    sizes = {name.rsplit(".")[-1]: layer_parameters(layer) for name, layer in circuit_layers(model).items()}
    # o_proj is 16 -> 24: the output's 24 is factored as 6 x 4.
    assert sizes == {"q_proj": 2 * 48, "o_proj": 4 * 6 + 4 * 4}


def layer_parameters(layer: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters() if parameter.requires_grad)
