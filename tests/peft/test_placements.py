"""Circuits that begin as the identity: beside a layer, before it and behind it, held against dense matrices."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import QUANTA, Mlp, adapted, batch, circuit_layers, train
from peft import PeftModel, get_peft_model
from random_circuits import file_of
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.peft import AdapterError, QuantaConfig

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
PLACEMENTS = ["parallel", "input", "output"]
IDENTITY = file_of("4x3x2", ["all_pairs"], init="identity")
MIXED = {
    "version": 1,
    "name": "mixed",
    "layout": "4x3x2",
    "gates": [
        {"axes": [0], "kind": "pauli", "layers": 2},
        {"axes": [1, 2], "kind": "orthogonal", "map": "cayley"},
        {"axes": [0, 2], "kind": "diagonal", "init": "identity"},
        {"axes": [1], "per": [0], "init": "identity"},
        {"axes": [1, 2], "share": "g1", "transpose": True},
        {"axes": [0, 1], "init": "identity", "frozen": True},
    ],
}
PADDED = file_of("5x5", ["all_pairs"], init="identity")
CIRCUITS = {"dense": IDENTITY, "mixed": MIXED, "padded": PADDED}


def placed(model: nn.Module, placement: str, circuit: Any = IDENTITY, **keys: Any) -> Any:
    # Of 24 features, as the circuits are: the input of q_proj and k_proj, the output of o_proj.
    targets = {"parallel": ["q_proj"], "input": ["q_proj", "k_proj"], "output": ["q_proj", "o_proj"]}[placement]
    return adapted(model, placement=placement, circuit=circuit, target_modules=targets, **keys)


def changed(layer: Any, adapter: str, weight: torch.Tensor) -> Any:
    """Return what an adapter makes of a weight, `[out, in]`, by dense matrices."""
    fitted = layer.quanta_circuit_plan[adapter]
    tensors = {name: tensor.detach().double() for name, tensor in layer.circuits(adapter)[0].items()}
    operator = fitted.apply(tensors, torch.eye(fitted.in_features, dtype=torch.float64), "torch").T
    scale, placement = layer.quanta_circuit_scale[adapter], layer.quanta_circuit_placement[adapter]
    step = scale * (operator - torch.eye(len(operator), dtype=torch.float64))
    if placement == "parallel":
        return weight + step
    return weight + (weight @ step if placement == "input" else step @ weight)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_start_is_exact_in_every_dtype(placement: str, circuit: str, dtype: torch.dtype) -> None:
    x, base = batch(dtype), Mlp(dtype)
    model = placed(copy.deepcopy(base), placement, CIRCUITS[circuit])
    assert torch.equal(model(x), base(x))
    layers: list[Any] = list(circuit_layers(model).values())
    assert {layer.quanta_circuit_residual["default"] for layer in layers} == {"identity"}
    merged = model.merge_and_unload()
    assert torch.equal(merged(x), base(x))


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_trained_it_is_the_dense_formula_and_so_are_the_merged_weight_and_the_update(
    placement: str, circuit: str, scale: float
) -> None:
    base = Mlp()
    model = placed(copy.deepcopy(base), placement, CIRCUITS[circuit], scale=scale)
    train(model, batch(), steps=4)
    x = batch().double()
    layers: dict[str, Any] = dict(circuit_layers(model))
    for name, layer in layers.items():
        plain: Any = base.get_submodule(name.rpartition(".")[2]).double()
        expected = changed(layer, "default", plain.weight)
        assert (expected - plain.weight).norm() > 0.01 * plain.weight.norm()
        rows = x[:, : plain.in_features]
        right = nn.functional.linear(rows, expected, plain.bias)
        assert torch.allclose(layer(rows.float()).double(), right, atol=1e-5)
        assert torch.allclose(layer.get_delta_weight("default").double(), expected - plain.weight, atol=1e-5)
        before = layer.base_layer.weight.detach().clone()
        layer.merge(safe_merge=True)
        assert torch.allclose(layer.base_layer.weight.double(), expected, atol=1e-5)
        layer.unmerge()
        assert torch.allclose(layer.base_layer.weight, before, atol=1e-5)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_autocast_rounds_no_weight_as_an_adapter_is_merged_and_taken_out(placement: str) -> None:
    model, x = placed(Mlp(), placement), batch()
    train(model, x, steps=4)
    layers: list[Any] = list(circuit_layers(model).values())
    before = [layer.base_layer.weight.detach().clone() for layer in layers]
    with torch.autocast("cpu", torch.bfloat16):
        model.merge_adapter()
        with model.disable_adapter():
            model(x)
    for layer, weight in zip(layers, before, strict=True):
        assert not layer.merged
        assert torch.allclose(layer.base_layer.weight, weight, atol=1e-6)


def test_what_trains_is_zero_at_the_start_and_nothing_is_kept_beside_it() -> None:
    model = placed(Mlp(), "input", MIXED)
    layers: list[Any] = list(circuit_layers(model).values())
    for layer in layers:
        assert not any(tensor.any() for tensor in layer.quanta_circuit_delta["default"].values())
        # The frozen gate alone, which the file fixes.
        assert list(layer.quanta_circuit_frozen["default"]._parameters) == ["g5"]
    # Weight decay pulls to the base model, and rounding what trains rounds the update alone.
    model.to(torch.bfloat16)
    assert torch.equal(model(batch(torch.bfloat16)), Mlp(torch.bfloat16)(batch(torch.bfloat16)))


def test_gradients_are_those_of_the_dense_formula() -> None:
    model, x = placed(Mlp(), "input"), batch()
    layer: Any = circuit_layers(model)["base_model.model.q_proj"]
    layer(x).pow(2).sum().backward()
    found = layer.quanta_circuit_delta["default"]["g0"].grad
    weight, bias = layer.base_layer.weight.double(), layer.base_layer.bias.double()
    gates = [g.detach().double() for g in layer.circuits("default")[0].values()]
    gates[0].requires_grad_()
    fitted = layer.quanta_circuit_plan["default"]
    tensors = dict(zip(fitted.trained, gates, strict=True))
    operator = fitted.apply(tensors, torch.eye(24, dtype=torch.float64), "torch").T
    loss: Any = (x.double() @ operator.T @ weight.T + bias).pow(2).sum()
    loss.backward()
    expected: Any = gates[0].grad
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_saved_and_loaded_it_computes_the_same(placement: str, tmp_path: Path) -> None:
    model = placed(Mlp(), placement)
    train(model, batch())
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(Mlp(), tmp_path)
    assert loaded.peft_config["default"].placement == placement
    assert torch.equal(loaded(batch()), model(batch()))
    other = PeftModel.from_pretrained(Mlp(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(other(batch()), model(batch()))


@pytest.mark.parametrize("order", [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]])
def test_adapters_of_all_placements_together_do_what_merging_them_in_order_does(order: list[str]) -> None:
    model = adapted(Mlp(), circuit=QUANTA, target_modules=["q_proj"], residual="folded")
    tuner = model.base_model
    for name, placement in {"a": "parallel", "b": "input", "c": "output"}.items():
        model.add_adapter(name, QuantaConfig(circuit=IDENTITY, placement=placement, target_modules=["q_proj"]))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "_delta" in key:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    for active in (order, [*order, "default"], ["default", *order]):
        tuner.set_adapter(active)
        layer: Any = circuit_layers(model)["base_model.model.q_proj"]
        x, weight = batch(), layer.base_layer.weight.detach().clone()
        expected = layer(x)
        layer.merge(adapter_names=active)
        assert torch.allclose(layer.base_layer(x), expected, atol=1e-4 * float(expected.detach().abs().max()))
        layer.unmerge()
        assert torch.allclose(layer.base_layer.weight, weight, atol=1e-3)


def test_a_layer_that_stores_its_weight_the_other_way_round_is_merged_alike() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = Conv1D(16, 24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.proj(x)  # type: ignore[no-any-return]

    for placement, circuit in (("input", IDENTITY), ("output", file_of("4x4", ["all_pairs"], init="identity"))):
        config = QuantaConfig(circuit=circuit, placement=placement, target_modules=["proj"], init_weights=False)
        model: Any = get_peft_model(Model(), config)
        expected = model(batch())
        assert torch.allclose(model.merge_and_unload()(batch()), expected, atol=1e-4)


def test_dropout_drops_what_the_circuit_reads_and_not_the_input() -> None:
    model = placed(Mlp(), "input", dropout=0.5)
    model.train()
    # At the start T x - x is zero whatever is dropped.
    assert torch.equal(model(batch()), Mlp()(batch()))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"placement": "before"}, "`placement` is one of parallel, input, output, got 'before'"),
        ({"placement": "input", "residual": "folded"}, "has no residual 'folded'\nhint: leave `residual` out"),
    ],
)
def test_wrong_values_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantaConfig(**keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"circuit": QUANTA}, r"q_proj \(24 -> 24\): `placement='input'` is for circuits .* gate 'g0' begins by `init"),
        ({"circuit": file_of("4x3", [[0, 1]], init="identity")}, "fewer than 24 numbers"),
        ({"circuit": file_of("16", [[0]], init="identity", in_features=16)}, "written for inputs of 16"),
        ({"circuit": {"version": 1, "name": "a", "preset": "lora"}}, r"begins as something else[\s\S]*`preset='oft'`"),
        (
            {"placement": "parallel", "residual": "identity", "target_modules": ["q_proj", "k_proj"]},
            r"k_proj \(24 -> 16\): `residual='identity'` .* no square circuit \(24 -> 16\)",
        ),
    ],
)
def test_circuits_that_cannot_sit_there_are_refused_before_anything_changes(keys: dict[str, Any], message: str) -> None:
    model = Mlp()
    before = [name for name, _ in model.named_modules()]
    keys = {"circuit": IDENTITY, "placement": "input", "target_modules": ["q_proj"], **keys}
    with pytest.raises(AdapterError, match=message):
        adapted(model, **keys)
    assert [name for name, _ in model.named_modules()] == before
