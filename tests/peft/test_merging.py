"""Merging: in float32, added once, rounded once, and without a second matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import QUANTA, Mlp, adapted, batch, circuit_layers, train
from compiled_circuits import peak_bytes
from peft import convert_to_lora, get_peft_model
from random_circuits import error, file_of
from torch import nn
from transformers.pytorch_utils import Conv1D

from quanta_compiler.peft import AdapterError, QuantaConfig


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_merged_model_computes_the_same(dtype: torch.dtype, safe: bool) -> None:
    x = batch(dtype)
    model = adapted(Mlp(dtype))
    train(model, x)
    expected = model(x)
    tolerance = 8 * torch.finfo(dtype).eps * float(expected.detach().abs().max())
    model.merge_adapter(safe_merge=safe)
    assert torch.allclose(model(x), expected, rtol=0, atol=tolerance)
    model.unmerge_adapter()
    assert torch.allclose(model(x), expected, rtol=0, atol=tolerance)
    merged = model.merge_and_unload(safe_merge=safe)
    assert type(merged.q_proj) is nn.Linear
    assert torch.allclose(merged(x), expected, rtol=0, atol=tolerance)


def test_the_update_is_rounded_once() -> None:
    """A bfloat16 weight after merging is the float32 sum, rounded; not a sum of rounded parts."""
    model = adapted(Mlp(torch.bfloat16))
    train(model, batch(torch.bfloat16))
    for layer in circuit_layers(model).values():
        weight = layer.get_base_weight().clone()
        delta = layer.get_delta_weight("default")
        assert delta.dtype == torch.float32
        layer.merge()
        assert torch.equal(layer.get_base_weight(), (weight.float() + delta).bfloat16())


def test_a_weight_that_would_not_be_finite_is_refused_and_nothing_changed() -> None:
    model = adapted(Mlp())
    layer = next(iter(circuit_layers(model).values()))
    gates: Any = layer.quanta_circuit_delta["default"]
    gates["g0"].data[0, 0] = float("nan")
    before = layer.get_base_weight().clone()
    with pytest.raises(ValueError, match=r"NaNs detected in the merged weights\. The adapter default seems"):
        model.merge_and_unload(safe_merge=True)
    assert torch.equal(layer.get_base_weight(), before)
    assert not layer.merged


def test_it_is_told_which_layer_is_not_finite_and_that_those_before_it_are_merged() -> None:
    model = adapted(Mlp(), init_weights=False)
    first, second, *_ = layers = list(circuit_layers(model).values())
    gates: Any = second.quanta_circuit_delta["default"]
    gates["g0"].data[0, 0] = float("inf")
    with pytest.raises(
        ValueError, match=r"broken; k_proj is without it, and layers before this one are merged"
    ) as told:
        model.merge_adapter(safe_merge=True)
    assert "model.unmerge_adapter() takes the adapters out" in str(told.value)
    assert [layer.merged for layer in layers] == [True, *[False] * (len(layers) - 1)]
    with pytest.warns(UserWarning, match="Already unmerged"):
        model.unmerge_adapter()
    assert torch.allclose(first.get_base_weight(), Mlp().q_proj.weight, atol=1e-6)


def test_a_weight_on_the_meta_device_has_no_numbers_to_check() -> None:
    with torch.device("meta"):
        model = adapted(Mlp())
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(AdapterError, match=r"^q_proj: its weight is on the meta device.*\nhint: load the model's"):
            merge(safe_merge=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_merging_a_layer_takes_a_quarter_more_than_the_new_weight(dtype: torch.dtype) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(4096, 4096, bias=False, dtype=dtype)

    circuit = file_of("16x8x8x4", ["all_pairs"])
    model = adapted(Wide(), circuit=circuit, target_modules=["proj"], init_weights=False)
    layer: Any = next(iter(circuit_layers(model).values()))
    own = layer.get_base_weight().untyped_storage().nbytes()
    assert peak_bytes(model, None, lambda: layer.merge(safe_merge=False)) <= 1.25 * own


def test_conv1d_is_merged_in_its_own_orientation() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = Conv1D(36, 24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.c_attn(x)
            return result

    x = batch()
    for residual in ("frozen_copy", "folded"):
        base = Attention()
        before = base(x)
        model = adapted(base, circuit=None, target_modules=["c_attn"], residual=residual)
        assert torch.allclose(model(x), before, atol=1e-6)
        train(model, x)
        expected = model(x)
        layer = next(iter(circuit_layers(model).values()))
        assert layer.get_delta_weight("default").shape == (24, 36)
        assert torch.allclose(model.merge_and_unload()(x), expected, atol=1e-5)


def test_two_adapters_are_merged_and_taken_out_one_by_one() -> None:
    from quanta_compiler.peft import QuantaConfig

    x = batch()
    model = adapted(Mlp(), init_weights=False)
    model.add_adapter(
        "second", QuantaConfig(circuit=file_of({"auto": 2}, ["each"]), target_modules=["q_proj"], init_weights=False)
    )
    model.base_model.set_adapter(["default", "second"])
    expected = model(x)
    model.merge_adapter()
    assert torch.allclose(model(x), expected, atol=1e-5)
    model.unmerge_adapter()
    assert torch.allclose(model(x), expected, atol=1e-5)
    model.delete_adapter("second")
    assert not torch.allclose(model(x), expected, atol=1e-5)
    for layer in circuit_layers(model).values():
        assert list(layer.quanta_circuit_plan) == ["default"]


def test_two_folded_adapters_at_once_are_the_sum_of_both() -> None:
    from quanta_compiler.peft import QuantaConfig

    x = batch()
    config: dict[str, Any] = {
        "circuit": file_of("4x3x2", ["all_pairs"]),
        "target_modules": ["q_proj"],
        "init_weights": False,
    }
    results = []
    for residual in ("folded", "frozen_copy"):
        torch.manual_seed(1)
        model = adapted(Mlp(), residual=residual, **config)
        model.add_adapter("second", QuantaConfig(residual=residual, **config))
        model.base_model.set_adapter(["default", "second"])
        results.append(model(x))
    assert torch.allclose(results[0], results[1], atol=1e-5)


@pytest.mark.parametrize("residual", ["frozen_copy", "folded"])
def test_scales_are_set_and_taken_back(residual: str) -> None:
    x = batch()
    model = adapted(Mlp(), residual=residual, scale=0.5, target_modules=["o_proj"], init_weights=False)
    base, once = Mlp()(x), model(x)
    layer: Any = next(iter(circuit_layers(model).values()))
    layer.scale_layer(3.0)
    assert torch.allclose(model(x) - base, 3 * (once - base), atol=1e-5)
    layer.unscale_layer(3.0)
    assert torch.allclose(model(x), once, atol=1e-6)
    layer.set_scale("default", 2.0)
    assert torch.allclose(model(x) - base, 2 * (once - base), atol=1e-5)
    layer.unscale_layer()
    assert torch.allclose(model(x), once, atol=1e-6)


def test_conversion_to_lora_keeps_a_low_rank_update() -> None:
    circuit = file_of(24, [{"axes": [0], "kind": "lowrank", "rank": 2}])
    model = adapted(Mlp(), circuit=circuit, residual="none", init_weights=False)
    _, state = convert_to_lora(model, rank=2)
    for name, layer in circuit_layers(model).items():
        factors = [state[f"{name}.lora_{side}.weight"] for side in "BA"]
        assert torch.allclose(factors[0] @ factors[1], layer.get_delta_weight("default"), atol=1e-5)


def test_without_autocast_the_copy_is_folded_as_it_is_applied() -> None:
    layers = []
    for residual in ("folded", "frozen_copy"):
        config = QuantaConfig(circuit=QUANTA, target_modules=["q_proj"], residual=residual)
        model: Any = get_peft_model(Mlp(torch.bfloat16), config, autocast_adapter_dtype=False)
        layers.append(next(iter(circuit_layers(model).values())))
    folded, plain = layers
    copy = plain.circuits("default")[1]
    assert copy is not None
    assert all(torch.equal(tensor, copy[name]) for name, tensor in (folded.circuits("default")[1] or {}).items())
    fitted = plain.quanta_circuit_plan["default"]
    operator = fitted.apply(copy, torch.eye(24)).T
    weight: Any = folded.get_base_layer()
    expected = (weight.weight.float() - operator).bfloat16()
    weight = folded.folded_weight("default")
    assert torch.allclose(weight, expected, rtol=0, atol=2**-12)


def test_a_weight_is_folded_only_while_nothing_is_merged_into_it() -> None:
    x = batch()
    model = adapted(Mlp(), init_weights=False)
    folded = QuantaConfig(circuit=QUANTA, target_modules=["q_proj"], residual="folded")
    model.merge_adapter()
    model.add_adapter("second", folded)
    model.unmerge_adapter()
    model.set_adapter("second")
    assert torch.allclose(model(x), Mlp()(x), atol=1e-5)


@pytest.mark.parametrize("residual", ["frozen_copy", "folded"])
def test_a_scale_that_changes_while_merged_is_not_unmerged_with(residual: str) -> None:
    x = batch()
    model = adapted(Mlp(), init_weights=False, residual=residual)
    expected = model(x)
    model.merge_adapter()
    for layer in circuit_layers(model).values():
        layer.set_scale("default", 3.0)
    model.load_state_dict(model.state_dict())
    model.unmerge_adapter()
    for layer in circuit_layers(model).values():
        layer.set_scale("default", 1.0)
    assert torch.allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("moved", [0.1, 0.01, 0.001])
def test_autocast_does_not_round_the_two_circuits_apart(moved: float) -> None:
    """T x - S x is a small difference of large numbers: in bfloat16 it would be noise."""
    x = batch()
    model = adapted(Mlp(), target_modules=["q_proj"])
    layer: Any = next(iter(circuit_layers(model).values()))
    generator = torch.Generator().manual_seed(3)
    for gate in layer.quanta_circuit_delta["default"].values():
        gate.data += moved * torch.randn(gate.shape, generator=generator) / gate.shape[-1] ** 0.5
    exact = layer._update("default", x, with_copy=True).detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert error(layer._update("default", x.bfloat16().float(), with_copy=True).detach(), exact) < 0.01


@pytest.mark.parametrize("safe", [True, False])
def test_safe_merging_takes_no_more_memory(safe: bool) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(4096, 4096, bias=False)

    model = adapted(Wide(), circuit=file_of("16x16x16", ["all_pairs"]), target_modules=["proj"], init_weights=False)
    layer: Any = next(iter(circuit_layers(model).values()))
    own = layer.get_base_weight().untyped_storage().nbytes()
    assert peak_bytes(model, None, lambda: layer.merge(safe_merge=safe)) <= 1.25 * own
