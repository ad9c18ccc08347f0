"""Circuits of a mapping that no layer receives are told, and where it can only be a mistake the model is left alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, batch, circuit_layers, train
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from torch import nn

from quanta_compiler.peft import AdapterError, QuantaConfig


class Towers(nn.Module):
    """Two towers of named layers, and a head."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = [nn.ModuleDict({"gate": nn.Linear(24, 24), "value": nn.Linear(24, 24)}) for _ in range(depth)]
            self.tower = nn.ModuleList(layers)
            self.head = nn.Linear(24, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.tower:
            x = torch.tanh(layer["gate"](x)) * layer["value"](x)  # type: ignore[index]
        result: torch.Tensor = self.head(x)
        return result


def warned(circuit: dict[str, Any], model: nn.Module | None = None, **keys: Any) -> list[str]:
    """Return what is said of keys as a model is adapted."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        get_peft_model(Towers() if model is None else model, QuantaConfig(circuit=circuit, **keys))
    return [str(warning.message) for warning in told if "reaches no layer" in str(warning.message)]


def refused(circuit: dict[str, Any], **keys: Any) -> str:
    """Return the error of keys that match nothing; the model must be what it was."""
    model = Towers()
    before = [(name, type(module), id(module)) for name, module in model.named_modules()]
    config = QuantaConfig(circuit=circuit, **keys)
    with pytest.raises(AdapterError) as caught:
        get_peft_model(model, config)
    assert before == [(name, type(module), id(module)) for name, module in model.named_modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not config.resolved
    return str(caught.value)


def test_every_key_that_matches_no_module_is_named() -> None:
    message = refused({"gate": LORA, "valeu": LORA, "^value": QUANTA, "query|key": QUANTA})
    assert message.splitlines() == [
        "circuits do not fit their targets:",
        "the circuit for 'valeu' reaches no layer: no module matches",
        "the circuit for '^value' reaches no layer: no module matches",
        "the circuit for 'query|key' reaches no layer: no module matches",
        "hint: did you mean 'value'? A key is a regular expression for the end of a module's name",
        "hint: drop the '^': it means the beginning of the whole name, 'tower.0.value'",
        "hint: correct it. A key is a regular expression for the end of a module's name",
    ]


@pytest.mark.parametrize("key", ["^value", r"\Avalue", "tower.value"])
def test_a_key_that_only_looks_like_a_match_is_refused_beside_a_wide_one(key: str) -> None:
    message = refused({"gate|value": LORA, key: QUANTA}, target_modules=["gate", "value"])
    assert f"the circuit for {key!r} reaches no layer: no module matches" in message


def test_a_typo_is_told_along_with_the_target_that_it_leaves_without_a_circuit() -> None:
    message = refused({"gate": LORA, "vlaue": LORA}, target_modules=["gate", "value"])
    assert "tower.0.value (24 -> 24): none of the circuits is for it" in message
    assert "the circuit for 'vlaue' reaches no layer" in message


def test_keys_whose_layers_are_left_out_are_told() -> None:
    both = {"gate": LORA, "value": QUANTA}
    assert warned(both, exclude_modules=["value"]) == [
        "the circuit for 'value' reaches no layer: tower.0.value (and 2 more) is not adapted; see `target_modules`, "
        "`exclude_modules`, `modules_to_save` and `layers_to_transform`"
    ]
    assert len(warned(both, target_modules=["gate"])) == 1
    indexed = {"gate": LORA, r"tower\.(?:1|2)\.gate": QUANTA}
    assert len(warned(indexed, target_modules=["gate"], layers_to_transform=[0], layers_pattern="tower")) == 1
    assert warned({**both, "head": LORA}, target_modules=["gate", "value"], modules_to_save=["head"])[0].startswith(
        "the circuit for 'head' reaches no layer: head is not adapted"
    )


def test_a_key_that_longer_ones_shadow_wholly_is_told() -> None:
    circuit = {"(?:gate|value|up|down)": LORA, r"tower\.1\.gate": QUANTA}
    assert warned(circuit) == [
        r"the circuit for 'tower\\.1\\.gate' reaches no layer: tower.1.gate takes the circuit of the longer key "
        "'(?:gate|value|up|down)'; of several keys that match, the longest counts"
    ]


def test_nothing_is_said_where_every_key_reaches_a_layer() -> None:
    assert not warned({"gate|value": LORA, r"^tower\.2\.value": QUANTA, "head": LORA})


def test_a_saved_adapter_goes_on_a_part_of_its_model_and_a_used_configuration_is_checked_anew(tmp_path: Path) -> None:
    circuit = {"gate": LORA, r"tower\.2\.value": LORA}
    model = get_peft_model(Towers(), config := QuantaConfig(circuit=circuit))
    train(model, batch())
    model.save_pretrained(str(tmp_path))
    loaded = PeftModel.from_pretrained(Towers(), str(tmp_path)).eval()
    assert torch.equal(loaded(batch()), model(batch()))
    loaded.add_adapter("again", loaded.peft_config["default"])
    with pytest.raises(AdapterError, match="reaches no layer: no module matches"):
        inject_adapter_in_model(config, Towers(depth=2))
    saved = QuantaConfig.from_pretrained(str(tmp_path))
    with pytest.warns(UserWarning, match="reaches no layer: no module matches"):
        smaller: Any = inject_adapter_in_model(saved, Towers(depth=2))
    assert len(circuit_layers(smaller)) == 2
    fresh = QuantaConfig(circuit=circuit)
    state = {"tower.0.gate.quanta_circuit_features": torch.tensor([24, 24])}
    with pytest.warns(UserWarning, match="reaches no layer: no module matches"):
        smaller = inject_adapter_in_model(fresh, Towers(depth=1), state_dict=state)
    assert len(circuit_layers(smaller)) == 1
