"""Base layers that are no plain linear layers: weights in float8, partitioned, computed, offloaded, shared or codes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import QUANTA, Mlp, adapted, batch, circuit_layers, train
from peft import get_peft_model
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from quanta_compiler.peft import AdapterError, QuantaConfig

NOT_FOLDED = r"`residual='folded'` puts a weight in the place of the layer, and {}\nhint: take `frozen_copy`"


def refused(act: Callable[[], Any], model: nn.Module, message: str) -> None:
    """Check that something is refused, and that no weight has changed."""
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    with pytest.raises(AdapterError, match=message):
        act()
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def check_not_merged(model: Any, message: str) -> None:
    """Check that every way to merge is refused, and all layers named before any of them is merged."""
    expected = model.eval()(batch())
    layer = model.base_model.model.k_proj
    for merge in (model.merge_adapter, model.merge_and_unload, layer.merge):
        refused(merge, model, message)
        assert not any(adapted.merged for adapted in circuit_layers(model).values())
    torch.testing.assert_close(model(batch()), expected)


prune: Any = torch_prune
COMPUTED: dict[str, Any] = {
    "weight_norm": (
        parametrizations.weight_norm,
        "WeightNorm",
        r"remove_parametrizations\(layer, 'weight'\)",
        lambda layer: remove_parametrizations(layer, "weight"),
    ),
    "spectral_norm": (
        parametrizations.spectral_norm,
        "SpectralNorm",
        r"remove_parametrizations\(layer, 'weight'\)",
        lambda layer: remove_parametrizations(layer, "weight"),
    ),
    "old weight_norm": (
        old_weight_norm,
        "WeightNorm",
        r"remove_weight_norm\(layer\)",
        nn.utils.remove_weight_norm,
    ),
    "old spectral_norm": (
        old_spectral_norm,
        "SpectralNorm",
        r"remove_spectral_norm\(layer\)",
        nn.utils.remove_spectral_norm,
    ),
    "pruned": (
        lambda layer: prune.random_unstructured(layer, "weight", 0.4),
        "pruning, RandomUnstructured",
        r"prune\.remove\(layer, 'weight'\)",
        lambda layer: prune.remove(layer, "weight"),
    ),
    "pruned twice": (
        lambda layer: prune.l1_unstructured(prune.ln_structured(layer, "weight", 0.2, 2, 0), "weight", 0.2),
        "pruning, PruningContainer",
        r"prune\.remove\(layer, 'weight'\)",
        lambda layer: prune.remove(layer, "weight"),
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.*norm` is deprecated")
@pytest.mark.parametrize("kind", COMPUTED)
def test_a_weight_that_is_computed_takes_no_update(kind: str) -> None:
    wrap, what, remedy, remove = COMPUTED[kind]
    base = Mlp()
    wrap(base.k_proj)
    plain = base.eval()(batch())
    refused(
        lambda: adapted(base, residual="folded"),
        base,
        "k_proj: " + NOT_FOLDED.format(rf"its weight is computed anew in every forward pass \({what}\)"),
    )
    model = adapted(base)
    torch.testing.assert_close(model.eval()(batch()), plain)
    train(model, batch())
    trained = model(batch())
    assert not torch.allclose(trained, plain, atol=1e-3)
    check_not_merged(model, rf"(?s)merged:\nk_proj: its weight is computed anew .*\({what}\).*hint: call `.*{remedy}`")
    remove(model.base_model.model.k_proj.get_base_layer())
    torch.testing.assert_close(model.merge_and_unload()(batch()), trained, rtol=1e-4, atol=1e-5)


def in_float8(layer: nn.Module) -> None:
    """Store a layer in float8 and compute with it in bfloat16, as layerwise casting does."""
    layer.to(torch.float8_e4m3fn)
    layer.register_forward_pre_hook(lambda module, _: module.to(torch.bfloat16) and None)
    layer.register_forward_hook(lambda module, *_: module.to(torch.float8_e4m3fn) and None)


@pytest.mark.parametrize("widened", [True, False])
def test_beside_a_float8_weight_an_adapter_computes_in_more(widened: bool) -> None:
    base = Mlp()
    for layer in (base.q_proj, base.k_proj, base.o_proj):
        in_float8(layer)
    x = batch(torch.bfloat16)
    expected = base(x)
    message = "q_proj: " + NOT_FOLDED.format("its weight is float8_e4m3fn")
    refused(lambda: adapted(base, residual="folded"), base, message)
    config = QuantaConfig(circuit=QUANTA, target_modules=["q_proj", "k_proj", "o_proj"])
    behind = QuantaConfig(preset="oft:4", placement="output", target_modules=["q_proj", "k_proj", "o_proj"])
    for other in (dataclasses.replace(config, dora=True), behind):
        sibling = get_peft_model(copy.deepcopy(base), other)
        for mode in (True, False, False):
            assert torch.equal(sibling.train(mode)(x), expected)
    model = get_peft_model(base, config, autocast_adapter_dtype=widened)
    assert torch.equal(model(x), expected)
    train(model, x)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    layer = model.base_model.model.k_proj
    weight, delta = layer.get_base_layer().weight.float(), layer.get_delta_weight("default")
    assert delta.abs().max() > 0.01
    merged = model.merge_and_unload(safe_merge=True).k_proj.weight
    # Added in float32, and rounded once.
    assert torch.equal(merged.float(), (weight + delta).to(torch.float8_e4m3fn).float())


@pytest.mark.slow
def test_diffusers_may_cast_layers_before_and_after_they_are_adapted() -> None:
    hooks = pytest.importorskip("diffusers.hooks")

    def cast(model: nn.Module) -> None:
        keys = {"storage_dtype": torch.float8_e4m3fn, "compute_dtype": torch.bfloat16}
        hooks.apply_layerwise_casting(model, **keys, skip_modules_pattern=("quanta_circuit",))

    x = batch(torch.bfloat16)
    before = Mlp(torch.bfloat16)
    cast(before)
    models = [adapted(before), adapted(Mlp(torch.bfloat16))]
    cast(models[1])
    outputs = []
    for model in models:
        train(model, x)
        outputs.append(model(x))
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    torch.testing.assert_close(*outputs)


class Codes(nn.Linear):
    """A linear layer that stores whole numbers, and knows what they stand for."""

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype) -> None:
        super().__init__(in_features, out_features, bias=False)
        codes = (self.weight.detach() * 100).round().to(dtype)
        self.weight = nn.Parameter(codes, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) / 100)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e5m2])
def test_codes_that_only_the_layer_reads_are_not_merged(dtype: torch.dtype) -> None:
    base = Mlp()
    base.k_proj = Codes(24, 16, dtype)
    model = adapted(base)
    train(model, batch())
    name = str(dtype).removeprefix("torch.")
    check_not_merged(model, rf"k_proj: only a Codes knows what its {name} weight stands for\nhint: keep the adapter")
    # Nor are they the rows that a magnitude is over, or what a circuit before the layer multiplies.
    message = rf"k_proj: only a Codes knows what its {name} weight stands for\nhint: keep the adapter beside it"
    fresh = Mlp()
    fresh.k_proj = Codes(24, 16, dtype)
    refused(lambda: adapted(fresh, dora=True), fresh, message)
    placed = adapted(fresh, preset="oft:4", circuit=None, placement="input", target_modules=["k_proj"])
    with pytest.raises(AdapterError, match=message):
        placed.base_model.model.k_proj.get_delta_weight("default")


class Scaled(nn.Linear):
    """A linear layer that multiplies what it returns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Casting(nn.Linear):
    """A linear layer that computes in the dtype of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, self.weight.to(x.dtype), bias)


def test_a_layer_that_computes_more_than_its_weight_is_not_merged() -> None:
    base = Mlp()
    base.q_proj, base.k_proj = Casting(24, 24), Scaled(24, 16)
    model = adapted(base)
    train(model, batch())
    expected = model(batch())
    check_not_merged(
        model, r"merged:\nk_proj: a Scaled computes something else than W x \+ b.*\nhint: keep the adapter"
    )
    model.base_model.model.k_proj = model.base_model.model.k_proj.get_base_layer()
    expected = model(batch())
    torch.testing.assert_close(model.merge_and_unload()(batch()), expected)


def test_weights_made_in_inference_mode_are_merged_in_it_and_outside() -> None:
    with torch.inference_mode():
        base = Mlp()
    model = adapted(base, init_weights=False).eval()
    with torch.no_grad():
        expected = model(batch())
        model.merge_adapter()
        torch.testing.assert_close(model(batch()), expected)
        model.unmerge_adapter()
    with torch.inference_mode():
        torch.testing.assert_close(model.merge_and_unload()(batch()), expected)


def test_a_layer_without_sizes_is_refused_until_it_has_them() -> None:
    base = Mlp()
    base.k_proj = nn.LazyLinear(16)
    with pytest.raises(
        AdapterError, match=r"k_proj: a LazyLinear has no sizes before its first.*\nhint: call the model"
    ):
        adapted(base)
    assert not circuit_layers(base)
    base(batch())
    adapted(base)(batch())


@pytest.mark.parametrize("to", ["cpu", "disk"])
def test_offloaded_layers_are_trained_and_merged(to: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    device = torch.device("cpu")
    base, plain = Mlp(), adapted(Mlp())
    if to == "cpu":
        accelerate.cpu_offload(base, execution_device=device)
    else:
        accelerate.disk_offload(base, str(tmp_path), execution_device=device)
    assert base.q_proj.weight.is_meta
    with pytest.raises(AdapterError, match="q_proj: " + NOT_FOLDED.format("its weight is offloaded")):
        adapted(base, residual="folded")
    model = adapted(base)
    for trained in (model, plain):
        train(trained, batch())
    expected = plain(batch())
    torch.testing.assert_close(model(batch()), expected)
    with pytest.raises(AdapterError, match=r"k_proj: its weight is offloaded\nhint: merge and unmerge by the model"):
        model.base_model.model.k_proj.merge()
    model.merge_adapter()
    torch.testing.assert_close(model(batch()), expected)
    model.unmerge_adapter()
    torch.testing.assert_close(model.merge_and_unload()(batch()), expected)


def test_a_weight_that_others_hold_as_well_is_told_of_where_it_is_merged() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head, self.q_proj = nn.Embedding(16, 24), nn.Linear(24, 16, bias=False), nn.Linear(24, 24)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.q_proj(self.embed(tokens)))
            return result

    model = adapted(Tied(), target_modules=["head", "q_proj"], init_weights=False)
    message = r"merging changes head and embed: they share one weight\nhint: give the layer its own"
    with pytest.warns(UserWarning, match=message):
        model.merge_adapter()
    model.unmerge_adapter()
    head = model.base_model.model.head.get_base_layer()
    head.weight = nn.Parameter(head.weight.detach().clone())
    expected = model(torch.arange(16))
    torch.testing.assert_close(model.merge_and_unload()(torch.arange(16)), expected)
