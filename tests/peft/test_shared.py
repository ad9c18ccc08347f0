"""Parameters that layers have together: once in the model, its state and its optimizer, whatever is done with it."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import batch, circuit_layers, train
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from random_circuits import file_of
from safetensors.torch import load_file
from shared_models import CIRCUITS, SHARED, Stack, config, shared_stack
from torch import nn

from quanta_compiler.peft import QuantaConfig


def trained_stack(residual: str, **keys: Any) -> Any:
    model = shared_stack(residual, **keys)
    train(model, batch())
    return model


def shared_names(model: nn.Module) -> set[str]:
    return {name.rpartition(".")[2] for name, _ in model.named_parameters() if SHARED in name}


@pytest.mark.parametrize("residual", CIRCUITS)
def test_the_adapted_model_begins_as_its_base_and_trains(residual: str) -> None:
    x = batch()
    model = shared_stack(residual)
    expected = Stack()(x)
    assert torch.allclose(model(x), expected, atol=0 if residual != "folded" else 1e-5)
    train(model, x)
    assert not torch.allclose(model(x), expected, atol=1e-3)
    # Every tensor that trains has moved, those of two factors too.
    before = dict(shared_stack(residual).named_parameters())
    assert all(not torch.equal(one, before[name]) for name, one in model.named_parameters() if one.requires_grad)


def test_what_is_there_once_and_what_it_is_called() -> None:
    model = shared_stack("none")
    one = {f"gates-one-layers-{index}-6x6" for index in (0, 1)}
    two = {f"gates-two-{target}-6x6" for target in ("q_proj", "o_proj")}
    assert shared_names(model) == {"gates-A-6x24", "gates-B-24x6", *one, *two}
    assert model.get_nb_trainable_parameters()[0] == 2 * 6 * 24 + 2 * 36 + 2 * 6 + 4 * 2 * (6 + 6)
    copied = shared_names(shared_stack("frozen_copy"))
    assert {name for name in copied if name.startswith("delta-g1")} == {"delta-g1-6x6-A", "delta-g1-6x6-B"}
    assert {name for name in copied if "g2" in name} == {"frozen-g2-4x4"}
    assert not any("g3" in name for name in copied)


@pytest.mark.parametrize("residual", CIRCUITS)
def test_an_update_is_that_of_the_circuit_by_itself(residual: str) -> None:
    """What each layer computes, from the tensors that it has itself and those under the names of its groups."""
    model = trained_stack(residual)
    with torch.no_grad():
        for name, layer in circuit_layers(model).items():
            fitted = layer.quanta_circuit_plan["default"]
            circuit, copied = layer.circuits("default")
            assert set(circuit) == set(fitted.shapes)
            operator = fitted.apply(circuit, torch.eye(24), "torch").T
            if copied is not None:
                operator = operator - fitted.apply(copied, torch.eye(24), "torch").T
            if residual == "identity":
                operator = operator - torch.eye(24)
            assert torch.allclose(layer.get_delta_weight("default"), operator, atol=1e-6), name


@pytest.mark.parametrize("residual", CIRCUITS)
def test_gradients_are_summed_over_the_layers(residual: str) -> None:
    """Against the same model with a copy of each shared tensor in every layer."""
    x = batch()
    model = shared_stack(residual, init_weights=False)
    apart: Any = apart_of(model)
    for one in (model, apart):
        one(x).square().sum().backward()
    assert torch.allclose(model(x), apart(x), atol=1e-6)
    sums: dict[str, torch.Tensor] = {}
    for name, layer in circuit_layers(model).items():
        reach = layer.quanta_circuit_shared["default"]
        holder = circuit_layers(apart)[name]._holder("default")
        for tensor, key in reach.keys["trained"].items():
            sums[key] = sums.get(key, torch.zeros(())) + holder.get_parameter(tensor).grad
    assert sums
    for key, total in sums.items():
        parameter = model.get_parameter(f"base_model.model.{SHARED}.default.{key}")
        assert torch.allclose(parameter.grad, total, rtol=1e-4, atol=1e-5)


def apart_of(model: Any) -> Any:
    """Return the model with the tensors that layers have together as tensors of each of them."""
    result = copy.deepcopy(model)
    for layer in circuit_layers(result).values():
        reach = layer.quanta_circuit_shared["default"]
        holders: dict[str, Any] = {
            "trained": layer._holder("default"),
            "frozen": layer.quanta_circuit_frozen["default"],
        }
        for which, holder in holders.items():
            for name, tensor in reach.raw(which).items():
                holder[name] = nn.Parameter(tensor.detach().clone(), requires_grad=which == "trained")
        layer.quanta_circuit_shared.clear()
    return result


@pytest.mark.parametrize("residual", CIRCUITS)
@pytest.mark.parametrize("low", [False, True])
def test_saved_once_and_loaded(residual: str, low: bool, tmp_path: Path) -> None:
    x, model = batch(), trained_stack(residual)
    model.save_pretrained(tmp_path)
    keys = [key for key in load_file(tmp_path / "adapter_model.safetensors") if SHARED in key]
    assert {key.rpartition(".")[2] for key in keys} == shared_names(model)
    assert all(key.startswith(f"base_model.model.{SHARED}.") and "default" not in key for key in keys)
    loaded = PeftModel.from_pretrained(Stack(), tmp_path, adapter_name="other", low_cpu_mem_usage=low)
    assert torch.equal(loaded(x), model(x))
    # Nothing trains in what is loaded for inference; all of it in what is loaded to go on.
    assert not any(one.requires_grad for one in loaded.parameters())
    again = PeftModel.from_pretrained(Stack(), tmp_path, is_trainable=True)
    assert again.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()
    assert not any(one.requires_grad for name, one in again.named_parameters() if "frozen-" in name)
    state = get_peft_model_state_dict(model)
    fresh = shared_stack(residual, init_seed=5)
    set_peft_model_state_dict(fresh, state)
    assert torch.equal(fresh(x), model(x))


@pytest.mark.parametrize("residual", CIRCUITS)
def test_copies_and_pickles_have_their_own(residual: str) -> None:
    x, model = batch(), trained_stack(residual)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
        assert len(list(other.parameters())) == len(list(model.parameters()))
        train(other, x)
        assert not torch.equal(other(x), expected)
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("residual", CIRCUITS)
def test_merged_and_taken_out_again(residual: str) -> None:
    x, model = batch(), trained_stack(residual)
    expected, base = model(x), Stack()(x)
    model.merge_adapter(safe_merge=True)
    assert torch.allclose(model(x), expected, atol=1e-5)
    model.unmerge_adapter()
    assert torch.allclose(model(x), expected, atol=1e-5)
    with model.disable_adapter():
        assert torch.allclose(model(x), base, atol=1e-5)
    merged = copy.deepcopy(model).merge_and_unload()
    assert torch.allclose(merged(x), expected, atol=1e-5)
    plain = model.unload()
    for one in (merged, plain):
        assert b"quanta" not in pickle.dumps(one.state_dict())
        assert not hasattr(one, SHARED)
    assert torch.allclose(plain(x), base, atol=1e-5)


def test_the_seed_and_the_group_say_what_is_drawn() -> None:
    def state(**keys: Any) -> dict[str, torch.Tensor]:
        return {k: v for k, v in shared_stack("frozen_copy", **keys).state_dict().items() if "frozen" in k}

    first, again, other = state(), state(), state(init_seed=1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    # A part of the model draws the same for what it has.
    part = state(target_modules=r".*\.q_proj")
    assert part
    assert all(torch.equal(first[key], part[key]) for key in part)
    # Groups differ from each other.
    by_target = [value for key, value in first.items() if "frozen-g0-" in key]
    assert len(by_target) == 2
    assert not torch.equal(*by_target)


def test_several_adapters_each_have_their_own() -> None:
    x = batch()
    model = trained_stack("frozen_copy")
    expected = model(x)
    model.add_adapter("other", config("none", init_weights=False))
    assert torch.equal(model(x), expected)
    trains = {name for name, one in model.named_parameters() if one.requires_grad}
    assert not any(".other" in name for name in trains)
    model.set_adapter("other")
    trains = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trains
    assert all(".other" in name for name in trains)
    assert sum(SHARED in name for name in trains) == 6
    second = model(x)
    model.base_model.set_adapter(["default", "other"])
    both = model(x)
    assert not torch.allclose(both, second)
    assert not torch.allclose(both, expected)
    model.set_adapter("default")
    model.delete_adapter("other")
    assert not any(".other" in name for name in model.state_dict())
    assert torch.equal(model(x), expected)
    model.delete_adapter("default")
    assert not hasattr(model.base_model.model, SHARED)
    model.add_adapter("default", config("none"))
    assert shared_names(model)


def test_deleting_from_one_layer_after_the_other_deletes_with_the_last() -> None:
    model = shared_stack("none")
    layers = list(circuit_layers(model).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for left, layer in enumerate(layers, start=1):
            layer.delete_adapter("default")
            assert ("gates-A-6x24" in shared_names(model)) == (left < len(layers))
    assert not shared_names(model)


def test_an_optimizer_has_every_number_once() -> None:
    model = shared_stack("none")
    trained = [one for one in model.parameters() if one.requires_grad]
    assert len({id(one) for one in trained}) == len(trained)
    # 6 that layers have together, and two factors in each of four layers.
    assert len(trained) == 6 + 8


def test_autocast_adapter_dtype_and_devices() -> None:
    x = batch(torch.bfloat16)
    wide = shared_stack("none", torch.bfloat16)
    assert {one.dtype for name, one in wide.named_parameters() if SHARED in name} == {torch.float32}
    assert torch.equal(wide(x), Stack(torch.bfloat16)(x))
    narrow = get_peft_model(Stack(torch.bfloat16), config("none"), autocast_adapter_dtype=False)
    assert {one.dtype for name, one in narrow.named_parameters() if SHARED in name} == {torch.bfloat16}
    assert torch.equal(narrow(x), Stack(torch.bfloat16)(x))
    narrow.to(torch.float64)
    assert {one.dtype for name, one in narrow.named_parameters() if SHARED in name} == {torch.float64}
    on_meta = get_peft_model(Stack().to("meta"), config("frozen_copy"))
    assert all(one.is_meta for one in on_meta.parameters())


def test_an_adapted_sequential_passes_it_by() -> None:
    x = batch()
    base = nn.Sequential(nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 24))
    circuit = file_of("6x4", [{"axes": [0, 1], "across": "targets"}, {"axes": [0], "across": "all"}])
    expected = base(x)
    config = QuantaConfig(circuit={**circuit, "gates": circuit["gates"][1:]}, target_modules=["0", "2"])
    assert torch.equal(get_peft_model(base, config)(x), expected)


def test_injected_into_a_model_it_stays_with_the_model() -> None:
    x, source = batch(), trained_stack("frozen_copy")
    model: Any = inject_adapter_in_model(config("frozen_copy"), Stack())
    assert shared_names(model) == shared_names(source)
    set_peft_model_state_dict(model, get_peft_model_state_dict(source))
    assert torch.equal(model(x), source(x))
    saved = get_peft_model_state_dict(model)
    assert {key for key in saved if SHARED in key} == {f"{SHARED}.{name}" for name in shared_names(model)}
    again: Any = inject_adapter_in_model(config("frozen_copy", init_seed=3), Stack())
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x))


def test_compiled_code_takes_them_too() -> None:
    x, model = batch(), trained_stack("none")
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), model(x), atol=1e-6)
    compiled(x).sum().backward()
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)
