"""`dora`: a trained magnitude over the rows of W + update, held against PEFT's DoRA and the dense formula."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers, train
from peft import LoraConfig, PeftModel, get_peft_model
from random_circuits import file_of
from test_quantized import ROUNDING, fresh, run
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.diagnostics import SpecError
from quanta_compiler.peft import AdapterError, QuantaConfig
from quanta_compiler.peft.weights import read_weight

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
IDENTITY = file_of("4x3x2", ["all_pairs"], init="identity")
RESIDUALS: dict[str, dict[str, Any]] = {
    "copy": {"circuit": QUANTA},
    "folded": {"circuit": QUANTA, "residual": "folded"},
    "identity": {"circuit": IDENTITY, "target_modules": ["q_proj"]},
    "none": {"circuit": LORA},
}


def magnitudes(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if "quanta_circuit_magnitude" in name}


def move(model: nn.Module, seed: int = 3) -> None:
    """Move every trained tensor, the magnitudes too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            step = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.data = parameter.data + 0.1 * step


def dense(layer: Any, weight: torch.Tensor, adapter: str = "default") -> torch.Tensor:
    """Return m (W + update) / norm in float64."""
    moved = weight.double()
    for place, block in layer.delta_blocks(adapter, layer.quanta_circuit_scale[adapter]):
        moved[place] += block.double()
    magnitude = layer.quanta_circuit_magnitude[adapter].detach().double()
    scaled: torch.Tensor = moved * (magnitude / moved.norm(dim=1))[:, None]
    return scaled


def lora_pair(base: nn.Module, dropout: float = 0.0) -> tuple[Any, Any]:
    """Return PEFT's DoRA and ours with the same numbers, all moved."""
    targets = ["q_proj", "k_proj", "o_proj"]
    keys: dict[str, Any] = {"r": 3, "lora_alpha": 6, "lora_dropout": dropout, "use_dora": True}
    theirs = get_peft_model(copy.deepcopy(base), LoraConfig(target_modules=targets, init_lora_weights=False, **keys))
    ours = adapted(copy.deepcopy(base), circuit=None, preset="lora:3", scale=2.0, dropout=dropout, dora=True)
    move(theirs)
    state = theirs.state_dict()
    with torch.no_grad():
        for name, layer in circuit_layers(ours).items():
            own: Any = layer
            own.quanta_circuit_gates["default"]["g0-A"].copy_(state[f"{name}.lora_A.default.weight"])
            own.quanta_circuit_gates["default"]["g0-B"].copy_(state[f"{name}.lora_B.default.weight"])
            magnitude = own.quanta_circuit_magnitude["default"]
            magnitude.copy_(state[f"{name}.lora_magnitude_vector.default.weight"])
    return theirs, ours


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_lora_with_it_is_pefts_dora_forward_backward_and_merged(dropout: float) -> None:
    theirs, ours = lora_pair(Mlp(), dropout)
    x, inputs = batch(), [batch().requires_grad_() for _ in range(2)]
    for model, own in zip((theirs, ours), inputs, strict=True):
        model.train()
        torch.manual_seed(1)
        model(own).pow(2).sum().backward()
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-5)
    state = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    grads = [p.grad for p in magnitudes(ours).values()]
    expected = [grad for name, grad in state.items() if "magnitude" in name]
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-5)
    for part in "AB":
        grads = [p.grad for name, p in ours.named_parameters() if name.endswith(f"g0-{part}")]
        expected = [grad for name, grad in state.items() if f"lora_{part}" in name]
        torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)
    merged = [model.merge_and_unload().state_dict() for model in (theirs, ours)]
    torch.testing.assert_close(merged[1], merged[0], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("residual", RESIDUALS)
def test_the_start_is_exact_and_the_magnitudes_are_the_norms(residual: str, dtype: torch.dtype) -> None:
    base, x = Mlp(dtype), batch(dtype)
    model = adapted(copy.deepcopy(base), dora=True, **RESIDUALS[residual])
    for mode in (True, False):
        result = model.train(mode)(x)
        if residual == "folded":
            torch.testing.assert_close(result, base(x), rtol=2e-2, atol=2e-2)
        else:
            assert torch.equal(result, base(x))
    for name, magnitude in magnitudes(model).items():
        weight = base.get_parameter(name.split(".")[2] + ".weight")
        torch.testing.assert_close(magnitude.detach().double(), weight.detach().double().norm(dim=1), rtol=1e-6, atol=0)
        assert magnitude.requires_grad
    assert model.get_nb_trainable_parameters()[0] > sum(p.numel() for p in magnitudes(model).values())


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("residual", RESIDUALS)
def test_trained_it_is_the_dense_formula_and_merging_keeps_and_unmerging_restores_it(
    residual: str, scale: float
) -> None:
    base, x = Mlp(), batch()
    model = adapted(copy.deepcopy(base), dora=True, scale=scale, **RESIDUALS[residual])
    train(model, x)
    move(model)
    expected = copy.deepcopy(base).double()
    for name, layer in circuit_layers(model).items():
        own: Any = layer
        short = name.rpartition(".")[2]
        weight: torch.Tensor = base.get_parameter(f"{short}.weight").detach()
        matrix = dense(own, weight)
        expected.get_parameter(f"{short}.weight").data = matrix
        torch.testing.assert_close(own.get_delta_weight("default").double(), matrix - weight, rtol=1e-4, atol=1e-6)
    beside = model(x)
    torch.testing.assert_close(beside.double(), expected(x.double()), rtol=1e-4, atol=1e-5)
    assert torch.equal(model(x), beside)
    before = {name: layer.get_delta_weight("default") for name, layer in circuit_layers(model).items()}
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(x), beside, rtol=1e-4, atol=1e-5)
    for name, layer in circuit_layers(model).items():
        torch.testing.assert_close(layer.get_delta_weight("default"), before[name], rtol=1e-3, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(model(x), beside, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        model.merge_and_unload().state_dict(), expected.float().state_dict(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
def test_several_adapters_act_one_after_the_other_as_merging_them_does() -> None:
    base, x = Mlp(), batch()
    model = adapted(copy.deepcopy(base), dora=True, init_weights=False)
    targets: dict[str, Any] = {"target_modules": ["q_proj", "o_proj"], "init_weights": False}
    model.add_adapter("plain", QuantaConfig(circuit=LORA, **targets))
    model.add_adapter("second", QuantaConfig(circuit=LORA, dora=True, **targets))
    for order in (["default", "plain", "second"], ["second", "plain", "default"]):
        model.base_model.set_adapter(order)
        move(model)
        beside = model(x)
        model.merge_adapter(order)
        torch.testing.assert_close(model(x), beside, rtol=1e-3, atol=1e-4)
        model.unmerge_adapter()
        torch.testing.assert_close(model(x), beside, rtol=1e-3, atol=1e-4)
    layer: Any = circuit_layers(model)["base_model.model.q_proj"]
    torch.testing.assert_close(layer.get_base_layer().weight, base.q_proj.weight, rtol=1e-4, atol=1e-6)
    layer.merge(adapter_names=["plain"])
    model.add_adapter("late", QuantaConfig(circuit=LORA, dora=True, target_modules=["q_proj"]))
    norms = layer.quanta_circuit_magnitude["late"]
    torch.testing.assert_close(norms.detach(), base.q_proj.weight.detach().norm(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("low_memory", [False, True])
def test_it_is_saved_and_loaded_with_its_magnitudes(tmp_path: Path, low_memory: bool) -> None:
    base, x = Mlp(), batch()
    model = adapted(copy.deepcopy(base), dora=True)
    train(model, x)
    move(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, low_cpu_mem_usage=low_memory)
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    assert torch.equal(loaded(x), model(x))
    clone = copy.deepcopy(model)
    assert torch.equal(clone(x), model(x))
    with pytest.raises(SpecError, match="`dora` is set: the update is not that of the circuits alone"):
        read_adapter(tmp_path)
    plain = adapted(Mlp())
    with pytest.raises(AdapterError, match=r"q_proj: magnitude.default is saved, and the configuration"):
        plain.load_state_dict(model.state_dict())
    model.add_adapter("other", QuantaConfig(circuit=QUANTA, dora=True, target_modules=["q_proj"]))
    model.delete_adapter("default")
    assert [name for name in magnitudes(model) if "default" in name] == []


def test_a_row_of_zeros_stays_finite_and_a_magnitude_of_zero_is_not_divided_out() -> None:
    base = Mlp()
    base.q_proj.weight.data[3] = 0
    model, x = adapted(copy.deepcopy(base), dora=True, target_modules=["q_proj"]), batch()
    assert torch.equal(model(x), base(x))
    model(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    train(model, x)
    layer: Any = circuit_layers(model)["base_model.model.q_proj"]
    layer.quanta_circuit_magnitude["default"].data[0] = 0
    model.merge_adapter()
    with pytest.raises(AdapterError, match="q_proj: a magnitude of 'default' is zero"):
        model.unmerge_adapter()


def test_a_conv1d_has_one_for_each_output() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = Conv1D(16, 24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.proj(x)
            return result

    base, x = Two(), batch()
    model: Any = get_peft_model(
        copy.deepcopy(base), QuantaConfig(preset="lora:2", dora=True, target_modules=["proj"], init_weights=False)
    )
    move(model)
    layer: Any = circuit_layers(model)["base_model.model.proj"]
    weight: torch.Tensor = base.proj.weight.detach()
    expected = x @ dense(layer, weight.T).float().T + base.proj.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.merge_and_unload()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bnb_int8", "bnb_nf4", "ao_int8"])
def test_beside_a_quantized_weight_the_norms_are_those_of_what_it_stands_for(kind: str, tmp_path: Path) -> None:
    base = fresh(kind, tmp_path)
    expected = run(base)
    model: Any = get_peft_model(base, QuantaConfig(target_modules=["q_proj", "o_proj"], dora=True, scale=4.0))
    assert torch.equal(run(model), expected)
    model.state_dict()
    move(model)
    beside, deltas = run(model), {}
    for name, layer in circuit_layers(model).items():
        own: Any = layer
        weight = read_weight(own).float()
        deltas[name] = dense(own, weight).float() - weight
        torch.testing.assert_close(own.get_delta_weight("default"), deltas[name], rtol=1e-3, atol=1e-5)
        x = torch.randn(5, own.in_features, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            expected = own.get_base_layer()(x) + x @ deltas[name].T
            assert (own(x) - expected).norm() < 0.02 * expected.norm()
    model.merge_adapter(safe_merge=True)
    assert (run(model) - beside).norm() < 2 * ROUNDING[kind] * beside.norm()


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
def test_where_it_does_not_go_it_says_so() -> None:
    with pytest.raises(ValueError, match=r"`dora` is a magnitude over W \+ update, and `placement='input'`.*\nhint: "):
        QuantaConfig(circuit=IDENTITY, dora=True, placement="input")
    with pytest.raises(ValueError, match="`dora` is True or False, got 1"):
        QuantaConfig(circuit=IDENTITY, dora=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`use_dora` is `dora`"):
        QuantaConfig(use_dora=True)
    model = adapted(Mlp(), dora=True).eval()
    model.add_adapter("plain", QuantaConfig(circuit=QUANTA, target_modules=["q_proj"]))
    with pytest.raises(AdapterError, match=r"when DoRA is enabled. It is for default\nhint: call the model on"):
        model(batch(), adapter_names=["plain"] * 3 + ["default"] * 4)
    assert model(batch(), adapter_names=["plain"] * 3 + ["__base__"] * 4).shape == (7, 24)
    for names in (["default"], ["plain", "default"]):
        with pytest.raises(AdapterError, match=r"q_proj: 'default' has a magnitude over the rows .*\(`dora`\)"):
            model.add_weighted_adapter(names, [1.0] * len(names), "sum")
    offloaded = Mlp()
    offloaded.q_proj._hf_hook = type("Hook", (), {"offload": True, "execution_device": None})()
    with pytest.raises(AdapterError, match=r"q_proj: `dora` reads the base weight .*offloaded\nhint: leave `dora` out"):
        adapted(offloaded, dora=True)
    assert not circuit_layers(offloaded)
