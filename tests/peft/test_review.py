"""What a review found: each was wrong once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import QUANTA, Mlp, adapted, batch, circuit_layers
from compiled_circuits import peak_bytes
from peft import PeftModel, get_peft_model, inject_adapter_in_model, set_peft_model_state_dict
from random_circuits import error, file_of
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from quanta_compiler.models.fitting import FeaturesError
from quanta_compiler.nn import fit_circuit
from quanta_compiler.peft import AdapterError, QuantaConfig

TOKENS = torch.arange(7)[None]
WEIGHTS = "adapter_model.safetensors"


def llama(folder: Path, hidden: int = 24, dtype: torch.dtype = torch.float32) -> Any:
    """Return a tiny Llama, saved once and loaded from a folder."""
    path = folder / f"base-{hidden}"
    if not path.exists():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=32, hidden_size=hidden, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
        )
        LlamaForCausalLM(config).save_pretrained(path)
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def saved_llama(folder: Path, dtype: torch.dtype = torch.float32, **keys: Any) -> tuple[Path, torch.Tensor]:
    """Train an adapter on the tiny Llama a little, and save it; return its folder and its logits."""
    config = QuantaConfig(circuit=QUANTA, target_modules=["q_proj"], task_type="CAUSAL_LM", **keys)
    model = get_peft_model(llama(folder, dtype=dtype), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for _ in range(5):
        optimizer.zero_grad()
        model(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(str(folder / "adapter"))
    return folder / "adapter", model(TOKENS).logits


@pytest.mark.parametrize("residual", ["frozen_copy", "folded"])
def test_transformers_loads_past_every_hook_and_the_layer_notices(residual: str, tmp_path: Path) -> None:
    folder, expected = saved_llama(tmp_path, residual=residual)
    # Another seed, so that the frozen copy that was drawn is not the one that is loaded.
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"init_seed": 0', '"init_seed": 7'))
    model = llama(tmp_path)
    model.load_adapter(str(folder))
    assert torch.allclose(model(TOKENS).logits, expected, atol=1e-6)


def loaded_and_run(model: Any, folder: Path) -> None:
    """Load by transformers, and run: what is wrong is told by the first or by the second, as its version has it."""
    model.load_adapter(str(folder))
    model(TOKENS)


def test_transformers_loads_no_nan_and_no_wrong_base_in_silence(tmp_path: Path) -> None:
    folder, _ = saved_llama(tmp_path)
    with pytest.raises(AdapterError, match="saved for 24 -> 24 features, the model's layer has 32 -> 32"):
        loaded_and_run(llama(tmp_path, hidden=32), folder)
    tensors = load_file(folder / WEIGHTS)
    next(tensor for name, tensor in tensors.items() if "delta" in name).view(-1)[0] = float("nan")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="holds NaN or infinite numbers"):
        loaded_and_run(llama(tmp_path), folder)


def test_a_small_update_beside_bfloat16_survives_transformers_loading(tmp_path: Path) -> None:
    folder, expected = saved_llama(tmp_path, torch.bfloat16)
    model: Any = llama(tmp_path, dtype=torch.bfloat16)
    model.load_adapter(str(folder))
    assert torch.equal(model(TOKENS).logits, expected)
    reference = PeftModel.from_pretrained(llama(tmp_path, dtype=torch.bfloat16), str(folder))
    deltas = [
        [
            layer.get_delta_weight(adapter)
            for layer in circuit_layers(each).values()
            for adapter in layer.active_adapters
        ]
        for each in (model, reference)
    ]
    assert all(torch.equal(*pair) for pair in zip(*deltas, strict=True))


def test_without_autocast_an_adapter_has_the_dtype_of_its_layer_and_comes_back_the_same(tmp_path: Path) -> None:
    x = batch(torch.bfloat16)
    config = QuantaConfig(circuit=file_of("6x4", ["all_pairs"]), target_modules=["q_proj"])
    model: Any = get_peft_model(Mlp(torch.bfloat16), config, autocast_adapter_dtype=False)
    assert {p.dtype for name, p in model.named_parameters() if "delta" in name} == {torch.bfloat16}
    assert torch.equal(model(x), Mlp(torch.bfloat16)(x))
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(Mlp(torch.bfloat16), str(tmp_path))
    assert torch.equal(loaded(x), Mlp(torch.bfloat16)(x))


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


def test_injected_adapters_are_loaded_whole_or_not() -> None:
    config = QuantaConfig(circuit=QUANTA, target_modules=["q_proj", "o_proj"])
    model: Any = inject_adapter_in_model(config, Mlp())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {
        name.replace(".default", ""): tensor if "features" in name else tensor + 1
        for name, tensor in before.items()
        if "quanta_circuit" in name
    }
    state["o_proj.quanta_circuit_delta.g2"] = torch.full((12, 12), float("nan"))
    with pytest.raises(AdapterError, match=r"o_proj: delta\.g2 holds NaN"):
        set_peft_model_state_dict(model, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_template_keeps_to_the_sizes_that_it_writes() -> None:
    template = file_of({"auto": 3}, ["all_pairs"], out_features=17)
    assert fit_circuit(template, 24, 17).out_features == 17
    with pytest.raises(FeaturesError, match="written for 24 -> 17 features, the layer has 24 -> 16"):
        fit_circuit(template, 24, 16)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["(?i)Q_PROJ"], "is no regular expression"),
        ([r"(?P<n>q)_proj", r"(?P<n>k)_proj"], r"use \(\?:\.\.\.\) for groups"),
        ([r"(q)\1_proj", "k_proj"], r"use \(\?:\.\.\.\) for groups"),
    ],
)
def test_patterns_are_checked_in_the_form_in_which_they_are_used(targets: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantaConfig(circuit=dict.fromkeys(targets, QUANTA))


def test_threads_may_compile_the_same_circuit_at_once() -> None:
    from quanta_compiler.driver import compile_circuit
    from quanta_compiler.runtime.loading import load_class

    sources = [compile_circuit(file_of(f"{size}x3", ["each"], name=f"race{size}")).source for size in range(2, 12)]
    found: list[Any] = []

    def load() -> None:
        found.extend(load_class(source) for source in sources)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert len({id(circuit_class) for circuit_class in found}) == 10


def test_folding_is_refused_where_a_weight_cannot_stand_for_the_layer() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = Mlp()
    model.q_proj = Doubled(24, 24)
    with pytest.raises(AdapterError, match=r"q_proj: `residual='folded'` .* a Doubled computes more than that"):
        adapted(model, residual="folded")
    assert torch.equal(adapted(model)(batch()), model(batch()))


def test_an_attention_that_reads_the_weight_past_the_layer_is_refused() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(24, 2)

    with pytest.raises(AdapterError, match=r"attention\.out_proj: torch's MultiheadAttention reads its weight"):
        adapted(Attention(), target_modules=["out_proj"])


def test_a_configuration_that_names_a_file_opens_none(tmp_path: Path) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("do not show: this\n")
    config = tmp_path / "adapter_config.json"
    config.write_text(f'{{"peft_type": "QUANTA_CIRCUIT", "circuit": "{secret}", "circuit_hash": null}}')
    with pytest.raises(AdapterError, match="`circuit` names a file, a saved adapter holds the circuit itself"):
        QuantaConfig.from_pretrained(str(tmp_path))
    config.write_text("{")
    with pytest.raises(AdapterError, match=r"adapter_config\.json: it is no JSON"):
        QuantaConfig.from_pretrained(str(tmp_path))


def test_a_saved_copy_that_the_configuration_does_not_know_is_told_as_such(tmp_path: Path) -> None:
    model = adapted(Mlp(), target_modules=["q_proj"], residual="frozen_copy")
    model.save_pretrained(str(tmp_path))
    config = tmp_path / "adapter_config.json"
    config.write_text(
        config.read_text().replace('"residual": "frozen_copy",\n  "resolved"', '"residual": "none",\n  "resolved"')
    )
    with pytest.raises(AdapterError, match=r"q_proj: frozen\.g0 is saved, and the configuration has no place for it"):
        PeftModel.from_pretrained(Mlp(), str(tmp_path))


def test_an_adapter_that_is_injected_again_and_fails_is_as_it_was() -> None:
    x = batch()
    model = adapted(Mlp(), init_weights=False)
    expected = model(x)
    square = file_of("6x4", ["all_pairs"], in_features=24, out_features=24)
    model.peft_config["default"] = QuantaConfig(circuit={"q_proj": QUANTA, "k_proj": square})
    with pytest.raises(AdapterError, match="k_proj"):
        model.base_model.inject_adapter(model.base_model.model, "default")
    assert torch.equal(model(x), expected)
