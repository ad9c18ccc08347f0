"""What cannot be done is said, with what to do in its place, before anything runs or is changed."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers
from peft import get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from quanta_compiler.peft import AdapterError, QuantaConfig


def told(model: nn.Module, config: QuantaConfig, about: str) -> list[str]:
    """Return the warnings about something as a model is adapted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        get_peft_model(model, config)
    return [str(warning.message) for warning in caught if about in str(warning.message)]


def test_adapters_by_row_are_refused_before_anything_runs() -> None:
    model = adapted(Mlp(), init_weights=False)
    model.add_adapter("other", QuantaConfig(circuit=LORA, target_modules=["q_proj"], init_weights=False))
    calls: list[int] = []
    model.base_model.model.q_proj.register_forward_pre_hook(lambda *_: calls.append(1))
    for names in (["default"] * 7, ["nobody"] * 7, ["__base__"] * 7, []):
        with pytest.raises(AdapterError, match=r"`adapter_names` is not supported .*\nhint: .*set_adapter\(name\)"):
            model(batch(), adapter_names=names)
    assert not calls
    assert torch.equal(model(batch(), adapter_names=None), model(batch()))


def test_adapters_by_row_are_refused_in_generation_too() -> None:
    base = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, bos_token_id=0, eos_token_id=1))
    config = QuantaConfig(preset="lora:1", target_modules=["c_attn"], task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, config)
    tokens = torch.tensor([[3, 4], [5, 6]])
    with pytest.raises(AdapterError, match="`adapter_names` is not supported"):
        model.generate(input_ids=tokens, max_new_tokens=2, adapter_names=["default", "__base__"])
    with pytest.raises(AdapterError, match="`adapter_names` is not supported"):
        model(input_ids=tokens, adapter_names=["default", "__base__"])
    assert model.generate(input_ids=tokens, max_new_tokens=2).shape[0] == 2


def test_a_weighted_sum_of_adapters_is_refused_and_its_remedy_works() -> None:
    x = batch()
    model = adapted(Mlp(), init_weights=False, target_modules=["o_proj"])
    model.add_adapter("b", QuantaConfig(circuit=LORA, target_modules=["o_proj"], init_weights=False))
    base = Mlp()(x)
    with pytest.raises(AdapterError, match="a weighted sum of circuits is no circuit\nhint: activate the adapters"):
        model.add_weighted_adapter(["default", "b"], [0.5, 2.0], "sum", combination_type="linear")
    assert list(model.peft_config) == ["default", "b"]
    parts = []
    for name in ("default", "b"):
        model.set_adapter(name)
        parts.append(model(x) - base)
    model.base_model.set_adapter(["default", "b"])
    for layer in circuit_layers(model).values():
        layer.set_scale("default", 0.5)
        layer.set_scale("b", 2.0)
    torch.testing.assert_close(model(x) - base, 0.5 * parts[0] + 2 * parts[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", ["krona", "lora:2", "nobody"])
def test_a_circuit_and_a_preset_are_refused_together(preset: str) -> None:
    for circuit in (QUANTA, {"q_proj": LORA}, {"version": 1, "name": "lora-2", "preset": "lora", "rank": 2}):
        with pytest.raises(ValueError, match="`circuit` and `preset` are both given"):
            QuantaConfig(circuit=circuit, preset=preset)


def test_a_configuration_takes_the_preset_that_replaces_another() -> None:
    config = QuantaConfig(preset="krona", target_modules=["q_proj"])
    get_peft_model(Mlp(), config)
    changed = dataclasses.replace(config, preset="tt:rank=2")
    fresh = QuantaConfig(preset="tt:rank=2")
    assert (changed.circuit, changed.circuit_hash) == (fresh.circuit, fresh.circuit_hash)
    assert not changed.resolved
    assert dataclasses.replace(changed, circuit=None, preset="krona").circuit == config.circuit
    assert dataclasses.replace(QuantaConfig(circuit=QUANTA), preset="krona").circuit == config.circuit
    assert dataclasses.replace(config, scale=2.0).circuit == config.circuit
    with pytest.raises(ValueError, match="unknown preset 'kron'"):
        dataclasses.replace(config, preset="kron")
    with pytest.raises(ValueError, match="`circuit` and `preset` are both given"):
        dataclasses.replace(config, circuit=QUANTA, circuit_hash=None)
    explicit = dataclasses.replace(config, circuit=QUANTA, circuit_hash=None, preset=None)
    assert (explicit.circuit, explicit.preset) == (QUANTA, None)


def test_a_preset_that_is_assigned_later_is_refused() -> None:
    config = QuantaConfig(target_modules=["q_proj"])
    config.preset = "lora:2"
    with pytest.raises(AdapterError, match="`preset` was assigned to after the configuration was made"):
        get_peft_model(Mlp(), config)


@pytest.mark.parametrize(("name", "value"), [("layers_to_transform", [1]), ("layers_pattern", "h")])
def test_indices_of_layers_beside_keys_that_are_regular_expressions(name: str, value: Any) -> None:
    circuit = {"[qk]_proj": LORA, "o_proj": QUANTA}
    with pytest.raises(
        ValueError, match=rf"^`{name}` needs the targets as a list of names.*: '\[qk\]_proj'\nhint: give"
    ):
        QuantaConfig(circuit=circuit, **{name: value})
    assert QuantaConfig(circuit=circuit, target_modules=["q_proj"], **{name: value})
    assert QuantaConfig(circuit={"o_proj": QUANTA}, **{name: value})


def test_a_model_that_does_not_begin_as_the_base_model_is_told_of() -> None:
    targets = ["q_proj", "k_proj"]
    away = QuantaConfig(circuit={"q_proj": LORA, "k_proj": QUANTA}, residual="none")
    assert "on k_proj T is not zero" in told(Mlp(), away, "residual=")[0]
    messages = told(Mlp(), QuantaConfig(circuit=QUANTA, residual="none", target_modules=targets), "residual='none'")
    assert len(messages) == 1
    assert "on q_proj (and 1 more) T is not zero at the start, so that the model does not begin" in messages[0]
    silent: list[dict[str, Any]] = [
        {"residual": "none", "circuit": LORA},
        {"residual": "none", "init_weights": False},
        {},
    ]
    for keys in silent:
        config = QuantaConfig(**{"circuit": QUANTA, "target_modules": targets, **keys})
        assert not told(Mlp(), config, "residual='none'"), keys


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
