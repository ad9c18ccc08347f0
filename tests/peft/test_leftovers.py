"""What is left in a model that has no adapters any more, or never got them: nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import QUANTA, Mlp, adapted, batch, train
from peft import get_peft_model, inject_adapter_in_model
from torch import nn

from quanta_compiler.peft import AdapterError, QuantaConfig

PACKAGE = b"quanta"


def plain(seed: int = 0) -> nn.Module:
    """Return a model whose class is torch's own, so that another program can load it."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 24))


def on_plain(model: nn.Module, **keys: Any) -> Any:
    return get_peft_model(model, QuantaConfig(circuit=QUANTA, target_modules=["0", "2"], **keys))


def deleted(model: Any) -> Any:
    """Delete both adapters, and take the layers out."""
    model.add_adapter("other", QuantaConfig(circuit=QUANTA, target_modules=["2"]))
    model.delete_adapter("default")
    model.base_model.delete_adapter("other")
    assert not any(model.base_model.model._load_state_dict_pre_hooks)
    return model.base_model.unload()


ENDS: dict[str, Callable[[Any], Any]] = {
    "merged": lambda model: model.merge_and_unload(),
    "unloaded": lambda model: model.unload(),
    "deleted": deleted,
}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_a_model_without_adapters_needs_nothing_of_ours(end: str, trained: bool) -> None:
    model = on_plain(plain(), init_weights=False)
    if trained:
        train(model, batch())
    assert PACKAGE not in pickle.dumps(ENDS[end](model))


@pytest.mark.slow
def test_a_merged_model_is_loaded_where_the_package_is_not_installed(tmp_path: Path) -> None:
    merged = on_plain(plain(), init_weights=False).merge_and_unload()
    torch.save(merged, tmp_path / "merged.pt")
    code = "import sys, torch; sys.modules['quanta_compiler'] = None; torch.load(sys.argv[1], weights_only=False)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "merged.pt")], check=True)


def test_a_model_that_got_no_adapter_holds_nothing_of_ours() -> None:
    model = plain()
    before = pickle.dumps(model)
    narrow = {"version": 1, "name": "narrow", "layout": "6x4", "gates": ["all_pairs"], "in_features": 24}
    config = QuantaConfig(circuit={**narrow, "out_features": 24}, target_modules=["0", "2"])
    for attach in (get_peft_model, lambda base, given: inject_adapter_in_model(given, base)):
        with pytest.raises(AdapterError, match="0 \\(24 -> 16\\)"):
            attach(model, config)
        assert pickle.dumps(model) == before


def test_the_hooks_are_there_once_while_there_are_adapters() -> None:
    model = adapted(Mlp())
    model.add_adapter("other", QuantaConfig(circuit=QUANTA, target_modules=["q_proj"]))
    base = model.base_model.model
    assert (len(base._load_state_dict_pre_hooks), len(base._forward_hooks)) == (1, 1)
    train(model, batch())
    assert (len(base._load_state_dict_pre_hooks), len(base._forward_hooks)) == (1, 0)
    model.delete_adapter("default")
    assert len(base._load_state_dict_pre_hooks) == 1
