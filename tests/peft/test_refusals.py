"""What cannot be done is said, with what to do in its place, before anything runs or is changed."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers
from peft import get_peft_model, inject_adapter_in_model
from torch import nn
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from quanta_compiler.peft import AdapterError, QuantaConfig


def told(model: nn.Module, config: QuantaConfig, about: str) -> list[str]:
    """Return the warnings about something as a model is adapted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        get_peft_model(model, config)
    return [str(warning.message) for warning in caught if about in str(warning.message)]


def test_bare_parameters_are_refused_as_targets() -> None:
    with pytest.raises(ValueError, match=r"`target_parameters` is not supported.*\nhint: leave it out"):
        QuantaConfig(target_modules=["q_proj"], target_parameters=["experts.down_proj"])
    config = QuantaConfig(circuit=QUANTA, target_modules=["q_proj"])
    config.target_parameters = ["k_proj.weight"]
    model = Mlp()
    with pytest.raises(ValueError, match="`target_parameters` is not supported"):
        inject_adapter_in_model(config, model)
    assert not circuit_layers(model)


SMALL: dict[str, Any] = {
    **{"vocab_size": 16, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4},
}
EXPERTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "qwen2_moe": (
        lambda: Qwen2MoeForCausalLM(
            Qwen2MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=6, mlp_only_layers=[0])
        ),
        {"target_modules": ["k_proj", "up_proj"]},
        "model.layers.1.mlp.experts.gate_up_proj [4, 12, 8]",
    ),
    "qwen2_moe-all": (
        lambda: Qwen2MoeForCausalLM(
            Qwen2MoeConfig(**SMALL, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=6)
        ),
        {"target_modules": "all-linear"},
        "model.layers.0.mlp.experts.gate_up_proj [3, 12, 8], model.layers.0.mlp.experts.down_proj [3, 8, 6] and 2 more",
    ),
    "mixtral": (
        lambda: MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4)),
        {"target_modules": ["q_proj", "w2"]},
        "model.layers.0.mlp.experts.down_proj [4, 8, 12], model.layers.1.mlp.experts.down_proj [4, 8, 12]",
    ),
    "llama4": (
        lambda: Llama4ForCausalLM(
            Llama4TextConfig(**SMALL, intermediate_size_mlp=12, num_local_experts=2, interleave_moe_layer_step=2)
        ),
        {"target_modules": r".*\.(?:q_proj|down_proj)"},
        "model.layers.1.feed_forward.experts.down_proj [2, 12, 8]",
    ),
    "gpt_oss": (
        lambda: GptOssForCausalLM(GptOssConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2)),
        {"target_modules": "all-linear"},
        "model.layers.0.mlp.experts.gate_up_proj [4, 8, 24], model.layers.0.mlp.experts.down_proj [4, 12, 8] and 2",
    ),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_that_the_targets_do_not_reach_are_named(name: str) -> None:
    build, targets, shown = EXPERTS[name]
    with torch.device("meta"):
        model = build()
    if not any("experts" in key and parameter.dim() == 3 for key, parameter in model.named_parameters()):
        pytest.skip("this version of transformers holds these experts as linear layers, which targets reach")
    messages = told(model, QuantaConfig(**targets, preset="lora:1", task_type="CAUSAL_LM"), "tensors of all experts")
    assert len(messages) == 1
    assert f": {shown}" in messages[0]


def test_experts_that_nobody_means_or_that_are_excluded_are_not_told_of() -> None:
    build = EXPERTS["qwen2_moe"][0]
    for keys in (
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": "all-linear", "exclude_modules": ["experts"]},
        {"target_modules": ["up_proj"], "layers_to_transform": [0]},
    ):
        with torch.device("meta"):
            model = build()
        assert not told(model, QuantaConfig(**keys, preset="lora:1"), "expert"), keys


def test_other_tensors_of_three_axes_are_no_experts() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 3)
            self.query = nn.Parameter(torch.zeros(2, 3, 4))
            self.up_proj = nn.Linear(4, 4)

    assert not told(Tokens(), QuantaConfig(preset="lora:1", target_modules="all-linear"), "expert")


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
