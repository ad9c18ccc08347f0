"""Adapters whose trained tensors are rounded to a few bits: the start, the file, and that all ways give one update."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers, train
from moe_models import TOKENS as MIXED_TOKENS
from moe_models import mixture
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from test_placements import IDENTITY, MIXED

from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.peft import QuantaConfig, saved_bytes

WEIGHTS = "adapter_model.safetensors"
CASES: dict[str, dict[str, Any]] = {
    "frozen_copy": {"circuit": QUANTA},
    "folded": {"circuit": QUANTA, "residual": "folded"},
    "identity": {"circuit": MIXED, "target_modules": ["q_proj"]},
    "none": {"circuit": LORA},
    "input": {"circuit": IDENTITY, "placement": "input", "target_modules": ["q_proj", "k_proj"]},
    "output": {"circuit": MIXED, "placement": "output", "target_modules": ["q_proj", "o_proj"], "scale": 0.5},
}
FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def rounded_model(case: str, bits: int = 3, dtype: torch.dtype = torch.float32, **keys: Any) -> Any:
    model = adapted(Mlp(dtype), **{"bits": bits, "group_size": 20, **CASES[case], **keys})
    train(model, batch(dtype), steps=4)
    return model


def trained_tensors(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in model.named_parameters() if tensor.requires_grad}


def updates(model: Any) -> dict[str, torch.Tensor]:
    layers: dict[str, Any] = circuit_layers(model)
    return {
        name.rpartition(".")[2]: layer.get_delta_weight(adapter)
        for name, layer in layers.items()
        for adapter in layer.active_adapters
    }


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bits", [1, 4])
def test_the_start_is_exact_in_every_dtype(bits: int, case: str, dtype: torch.dtype) -> None:
    x, base = batch(dtype), Mlp(dtype)
    model = adapted(copy.deepcopy(base), bits=bits, **{**CASES[case], "residual": _exact(case)})
    assert torch.equal(model(x), base(x))
    assert not any(delta.any() for delta in updates(model).values())
    assert torch.equal(model.merge_and_unload()(x), base(x))


def _exact(case: str) -> str:
    """Return the residual of a case; W - S of `folded` is rounded."""
    return "frozen_copy" if case == "folded" else "auto"


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("case", CASES)
def test_the_layer_computes_with_rounded_numbers_and_trains_those_behind(case: str, bits: int) -> None:
    """Every group of what the circuits are made of has at most 2^bits numbers; the gradient is as without rounding."""
    model = rounded_model(case, bits)
    layers: list[Any] = list(circuit_layers(model).values())
    for layer in layers:
        made, frozen = layer.circuits("default")
        fitted, residual = layer.quanta_circuit_plan["default"], layer.quanta_circuit_residual["default"]
        for name, parameter in layer._holder("default").items():
            start = frozen[name] if frozen is not None else torch.zeros_like(parameter)
            if residual == "identity":
                zeros = {other: torch.zeros(fitted.shapes[other]) for other in fitted.trained}
                start = fitted.from_identity(zeros)[name]
            own = (made[name] - start).detach().reshape(-1)
            for group, then in zip(own.split(20), parameter.detach().reshape(-1).split(20), strict=True):
                numbers = group.sort().values
                assert ((numbers[1:] - numbers[:-1]) > 1e-5).sum() < 2**bits
                step = (then.max() - then.min()) / (2**bits - 1)
                assert (group - then).abs().max() <= step / 2 + 1e-5
                if len(then.unique()) > 2**bits:
                    assert not torch.allclose(group, then, rtol=0, atol=1e-4 * float(step))


def test_training_goes_down_and_moves_what_is_behind_the_rounding() -> None:
    x, aim = batch(), Mlp(seed=1)(batch()).detach()
    model = adapted(Mlp(), circuit=QUANTA, bits=4, group_size=32)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(x) - aim).pow(2).mean()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("case", CASES)
def test_the_file_has_the_bytes_that_the_formula_the_card_and_the_function_say(
    case: str, bits: int, tmp_path: Path
) -> None:
    model = rounded_model(case, bits)
    model.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / WEIGHTS)
    trained, layers = trained_tensors(model), list(circuit_layers(model).values())
    packed = {
        name: math.ceil(one.numel() * bits / 8) + 8 * math.ceil(one.numel() / 20) + 4 * (2 + one.dim())
        for name, one in trained.items()
    }
    frozen = [one for name, one in model.named_parameters() if "_frozen." in name]
    rest = sum(4 * one.numel() for one in frozen) + 8 * len(layers)
    held = sum(one.numel() * one.element_size() for one in saved.values())
    assert held == saved_bytes(model) == sum(packed.values()) + rest
    assert all(saved[name.replace(".default", "")].dtype == torch.uint8 for name in trained)
    how = f"{bits} bit{'s' if bits > 1 else ''} by groups of 20"
    for layer in circuit_layers(model):
        own = sum(size for name, size in packed.items() if name.startswith(f"{layer}."))
        assert f"default: {how}, saved in {own:,} bytes" in repr(model.get_submodule(layer))
    size = (tmp_path / WEIGHTS).stat().st_size
    assert f"What trains is rounded to {how}: {size:,} bytes in {WEIGHTS}.\n" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("circuit", [LORA, QUANTA], ids=["none", "frozen_copy"])
def test_the_tensors_of_experts_are_rounded_together_and_have_the_bytes_that_are_said(
    circuit: dict[str, Any], tmp_path: Path
) -> None:
    config = QuantaConfig(circuit=circuit, target_parameters=["experts.down_proj"], bits=3, group_size=7)
    model: Any = get_peft_model(mixture("mixtral"), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(2):
        model(input_ids=MIXED_TOKENS, labels=MIXED_TOKENS).loss.backward()
        optimizer.step()
    expected = model(MIXED_TOKENS).logits
    model.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / WEIGHTS)
    assert saved_bytes(model) == sum(one.numel() * one.element_size() for one in saved.values())
    layers = {name: layer for name, layer in circuit_layers(model).items() if layer.quanta_circuit_plan}
    assert layers
    for name in layers:
        own = {key: one for key, one in saved.items() if key.startswith(f"{name}.") and "_frozen" not in key}
        size = sum(one.numel() * one.element_size() for key, one in own.items() if "_features" not in key)
        assert f", default: 3 bits by groups of 7, saved in {size:,} bytes" in repr(model.get_submodule(name))
    assert f": {(tmp_path / WEIGHTS).stat().st_size:,} bytes in {WEIGHTS}." in (tmp_path / "README.md").read_text()
    loaded = PeftModel.from_pretrained(mixture("mixtral"), str(tmp_path))
    assert torch.equal(loaded(MIXED_TOKENS).logits, expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_adapted_is_reloaded_bit_for_bit_and_merged_alike(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    x = batch(dtype)
    model = rounded_model(case, 3, dtype)
    expected, state = model(x), get_peft_model_state_dict(model)
    model.save_pretrained(str(tmp_path))
    injected: Any = inject_adapter_in_model(QuantaConfig.from_pretrained(str(tmp_path)), Mlp(dtype))
    set_peft_model_state_dict(injected, state)
    reloaded = [
        PeftModel.from_pretrained(Mlp(dtype), str(tmp_path), adapter_name=name, low_cpu_mem_usage=low)
        for name, low in (("default", False), ("g0", True), ("other", False))
    ]
    deltas = updates(model)
    for each in (injected, *reloaded):
        assert torch.equal(each.eval()(x), expected)
        assert all(torch.equal(delta, deltas[name]) for name, delta in updates(each).items())
    # Saved again, the file is the same.
    reloaded[0].save_pretrained(str(tmp_path / "again"))
    first, again = (load_file(folder / WEIGHTS) for folder in (tmp_path, tmp_path / "again"))
    assert first.keys() == again.keys()
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    merged = model.merge_and_unload()
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            merged.state_dict().values(), reloaded[1].merge_and_unload().state_dict().values(), strict=True
        )
    )
    tolerance = 1e-5 if dtype in (torch.float32, torch.float64) else 0.05
    assert (merged(x) - expected).norm() <= tolerance * expected.norm()


def test_an_adapter_in_the_dtype_of_its_layer_is_reloaded_bit_for_bit(tmp_path: Path) -> None:
    x = batch(torch.bfloat16)
    model = rounded_model("frozen_copy", 4, torch.bfloat16)
    for layer in circuit_layers(model).values():
        layer.cast_adapter("default")
    expected = model(x)
    model.save_pretrained(str(tmp_path))
    for autocast in (True, False):
        loaded = PeftModel.from_pretrained(Mlp(torch.bfloat16), str(tmp_path), autocast_adapter_dtype=autocast).eval()
        assert torch.equal(loaded(x), expected)


def test_training_goes_on_from_the_rounded_numbers(tmp_path: Path) -> None:
    model = rounded_model("frozen_copy", 2)
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(Mlp(), str(tmp_path), is_trainable=True)
    before = trained_tensors(loaded)
    assert before
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trained_tensors(model).items())
    before = {name: tensor.clone() for name, tensor in before.items()}
    train(loaded, batch())
    assert all(not torch.equal(tensor, before[name]) for name, tensor in trained_tensors(loaded).items())


def test_without_bits_nothing_is_rounded_and_the_file_is_as_before(tmp_path: Path) -> None:
    plain, rounded = adapted(Mlp()), adapted(Mlp(), bits=8)
    for model in (plain, rounded):
        train(model, batch(), steps=1)
    state = dict(trained_tensors(plain))
    assert all(
        torch.equal(state[f"base_model.model.{name}.quanta_circuit_delta.default.{gate}"], tensor)
        for name, layer in (
            (name.removeprefix("base_model.model."), one) for name, one in circuit_layers(plain).items()
        )
        for gate, tensor in layer._holder("default").items()
    )
    plain.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / WEIGHTS)
    assert all(torch.equal(saved[name.replace(".default", "")], tensor) for name, tensor in state.items())
    assert saved_bytes(plain) == sum(4 * tensor.numel() for tensor in saved.values())
    assert " bits by groups" not in repr(plain) + (tmp_path / "README.md").read_text()


def test_saved_numbers_can_be_rounded_later_and_packed_ones_trained_in_full(tmp_path: Path) -> None:
    plain = adapted(Mlp())
    train(plain, batch())
    plain.save_pretrained(str(tmp_path / "plain"))
    _set(tmp_path / "plain", bits=3)
    rounded = PeftModel.from_pretrained(Mlp(), str(tmp_path / "plain")).eval()
    assert not torch.equal(rounded(batch()), plain(batch()))
    rounded.save_pretrained(str(tmp_path / "packed"))
    _set(tmp_path / "packed", bits=None)
    full = PeftModel.from_pretrained(Mlp(), str(tmp_path / "packed")).eval()
    assert torch.equal(full(batch()), rounded(batch()))


def _set(folder: Path, **keys: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def test_two_adapters_of_which_one_is_rounded(tmp_path: Path) -> None:
    model = rounded_model("frozen_copy")
    first = model(batch())
    model.add_adapter("plain", QuantaConfig(circuit=LORA, target_modules=["q_proj"]))
    model.set_adapter("plain")
    train(model, batch())
    second = model(batch())
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(Mlp(), str(tmp_path)).eval()
    loaded.load_adapter(str(tmp_path / "plain"), adapter_name="plain")
    assert torch.equal(loaded(batch()), first)
    loaded.set_adapter("plain")
    assert torch.equal(loaded(batch()), second)
    assert {one.dtype for one in get_peft_model_state_dict(model, adapter_name="plain").values()} == {torch.float32}


@pytest.mark.parametrize("case", ["frozen_copy", "identity", "none", "input"])
def test_under_autocast_and_compiled_it_is_the_same_update(case: str) -> None:
    x, model = batch(), rounded_model(case, 4)
    expected = model(x)
    compiled: Any = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected, atol=1e-6)
    # Its gradient too.
    model.zero_grad()
    for each in (compiled, model):
        each(x).pow(2).sum().backward()
    grads = [{name: p.grad for name, p in each.named_parameters() if p.requires_grad} for each in (compiled, model)]
    for one, other in zip(*(each.values() for each in grads), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layers: list[Any] = list(circuit_layers(model).values())
        made = [layer.circuits("default")[0] for layer in layers]
        assert (model(x).float() - expected).norm() < 0.05 * expected.norm()
    for layer, tensors in zip(layers, made, strict=True):
        plain = layer.circuits("default")[0]
        assert all(torch.equal(tensor, plain[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("case", CASES)
def test_analyze_reads_packed_adapters(case: str, tmp_path: Path) -> None:
    model = rounded_model(case, 4)
    model.save_pretrained(str(tmp_path))
    read = read_adapter(tmp_path).updates
    for name, delta in updates(model).items():
        made: Any = read[name]
        layer: Any = circuit_layers(model)[f"base_model.model.{name}"]
        tensors = layer.circuits("default")[0]
        assert all(torch.equal(made.trained[gate], tensor.detach()) for gate, tensor in tensors.items())
        if layer.quanta_circuit_placement["default"] == "parallel":
            assert torch.allclose(made.matrix(torch.device("cpu")).float(), delta, atol=1e-5)
