"""Trains through a whole model, circuits before and behind layers, and smaller adapters, with gates in common."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import batch, circuit_layers, train
from commands import quanta
from peft import PeftModel, get_peft_model
from random_circuits import file_of
from safetensors.torch import load_file
from shared_models import CIRCUITS, SHARED, Stack, shared_stack

from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.peft import QuantaConfig, saved_bytes
from quanta_compiler.peft.rounding import Rounding


def test_a_train_through_the_model_is_the_product_of_its_cores() -> None:
    """As examples/meta-tt-768.yaml has it: the update of target m in layer l is output module[m] layer[l] input."""
    scopes = {"input": "all", "layer": "targets", "module": "layers", "output": "all"}
    gates: list[dict[str, Any]] = [
        {"axes": [0], "to": [5], "name": name, "across": scope} for name, scope in scopes.items()
    ]
    gates[-1] |= {"to": [24], "init": "zeros"}
    model = get_peft_model(Stack(), QuantaConfig(circuit=file_of(24, gates), target_modules=["q_proj", "o_proj"]))
    train(model, batch())
    cores: Any = getattr(model.base_model.model, SHARED)["default"]
    assert model.get_nb_trainable_parameters()[0] == 2 * 24 * 5 + (2 + 2) * 5**2
    for layer, block in enumerate(model.base_model.model.layers):
        for target in ("q_proj", "o_proj"):
            module, middle = cores[f"gates-module-{target}-5x5"], cores[f"gates-layer-layers-{layer}-5x5"]
            expected = cores["gates-output-24x5"] @ module @ middle @ cores["gates-input-5x24"]
            torch.testing.assert_close(block[target].get_delta_weight("default"), expected.detach())


@pytest.mark.parametrize("placement", ["input", "output"])
def test_circuits_before_and_behind_layers_share_too(placement: str) -> None:
    x = batch()
    model = shared_stack("identity", placement=placement)
    assert torch.equal(model(x), Stack()(x))
    train(model, x)
    expected = model(x)
    assert not torch.allclose(expected, Stack()(x), atol=1e-3)
    assert torch.allclose(copy.deepcopy(model).merge_and_unload()(x), expected, atol=1e-5)


def test_what_layers_share_is_not_made_smaller(tmp_path: Path) -> None:
    model = shared_stack("none")
    train(model, batch())
    model.save_pretrained(tmp_path / "adapter")
    result = quanta("analyze", str(tmp_path / "adapter"), "--shrink", "0.5", "-o", str(tmp_path / "smaller"))
    assert result.exit_code == 1
    assert "has gates that other layers have too" in result.stderr
    assert quanta("analyze", str(tmp_path / "adapter")).exit_code == 0


@pytest.mark.parametrize("residual", CIRCUITS)
def test_what_layers_share_is_rounded_in_all_of_them_and_packed_once(residual: str, tmp_path: Path) -> None:
    x, base = batch(), Stack()
    model = shared_stack(residual, bits=3, group_size=20)
    assert torch.allclose(model(x), base(x), rtol=0, atol=1e-5 if residual == "folded" else 0)
    train(model, x)
    expected = model(x)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    size = 0
    for name, tensor in model.named_parameters():
        if "quanta_circuit" in name:
            assert (saved[name.replace(".default", "")].dtype == torch.uint8) == tensor.requires_grad
            size += Rounding(3, 20).packed_bytes(tensor.shape) if tensor.requires_grad else 4 * tensor.numel()
    assert size == saved_bytes(model) == sum(tensor.numel() * tensor.element_size() for tensor in saved.values())
    for low in (False, True):
        loaded = PeftModel.from_pretrained(Stack(), tmp_path, adapter_name="other", low_cpu_mem_usage=low)
        assert torch.equal(loaded(x), expected)
    updates = read_adapter(tmp_path).updates
    for name, layer in circuit_layers(model).items():
        read = updates[name.removeprefix("base_model.model.")].matrix(torch.device("cpu")).float()
        assert torch.allclose(read, layer.get_delta_weight("default"), atol=1e-5)
    assert torch.allclose(model.merge_and_unload()(x), expected, atol=1e-5)
