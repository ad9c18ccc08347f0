"""Adapters that are injected into a model: loaded whole or not at all, and a failure leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import QUANTA, Mlp, adapted, batch
from peft import inject_adapter_in_model, set_peft_model_state_dict
from random_circuits import file_of

from quanta_compiler.peft import AdapterError, QuantaConfig


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


def test_an_adapter_that_is_injected_again_and_fails_is_as_it_was() -> None:
    x = batch()
    model = adapted(Mlp(), init_weights=False)
    expected = model(x)
    square = file_of("6x4", ["all_pairs"], in_features=24, out_features=24)
    model.peft_config["default"] = QuantaConfig(circuit={"q_proj": QUANTA, "k_proj": square})
    with pytest.raises(AdapterError, match="k_proj"):
        model.base_model.inject_adapter(model.base_model.model, "default")
    assert torch.equal(model(x), expected)
