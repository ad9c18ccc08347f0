"""Adapters beside quantized weights: bitsandbytes in 8 and 4 bits, torchao in 8 and 4, and layers that only run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from quanta_compiler.peft import AdapterError, QuantaCircuitLinear, QuantaConfig
from quanta_compiler.peft.weights import read_weight

TARGETS = ["q_proj", "o_proj"]
ROUNDING = {"bnb_int8": 0.01, "bnb_nf4": 0.12, "ao_int8": 0.01, "ao_int4": 0.14}
"""How far a quantized random matrix is from the matrix, in the Frobenius norm, relative to the matrix.

Measured on normally distributed weights, 64 x 128: 0.0065, 0.092, 0.0065 and 0.11; the rest is margin.
"""


class Pair(nn.Module):
    """Two linear layers of a given type, 64 -> 128 -> 64; bitsandbytes quantizes in blocks of 64."""

    def __init__(self, linear: Callable[[int, int], Any]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.q_proj, self.o_proj = linear(64, 128), linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.o_proj(torch.tanh(self.q_proj(x)))
        return result


class OnlyRuns(nn.Module):
    """A quantized layer as GPTQ has them: whole numbers, and no floating `weight` at all."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("qweight", torch.randint(-7, 8, (out_features, in_features), dtype=torch.int32))
        self.register_buffer("scales", torch.full((out_features, 1), 0.05))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, (self.get_buffer("qweight") * self.get_buffer("scales")).to(x.dtype))


def bitsandbytes_pair(kind: str) -> Pair:
    """Return the two layers quantized by bitsandbytes; moving them to a device is what quantizes them."""
    bnb = pytest.importorskip("bitsandbytes")

    def linear(in_features: int, out_features: int) -> Any:
        if kind == "bnb_int8":
            return bnb.nn.Linear8bitLt(in_features, out_features, has_fp16_weights=False)
        return bnb.nn.Linear4bit(in_features, out_features, quant_type="nf4", compute_dtype=torch.float32)

    return Pair(linear).to("cpu")


def torchao_llama(kind: str, folder: Path) -> Any:
    """Return a tiny Llama quantized by torchao while it is loaded, as PEFT needs it to quantize it again."""
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    if not (folder / "config.json").exists():
        sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 16}
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, initializer_range=0.2)).save_pretrained(folder)
    if kind == "ao_int8":
        scheme = quantization.Int8WeightOnlyConfig()
    else:
        four_bits = vars(torch)["int4"]
        scheme = quantization.IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=quantization.PerAxis(0))
    return LlamaForCausalLM.from_pretrained(
        folder, quantization_config=TorchAoConfig(scheme), device_map="cpu", dtype=torch.float32
    )


@pytest.fixture(params=["bnb_int8", "bnb_nf4", "ao_int8", "ao_int4"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return a library and a format."""
    return str(request.param)


@pytest.fixture
def base(kind: str, tmp_path: Path) -> Any:
    """Return a quantized model with the layers TARGETS."""
    return fresh(kind, tmp_path)


def fresh(kind: str, folder: Path) -> Any:
    """Return the quantized model of a kind, the same every time."""
    return bitsandbytes_pair(kind) if kind.startswith("bnb") else torchao_llama(kind, folder / "base")


def run(model: Any) -> torch.Tensor:
    """Return a model's output for inputs that are the same every time."""
    model.eval()
    first = next(module for name, module in model.named_modules() if name.endswith("q_proj"))
    with torch.no_grad():
        if hasattr(model, "config") and hasattr(model, "generate"):
            logits: torch.Tensor = model(torch.arange(14).reshape(2, 7)).logits
            return logits
        generator = torch.Generator().manual_seed(3)
        result: torch.Tensor = model(torch.randn(8, first.in_features, generator=generator))
        return result


def adapted(base: Any, **keys: Any) -> Any:
    """Return the model with adapters on TARGETS."""
    return get_peft_model(base, QuantaConfig(target_modules=TARGETS, **keys))


def train(model: Any) -> None:
    """Take a few steps that move every trained tensor."""
    model.train()
    # On some CPUs bitsandbytes packs 4-bit weights for inference, and then cannot train beside them; saving unpacks.
    model.state_dict()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.1)
    for _ in range(4):
        with torch.enable_grad():
            if hasattr(model.base_model.model, "lm_head"):
                tokens = torch.arange(14).reshape(2, 7)
                loss = model(tokens, labels=tokens).loss
            else:
                loss = model(torch.ones(3, 64)).pow(2).mean()
            loss.backward()
        assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in trained)
        optimizer.step()
        optimizer.zero_grad()


def layers(model: Any) -> dict[str, QuantaCircuitLinear]:
    """Return the adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantaCircuitLinear)}


def plain_weight(layer: QuantaCircuitLinear) -> torch.Tensor:
    """Return the weight of a quantized layer in float32, [out_features, in_features]."""
    return layer.get_base_weight().detach().float().clone()


@pytest.mark.parametrize("residual", ["auto", "frozen_copy"])
def test_the_adapter_begins_as_the_quantized_model_and_can_be_left_out(base: Any, residual: str) -> None:
    expected = run(base)
    model = adapted(base, residual=residual)
    assert len(layers(model)) == 2
    assert torch.equal(run(model), expected)
    train(model)
    assert not torch.allclose(run(model), expected, rtol=0, atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(run(model), expected)
    assert torch.equal(run(model.unload()), expected)


def test_the_update_is_added_to_what_the_quantized_layer_returns(base: Any) -> None:
    model = adapted(base, residual="none")
    for layer in layers(model).values():
        x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            expected = layer.get_base_layer()(x) + x @ layer.get_delta_weight("default").T
            torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_merging_and_unmerging_err_by_the_quantization_alone(base: Any, kind: str) -> None:
    model = adapted(base, scale=4.0)
    train(model)
    before = {name: plain_weight(layer) for name, layer in layers(model).items()}
    model.merge_adapter(safe_merge=True)
    for name, layer in layers(model).items():
        delta = layer.get_delta_weight("default")
        expected = before[name] + delta
        # The update is larger than that error, or nothing would be seen here.
        assert delta.norm() > 2 * ROUNDING[kind] * expected.norm()
        assert (plain_weight(layer) - expected).norm() < ROUNDING[kind] * expected.norm()
    model.unmerge_adapter()
    for name, layer in layers(model).items():
        merged_norm = (before[name] + layer.get_delta_weight("default")).norm()
        error = (plain_weight(layer) - before[name]).norm()
        assert error < ROUNDING[kind] * (merged_norm + before[name].norm())


@pytest.mark.parametrize("infer_first", [False, True])
def test_a_merged_model_stays_quantized(base: Any, kind: str, infer_first: bool) -> None:
    model = adapted(base, scale=4.0)
    train(model)
    weights = {name: plain_weight(layer) for name, layer in layers(model).items()}
    deltas = {name: layer.get_delta_weight("default") for name, layer in layers(model).items()}
    types = {name: type(layer.get_base_layer().weight) for name, layer in layers(model).items()}
    if infer_first:
        # bitsandbytes packs a 4-bit weight in another order when it is first used for inference on some CPUs.
        run(model.eval())
    merged = model.merge_and_unload(safe_merge=True)
    for name, weight in weights.items():
        layer = merged.get_submodule(name.removeprefix("base_model.model."))
        assert type(layer.weight) is types[name]
        # Multiplied out by the library itself, which rounds to bfloat16 or to 8 bits for it.
        with torch.no_grad():
            computed = layer(torch.eye(layer.in_features)) - (0 if layer.bias is None else layer.bias)
        expected = (weight + deltas[name]).T
        assert (computed - expected).norm() < (ROUNDING[kind] + 0.01) * expected.norm()


def test_scales_that_are_not_quantized_survive_inference_before_merging() -> None:
    """bitsandbytes turns them over where it packs a weight for inference, and does not turn them back."""
    bnb = pytest.importorskip("bitsandbytes")

    def linear(in_features: int, out_features: int) -> Any:
        options: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": False, "compute_dtype": torch.float32}
        return bnb.nn.Linear4bit(in_features, out_features, **options)

    model = adapted(Pair(linear).to("cpu"))
    before = {name: plain_weight(layer) for name, layer in layers(model).items()}
    run(model)
    for name, layer in layers(model).items():
        # Packing rounds the scales to bfloat16.
        assert torch.linalg.norm(read_weight(layer) - before[name]) < 0.003 * torch.linalg.norm(before[name])


def test_a_saved_adapter_is_loaded_beside_the_quantized_weight(base: Any, kind: str, tmp_path: Path) -> None:
    model = adapted(base)
    train(model)
    expected = run(model)
    model.save_pretrained(str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(fresh(kind, tmp_path), str(tmp_path / "adapter"))
    assert torch.equal(run(loaded), expected)


def test_folding_is_refused_and_the_model_is_left_alone(base: Any) -> None:
    expected, modules = run(base), list(base.modules())
    grads = [parameter.requires_grad for parameter in base.parameters()]
    with pytest.raises(
        AdapterError,
        match=r"(?s)q_proj: `residual='folded'` puts a weight in the place of the layer.*quantized.*frozen_copy",
    ):
        adapted(base, residual="folded")
    assert list(base.modules()) == modules
    assert [parameter.requires_grad for parameter in base.parameters()] == grads
    assert torch.equal(run(base), expected)


def test_a_second_adapter_that_cannot_be_folded_leaves_the_first_as_it_was(base: Any) -> None:
    model = adapted(base)
    train(model)
    expected = run(model)
    with pytest.raises(AdapterError, match="puts a weight in the place of the layer"):
        model.add_adapter("other", QuantaConfig(target_modules=TARGETS, residual="folded"))
    assert all(list(layer.quanta_circuit_delta) == ["default"] for layer in layers(model).values())
    assert torch.equal(run(model), expected)


@pytest.fixture
def only_runs(monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Return layers of a library that PEFT runs but cannot merge; the library itself is not installed anywhere here."""

    def resolve(layer: nn.Module, **_: Any) -> Any:
        return ForwardOnlyQuantizationBackend("gptq") if isinstance(layer, OnlyRuns) else None

    monkeypatch.setattr("quanta_compiler.peft.bases.resolve_quantization_backend", resolve)
    return Pair(OnlyRuns)


def test_layers_that_only_run_are_adapted(only_runs: Pair) -> None:
    expected = run(only_runs)
    model = adapted(only_runs)
    assert torch.equal(run(model), expected)
    train(model)
    assert not torch.allclose(run(model), expected, rtol=0, atol=1e-3)
    assert torch.equal(run(model.unload()), expected)


def test_layers_that_only_run_say_that_they_cannot_be_merged(only_runs: Pair) -> None:
    model = adapted(only_runs)
    train(model)
    expected = run(model)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(AdapterError, match=r"q_proj: merging is not available for gptq layers"):
            merge()
        assert torch.equal(run(model), expected)
        assert not any(layer.merged for layer in layers(model).values())


def test_layers_that_only_run_refuse_folding(only_runs: Pair) -> None:
    with pytest.raises(
        AdapterError, match=r"puts a weight in the place of the layer, and the layer is quantized \(gptq\)"
    ):
        adapted(only_runs, residual="folded")
    assert not layers(only_runs)


def test_torchao_without_a_way_to_quantize_again_trains_and_is_not_merged() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    base = Pair(nn.Linear)
    quantization.quantize_(base, quantization.Int8WeightOnlyConfig())
    expected = run(base)
    model = adapted(base)
    assert torch.equal(run(model), expected)
    train(model)
    trained = run(model)
    assert not torch.allclose(trained, expected, rtol=0, atol=1e-3)
    for merge in (model.merge_adapter, model.merge_and_unload, next(iter(layers(model).values())).merge):
        with pytest.raises(AdapterError, match=r"(?s)q_proj: torchao's `quantize_` has not kept.*from_pretrained"):
            merge()
        assert torch.equal(run(model), trained)
    with pytest.raises(AdapterError, match=r"q_proj: `residual='folded'`.*quantized \(torchao\)"):
        model.add_adapter("other", QuantaConfig(target_modules=TARGETS, residual="folded"))
    assert torch.equal(run(model.unload()), expected)


def test_a_quantized_model_can_be_copied_with_its_adapter(base: Any) -> None:
    model = adapted(base)
    train(model)
    copied = copy.deepcopy(model)
    assert torch.equal(run(copied), run(model))
