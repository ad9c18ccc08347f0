"""Adapters saved while T and S were what is saved (tests/format_1_folders.py made them)."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import as_format_1, circuit_layers
from format_1_folders import HERE, inputs, net, updates
from peft import PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.peft import AdapterError, QuantaConfig

FOLDERS = {"copied": "a", "templates": "bc", "folded": "a", "none": "a", "imported": "a"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="circuit '.*' on layers")
        yield


def loaded(folder: Path, names: str, **keys: Any) -> Any:
    return PeftModel.from_pretrained(net(names), str(folder), **keys).eval()


def assert_as_saved(model: Any, folder: str) -> None:
    expected = load_file(HERE / folder / "expected.safetensors")
    found = updates(model, FOLDERS[folder])
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=0, atol=2e-5 * float(tensor.abs().max())), name


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("folder", FOLDERS)
def test_they_compute_what_they_did(folder: str, low_cpu_mem_usage: bool, tmp_path: Path) -> None:
    model = loaded(HERE / folder, FOLDERS[folder], low_cpu_mem_usage=low_cpu_mem_usage)
    assert_as_saved(model, folder)
    # Saved again they are of today's form.
    model.save_pretrained(str(tmp_path))
    keys = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert any("_gates." in key for key in keys) == (folder == "none")
    assert any("_delta." in key for key in keys) == (folder != "none")
    assert_as_saved(loaded(tmp_path, FOLDERS[folder]), folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_they_train_the_difference(folder: str) -> None:
    model = loaded(HERE / folder, FOLDERS[folder], is_trainable=True)
    kind = "_gates." if folder == "none" else "_delta."
    assert all(kind in name for name, parameter in model.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize("folder", FOLDERS)
def test_they_are_analyzed(folder: str) -> None:
    expected = load_file(HERE / folder / "expected.safetensors")
    for layer, update in read_adapter(HERE / folder).updates.items():
        if update.shape[1] > 2048:
            continue
        matrix = update.matrix(torch.device("cpu")).float()
        x = inputs(update.shape[1])
        assert torch.allclose(x @ matrix.T, expected[layer], rtol=0, atol=2e-5 * float(expected[layer].abs().max()))


def test_a_run_that_began_with_them_goes_on() -> None:
    """`Trainer` loads a checkpoint into the adapter that a new process has made."""
    model: Any = get_peft_model(net("a"), QuantaConfig(target_modules=["a"]))
    model.load_adapter(str(HERE / "copied"), "default", is_trainable=True)
    assert_as_saved(model.eval(), "copied")
    set_peft_model_state_dict(model, load_file(HERE / "copied" / "adapter_model.safetensors"))
    assert_as_saved(model, "copied")


def test_a_layer_of_which_nothing_is_saved_is_told(tmp_path: Path) -> None:
    shutil.copytree(HERE / "copied", tmp_path / "copied")
    config = tmp_path / "copied" / "adapter_config.json"
    config.write_text(config.read_text().replace('"a"', '"a", "d"'))
    base = net("a")
    base.add_module("d", torch.nn.Linear(24, 24))
    with pytest.raises(AdapterError, match="d: nothing is saved for it"):
        PeftModel.from_pretrained(base, str(tmp_path / "copied"))
    assert len(circuit_layers(base)) in {0, 2}


def llama() -> Any:
    """Return a decoder that transformers loads adapters into by itself."""
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, vocab_size=32)
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("residual", ["frozen_copy", "folded"])
def test_transformers_loads_them_past_every_hook(residual: str, tmp_path: Path) -> None:
    """Its own `load_adapter` assigns tensors by their keys: T and S arrive as such, and D trains."""
    model: Any = get_peft_model(llama(), QuantaConfig(target_modules=["q_proj"], residual=residual))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    tokens = torch.arange(8).view(1, 8)
    expected = model(tokens).logits
    model.save_pretrained(str(tmp_path))
    as_format_1(tmp_path)
    again = llama()
    again.load_adapter(str(tmp_path), is_trainable=True)
    trained = [parameter for parameter in again.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=10.0)
    assert torch.allclose(again(tokens).logits, expected, atol=1e-5)
    assert not [name for name, _ in again.named_parameters() if "quanta_circuit_gates" in name]
    before = again(tokens).logits
    before.sum().backward()
    optimizer.step()
    assert not torch.allclose(again(tokens).logits, before, atol=1e-4)


def test_a_configuration_of_theirs_makes_new_adapters_of_today(tmp_path: Path) -> None:
    model = loaded(HERE / "copied", "a", is_trainable=True)
    model.add_adapter("ref", model.peft_config["default"])
    for name, parameter in list(model.named_parameters()):
        if ".default" in name:
            model.get_parameter(name.replace(".default", ".ref")).data.copy_(parameter.data)
    model.set_adapter("ref")
    assert_as_saved(model, "copied")
    fresh: Any = get_peft_model(net("a"), QuantaConfig.from_pretrained(str(HERE / "copied")))
    fresh.save_pretrained(str(tmp_path))
    assert not [key for key in load_file(tmp_path / "adapter_model.safetensors") if "_gates." in key]
    assert not updates(fresh, "a")["a"].any()
    assert all("_delta." in name for name, _ in fresh.named_parameters() if "_gates." in name or "_delta." in name)
