"""Wrong adapters and wrong models: one error with layer, shapes and remedy, and nothing of the model changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers, train
from peft import PeftModel, get_peft_model
from random_circuits import file_of
from safetensors.torch import load_file, save_file

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.peft import AdapterError, QuantaConfig

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a saved adapter on all three layers."""
    model = adapted(Mlp())
    train(model, batch())
    model.save_pretrained(str(tmp_path))
    return tmp_path


def structure(model: torch.nn.Module) -> list[tuple[str, type[Any], int]]:
    return [(name, type(module), id(module)) for name, module in model.named_modules()]


def refused(model: Any, config: QuantaConfig) -> str:
    """Return the error of an adapter that does not fit; the model must be what it was."""
    before, state = structure(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(ValueError, match=r"fit|found|supported|assigned") as caught:
        get_peft_model(model, config)
    assert structure(model) == before
    assert trained == [parameter.requires_grad for parameter in model.parameters()]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    return f"{caught.value}\n"


def test_circuits_that_do_not_fit(golden: Callable[[str, str], None]) -> None:
    square = file_of("6x4", ["all_pairs"], in_features=24, out_features=24)
    broken = file_of({"auto": 2}, [{"axes": [0, 1], "to": [5, 5], "kind": "diagonal"}])
    constant = file_of(24, [{"axes": [0], "kind": "slice"}])
    configs = {
        "one of two shapes": QuantaConfig(circuit=square, target_modules=["q_proj", "k_proj", "o_proj"]),
        "no circuit for a target": QuantaConfig(circuit={"q_proj": QUANTA}, target_modules=["q_proj", "o_proj"]),
        "two circuits for a target": QuantaConfig(circuit={"q_pro[j]": QUANTA, "[q]_proj": QUANTA}),
        "nothing that trains": QuantaConfig(circuit=constant, target_modules=["q_proj"]),
        "no such target": QuantaConfig(circuit=QUANTA, target_modules=["v_proj"]),
    }
    texts = [f"== {title}\n{refused(Mlp(), config)}" for title, config in configs.items()]
    golden("errors/adapters-that-do-not-fit.txt", "\n".join(texts))
    with pytest.raises(SpecError):
        QuantaConfig(circuit=broken)


def test_a_layer_of_another_kind_is_refused() -> None:
    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj = torch.nn.Linear(24, 24)
            self.k_proj = torch.nn.Embedding(24, 24)

    message = refused(Embedding(), QuantaConfig(circuit=QUANTA, target_modules=["q_proj", "k_proj"]))
    assert "Target module Embedding(24, 24) is not supported: k_proj is a Embedding" in message


def test_a_second_adapter_that_does_not_fit_leaves_the_first_alone() -> None:
    model = adapted(Mlp(), init_weights=False)
    expected, before = model(batch()), structure(model)
    circuits = {"q_proj": QUANTA, "k_proj": file_of("6x4", ["all_pairs"], in_features=24, out_features=24)}
    with pytest.raises(AdapterError, match="k_proj"):
        model.add_adapter("second", QuantaConfig(circuit=circuits))
    assert structure(model) == before
    assert torch.equal(model(batch()), expected)
    assert [list(layer.quanta_circuit_plan) for layer in circuit_layers(model).values()] == [["default"]] * 3
    assert list(model.peft_config) == ["default"]


def load_error(folder: Path, model: torch.nn.Module | None = None) -> str:
    """Return the error of loading a saved adapter; no weight of the base model may have changed."""
    model = Mlp() if model is None else model
    before = {id(tensor): tensor.clone() for tensor in model.parameters()}
    with pytest.raises((AdapterError, SpecError)) as caught:
        PeftModel.from_pretrained(model, str(folder))
    for tensor in model.parameters():
        assert id(tensor) not in before or torch.equal(tensor, before[id(tensor)])
    for layer in circuit_layers(model).values():
        # Nothing was loaded: the adapter still does nothing.
        trained, frozen = layer.circuits("default")
        assert frozen is not None
        assert all(torch.equal(trained[name], frozen[name]) for name in trained)
    return str(caught.value).replace(str(folder), "FOLDER") + "\n"


def change_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "adapter_config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


KEY = "base_model.model.k_proj.quanta_circuit_delta.g1"


def truncated(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def no_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"not a safetensors file")


def with_nan(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors[KEY].view(-1)[3:4].fill_(float("nan")))


def other_shape(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({KEY: torch.zeros(4, 4)}))


def missing(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.__delitem__(KEY))


def more(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({KEY.replace("k_proj", "v_proj"): torch.zeros(4, 4)}))


def newer(folder: Path) -> None:
    change_config(folder, lambda data: data["circuit"].update(version=2))


def changed(folder: Path) -> None:
    change_config(folder, lambda data: data["circuit"].update(layout="2x12"))


def changed_without_hash(folder: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["circuit"].update(layout="2x3x4")
        data["circuit_hash"] = None

    change_config(folder, change)


def renamed(folder: Path, rename: Callable[[str], str]) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(key): tensor for key, tensor in tensors.items()}, folder / WEIGHTS)


def of_a_distributed_model(folder: Path) -> None:
    renamed(folder, lambda key: f"module.{key}")


def of_a_compiled_distributed_model(folder: Path) -> None:
    renamed(folder, lambda key: f"module._orig_mod.{key}")


def emptied(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.clear())


def a_layer_less(folder: Path) -> None:
    change_weights(folder, lambda tensors: [tensors.pop(key) for key in list(tensors) if ".k_proj." in key])


DAMAGES = (
    *(truncated, no_safetensors, with_nan, other_shape, missing, more, newer, changed, changed_without_hash),
    *(of_a_distributed_model, of_a_compiled_distributed_model, emptied, a_layer_less),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_files(damage: Callable[[Path], None], folder: Path, golden: Callable[[str, str], None]) -> None:
    damage(folder)
    golden(f"errors/adapter-{damage.__name__.replace('_', '-')}.txt", load_error(folder))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_files_are_told_alike_with_little_memory(damage: Callable[[Path], None], folder: Path) -> None:
    damage(folder)
    expected = load_error(folder)
    with pytest.raises((AdapterError, SpecError)) as caught:
        PeftModel.from_pretrained(Mlp(), str(folder), low_cpu_mem_usage=True)
    assert str(caught.value).replace(str(folder), "FOLDER") + "\n" == expected


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_a_state_of_a_wrapped_model_is_not_saved_in_silence(prefix: str, tmp_path: Path) -> None:
    model = adapted(Mlp())
    state = {f"{prefix}{key}": tensor for key, tensor in model.state_dict().items()}
    with pytest.warns(
        UserWarning, match=f"nothing of the circuit adapter is saved: the state dict has keys such as '{prefix}"
    ):
        model.save_pretrained(str(tmp_path), state_dict=state)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_keys_of_an_injected_adapter_are_not_lost_in_a_peft_model(low_cpu_mem_usage: bool, folder: Path) -> None:
    renamed(folder, lambda key: key.removeprefix("base_model.model."))
    with pytest.raises(AdapterError, match=r"k_proj: nothing is saved for it(.|\n)*put `base_model.model.` before"):
        PeftModel.from_pretrained(Mlp(), str(folder), low_cpu_mem_usage=low_cpu_mem_usage)


def test_a_refused_adapter_leaves_a_model_that_can_be_saved(tmp_path: Path) -> None:
    model = adapted(Mlp())
    keys = list(model.state_dict())
    with pytest.raises(AdapterError, match="'zz' reaches no layer"):
        model.add_adapter("bad", QuantaConfig(circuit={"q_proj": QUANTA, "zz": QUANTA}))
    assert list(model.state_dict()) == keys
    model.save_pretrained(str(tmp_path))
    with pytest.raises(AdapterError, match="'zz' reaches no layer"):
        adapted(Mlp(), circuit={"q_proj": QUANTA, "zz": QUANTA}, target_modules=["q_proj"])


def test_a_field_that_is_assigned_later_is_checked() -> None:
    config = QuantaConfig(circuit=QUANTA, target_modules=["q_proj"])
    config.residual = "fronzen"
    with pytest.raises(ValueError, match="`residual` is one of"):
        get_peft_model(Mlp(), config)


def test_weights_of_the_base_alone_are_no_damaged_adapter() -> None:
    model = adapted(Mlp())
    model.load_state_dict({key: t for key, t in model.state_dict().items() if "base_layer" in key}, strict=False)


def test_a_wrong_base_model(folder: Path, golden: Callable[[str, str], None]) -> None:
    """The gates of a fixed layout have the same shapes on every layer: the saved features tell."""

    class Wider(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj = torch.nn.Linear(24, 30)
            self.k_proj = torch.nn.Linear(30, 16)

    golden("errors/adapter-wrong-base-model.txt", load_error(folder, Wider()))


def test_a_circuit_that_is_assigned_later_is_refused() -> None:
    config = QuantaConfig(circuit=QUANTA, target_modules=["q_proj"])
    config.circuit = LORA
    assert "`circuit` was assigned to after the configuration was made" in refused(Mlp(), config)
