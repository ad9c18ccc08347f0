"""What cannot be done is said, with what to do in its place, before anything runs or is changed."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch
from peft import get_peft_model
from torch import nn

from quanta_compiler.peft import AdapterError, QuantaConfig


def told(model: nn.Module, config: QuantaConfig, about: str) -> list[str]:
    """Return the warnings about something as a model is adapted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        get_peft_model(model, config)
    return [str(warning.message) for warning in caught if about in str(warning.message)]


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
