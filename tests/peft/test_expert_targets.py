"""Which tensors of experts the targets of a configuration mean, and what is said where they mean none."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, circuit_layers
from moe_models import STORED_AS_LINEAR, TOKENS, TRANSPOSED, mixture, tensors_of
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

import quanta_compiler as qc
from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.compare.run import compare
from quanta_compiler.peft import AdapterError, QuantaCircuitExperts, QuantaConfig

NAMES = ["gate_proj", "up_proj", "down_proj"]


def told(model: nn.Module, about: str = "expert", **keys: Any) -> list[str]:
    """Return the warnings about something as a model is adapted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        get_peft_model(model, QuantaConfig(**{"preset": "lora:1", **keys}))
    return [str(warning.message) for warning in caught if about in str(warning.message)]


def adapted_experts(model: nn.Module) -> list[str]:
    """Return the names of the tensors that have circuits."""
    layers = [layer for layer in circuit_layers(model).values() if isinstance(layer, QuantaCircuitExperts)]
    return [layer._layer_name for layer in layers if layer.quanta_circuit_plan]


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        *((name, "all-linear") for name in (*STORED_AS_LINEAR, *TRANSPOSED)),
        *((name, ["q_proj", *NAMES]) for name in STORED_AS_LINEAR if name != "mixtral"),
        ("mixtral", ["q_proj", "w1", "w2", "w3"]),
        ("mixtral", ["w2"]),
        ("qwen3_moe", r".*\.experts\..*_proj"),
        ("gpt_oss", ["q_proj"]),
    ],
    ids=str,
)
def test_names_and_all_linear_mean_the_experts_that_lora_takes(name: str, targets: Any, tmp_path: Path) -> None:
    model, lora = mixture(name, "meta"), mixture(name, "meta")
    messages = told(model, target_modules=targets, task_type="CAUSAL_LM")
    get_peft_model(lora, LoraConfig(r=1, target_modules=targets, task_type="CAUSAL_LM"))
    wrapped = [
        f"{key.replace('.base_layer', '')}.{module.parameter_name}"
        for key, module in lora.named_modules()
        if type(module).__name__ == "ParamWrapper"
    ]
    if name == "qwen2_moe":
        # Its own type is not in PEFT's table, in which all its kin are like it.
        wrapped = list(tensors_of(mixture(name, "meta")))
    assert sorted(adapted_experts(model)) == sorted(key for key in wrapped if "experts" in key)
    # gpt-oss and Llama 4 never had linear layers there.
    assert bool(messages) == (name in TRANSPOSED and targets == "all-linear")
    # Nothing is lost of the linear layers of those names: of shared experts, and of blocks without experts.
    linear = [key for key in circuit_layers(model) if "shared_expert" in key]
    assert bool(linear) == (name in ("qwen2_moe", "deepseek_v3") and targets != ["w2"]) or name == "llama4"


def test_what_the_targets_meant_is_saved_and_loaded(tmp_path: Path) -> None:
    for targets in ("all-linear", ["q_proj", *NAMES]):
        model = get_peft_model(mixture("qwen2_moe"), QuantaConfig(preset="lora:1", target_modules=targets))
        model.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "adapter_config.json").read_text())
        assert saved["target_parameters"] == ["experts.down_proj", "experts.gate_up_proj"]
        loaded = PeftModel.from_pretrained(mixture("qwen2_moe"), tmp_path)
        assert adapted_experts(loaded) == adapted_experts(model)
        assert loaded.state_dict().keys() == model.state_dict().keys()


def test_some_layers_and_circuits_by_target() -> None:
    model = mixture("mixtral")
    both: dict[str, Any] = {
        "target_parameters": ["down_proj"],
        "layers_to_transform": [1],
        "target_modules": ["q_proj"],
    }
    get_peft_model(model, QuantaConfig(preset="lora:1", **both))
    assert adapted_experts(model) == ["model.layers.1.mlp.experts.down_proj"]
    model = mixture("mixtral")
    circuit = {"q_proj": LORA, "experts.down_proj": QUANTA, r"0\.mlp\.experts\.gate_up_proj": LORA}
    config = QuantaConfig(circuit=circuit)
    get_peft_model(model, config)
    assert sorted(adapted_experts(model)) == [
        "model.layers.0.mlp.experts.down_proj",
        "model.layers.0.mlp.experts.gate_up_proj",
        "model.layers.1.mlp.experts.down_proj",
    ]
    assert config.target_parameters == ["experts.down_proj", "model.layers.0.mlp.experts.gate_up_proj"]
    with pytest.raises(AdapterError, match=r"the circuit for 'experts\.up_proj' reaches no layer"):
        get_peft_model(mixture("mixtral"), QuantaConfig(circuit={"q_proj": LORA, "experts.up_proj": LORA}))


@pytest.mark.parametrize(
    ("name", "targets", "shown"),
    [
        (
            "qwen2_moe",
            ["k_proj", "up_proj"],
            "are given: model.layers.1.mlp.experts.gate_up_proj [4, 48,",
        ),
        (
            "mixtral",
            ["q_proj", "w1"],
            "are given: model.layers.0.mlp.experts.gate_up_proj [4, 48, 24]",
        ),
        (
            "llama4",
            r".*\.(?:q_proj|down_proj)",
            "linear layers: model.layers.1.feed_forward.experts.down_proj [4, 24,",
        ),
        (
            "gpt_oss",
            "all-linear",
            "linear layers: model.layers.0.mlp.experts.gate_up_proj [4, 24, 48], model.",
        ),
    ],
)
def test_experts_that_the_targets_mean_and_do_not_reach_are_named(name: str, targets: Any, shown: str) -> None:
    model = mixture(name, "meta")
    messages = told(model, target_modules=targets, task_type="CAUSAL_LM")
    assert len(messages) == 1
    assert shown in messages[0]
    assert "hint: QuantaConfig(target_parameters=['experts." in messages[0]
    assert not adapted_experts(model)
    ends = sorted({key.rpartition(".")[2] for key in tensors_of(model)})
    assert not told(mixture(name, "meta"), target_modules=targets, target_parameters=ends, task_type="CAUSAL_LM")


def test_experts_that_nobody_means_or_that_are_excluded_are_not_adapted_or_told_of() -> None:
    for keys in (
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": "all-linear", "exclude_modules": ["experts"]},
        {"target_modules": NAMES, "layers_to_transform": [0]},
    ):
        model = mixture("qwen2_moe", "meta")
        assert not told(model, **keys), keys
        assert not adapted_experts(model)


def test_other_tensors_of_three_axes_are_no_experts() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 3)
            self.query = nn.Parameter(torch.zeros(2, 3, 4))
            self.up_proj = nn.Linear(4, 4)

    model = Tokens()
    assert not told(model, target_modules="all-linear")
    assert list(circuit_layers(model)) == ["up_proj"]
    with pytest.raises(AdapterError, match=r"'conv\.weight' is \[4, 4, 3\], and experts are \[experts,"):
        get_peft_model(Tokens(), QuantaConfig(target_parameters=["conv.weight"]))
    with pytest.raises(AdapterError, match="query: it is a parameter of the model itself"):
        get_peft_model(Tokens(), QuantaConfig(target_modules=[], target_parameters=["query"]))


# What is wrong is said before anything changes


def refused(model: nn.Module, **keys: Any) -> str:
    before = [(name, id(module)) for name, module in model.named_modules()]
    config = QuantaConfig(**{"preset": "lora:1", "target_modules": ["q_proj"], **keys})
    asked = config.target_parameters
    with pytest.raises(AdapterError) as caught:
        get_peft_model(model, config)
    assert before == [(name, id(module)) for name, module in model.named_modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert config.target_parameters == asked
    assert not config.resolved
    return str(caught.value)


def test_experts_that_the_model_does_not_have_are_named_with_those_it_has() -> None:
    wrong = ["experts.gate_up_porj", "experts.down_proj", "blocks.w", "gate.weight"]
    assert refused(mixture("mixtral"), target_parameters=wrong).splitlines() == [
        "experts that the model does not have:",
        "`target_parameters`: the model has no 'blocks.w'",
        "`target_parameters`: the model has no 'experts.gate_up_porj'",
        "`target_parameters`: 'gate.weight' is [4, 24], and experts are [experts, rows, columns]",
        "hint: there is experts.gate_up_proj, experts.down_proj",
        "hint: did you mean 'experts.gate_up_proj'? there is experts.gate_up_proj, experts.down_proj",
        "hint: name linear layers in `target_modules`; of experts there is experts.gate_up_proj, experts.down_proj",
    ]
    message = refused(Mlp(), target_parameters=["experts.down_proj"])
    assert "the model has no 'experts.down_proj'\nhint: the model holds no tensor of experts: leave" in message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dropout": 0.1}, r"gate_up_proj: experts read their weights, .*`dropout` could drop from"),
        ({"residual": "folded"}, "gate_up_proj: experts have no folded copy"),
        ({"placement": "input", "circuit": QUANTA, "preset": None}, "gate_up_proj .*begin as the identity"),
        ({"circuit": {**QUANTA, "in_features": 23}, "preset": None}, "gate_up_proj .24 -> 48.: .*written for"),
    ],
)
def test_what_experts_cannot_have_is_refused_by_name(keys: dict[str, Any], message: str) -> None:
    text = refused(mixture("mixtral"), target_parameters=["gate_up_proj"], **keys)
    assert re.search(message, text)
    assert "\nhint: " in text


def test_quantized_experts_and_names_that_are_no_list_are_refused() -> None:
    model = mixture("mixtral")
    experts: Any = model.model.layers[1].mlp.experts
    experts.down_proj = nn.Parameter(experts.down_proj.to(torch.int8), requires_grad=False)
    with pytest.raises(AdapterError, match=r"layers\.1\.mlp\.experts\.down_proj: it is int8, quantized"):
        get_peft_model(model, QuantaConfig(preset="lora:1", target_modules=[], target_parameters=["down_proj"]))
    assert not circuit_layers(model)
    wrong: tuple[Any, ...] = ("experts.down_proj", [1], [""])
    for names in wrong:
        with pytest.raises(ValueError, match="`target_parameters` is a list of names"):
            QuantaConfig(target_parameters=names)


def test_rows_with_adapters_of_their_own_and_conversion_to_lora_are_refused() -> None:
    model = get_peft_model(
        mixture("mixtral"), QuantaConfig(preset="lora:1", target_modules=[], target_parameters=["down_proj"])
    )
    with pytest.raises(AdapterError, match=r"adapter_names.*\nhint"):
        model(TOKENS, adapter_names=["default", "default"])
    assert not model.supports_lora_conversion()


def test_an_analysis_refuses_adapters_on_experts(tmp_path: Path) -> None:
    config = QuantaConfig(preset="lora:1", target_modules=["q_proj"], target_parameters=["down_proj"])
    get_peft_model(mixture("mixtral"), config).save_pretrained(tmp_path)
    with pytest.raises(qc.SpecError, match="it has a circuit on every expert of a tensor"):
        read_adapter(tmp_path)


# Counts


@pytest.mark.parametrize("name", STORED_AS_LINEAR)
def test_a_comparison_counts_experts_as_the_adapter_does(name: str, tmp_path: Path) -> None:
    base = mixture(name, "meta")
    base.config.architectures = [type(base).__name__]
    base.config.save_pretrained(tmp_path)
    file = tmp_path / "lora.yaml"
    file.write_text(json.dumps({"version": 1, "name": "lora-2", "preset": "lora", "rank": 2}))
    for targets in ("all-linear", NAMES):
        model: Any = get_peft_model(
            mixture(name, "meta"), QuantaConfig(circuit=str(file), target_modules=targets, task_type="CAUSAL_LM")
        )
        trainable, _ = model.get_nb_trainable_parameters()
        made = compare([str(file)], model=str(tmp_path), targets=targets)
        assert made.rows[0].trainable == trainable
        assert "each expert of a tensor of experts is counted as a layer" in made.remark
