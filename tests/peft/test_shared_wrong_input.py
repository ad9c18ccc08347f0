"""Shared gates that have nobody to share with, that are not alike, or whose saved tensors are damaged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import Blocks, Mlp, adapted, batch, train
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from random_circuits import file_of
from safetensors.torch import load_file, save_file
from shared_models import Stack
from torch import nn

from quanta_compiler.adapters.saved import read_adapter
from quanta_compiler.peft import AdapterError, QuantaConfig

SHARED = "quanta_circuit_shared"
WEIGHTS = "adapter_model.safetensors"
BEGINNINGS: dict[str, dict[str, Any]] = {"q_proj": {"init": "zeros"}, "o_proj": {}}
"""The update of the first circuit is T, that of the second T - S."""
NOT_ZERO = [{"axes": [0, 1], "across": "layers"}, {"axes": [0], "kind": "lowrank", "rank": 2, "across": "all"}]


def refused(model: Any, attach: Callable[[Any], Any]) -> str:
    """Return the error; the model must be what it was."""
    before = [(name, id(module)) for name, module in model.named_modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(AdapterError) as caught:
        attach(model)
    assert [(name, id(module)) for name, module in model.named_modules()] == before
    assert trained == [parameter.requires_grad for parameter in model.parameters()]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    return f"{caught.value}\n"


def attach(model: nn.Module, config: QuantaConfig) -> Any:
    return get_peft_model(model, config)


def test_gates_that_cannot_be_shared(golden: Callable[[str, str], None]) -> None:
    lotr = {"version": 1, "name": "lotr", "preset": "lotr", "rank": 4}
    layers = file_of("6x4", [{"axes": [0, 1], "across": "layers", "name": "g"}])
    targets = file_of("6x4", [{"axes": [0, 1], "across": "targets", "name": "g"}])
    unlike = {"q_proj": layers, r"1\.q_proj": {**layers, "gates": [{**layers["gates"][0], "init": "orthogonal"}]}}
    gate = {"axes": [0], "name": "g", "across": "targets", "init": "orthogonal"}
    mixed = {target: file_of("6x4", [gate, {"axes": [1], **init}]) for target, init in BEGINNINGS.items()}
    cases: dict[str, tuple[nn.Module, QuantaConfig]] = {
        "the only layer": (Mlp(), QuantaConfig(circuit=layers, target_modules=["q_proj"])),
        "the only target": (Blocks(), QuantaConfig(circuit=targets, target_modules=["q_proj"])),
        "other widths": (Mlp(), QuantaConfig(circuit=lotr, target_modules=["q_proj", "k_proj"])),
        "gates that are not alike": (Blocks(), QuantaConfig(circuit=unlike)),
        "updates that are not alike": (Stack(), QuantaConfig(circuit=mixed)),
    }
    texts = [
        f"== {title}\n{refused(model, partial(attach, config=config))}" for title, (model, config) in cases.items()
    ]
    golden("errors/across-without-another-layer.txt", "\n".join(texts))
    refused(Mlp(), lambda base: inject_adapter_in_model(cases["the only layer"][1], base))


def test_a_second_adapter_that_fails_leaves_the_first_with_its_own() -> None:
    x = batch()
    model = adapted(Blocks(), circuit=file_of("6x4", NOT_ZERO), target_modules=["q_proj"], init_weights=False)
    expected = model(x)
    bad = QuantaConfig(circuit=file_of("6x4", NOT_ZERO), target_modules=r"layers\.0\.q_proj")
    refused(model, lambda base: base.add_adapter("other", bad))
    assert torch.equal(model(x), expected)
    # Again under the first one's name, which would draw all of it anew.
    model.peft_config["default"] = bad
    refused(model, lambda base: base.base_model.inject_adapter(base.base_model.model, "default"))
    assert torch.equal(model(x), expected)
    train(model, x)
    assert not torch.equal(model(x), expected)
    model.delete_adapter("default")
    assert not hasattr(model.base_model.model, SHARED)


def test_an_adapter_that_is_injected_again_begins_anew() -> None:
    x = batch()
    model = adapted(Blocks(), circuit=file_of("6x4", NOT_ZERO), target_modules=["q_proj"])
    names = {name for name, _ in model.named_parameters()}
    expected = model(x)
    train(model, x)
    model.base_model.inject_adapter(model.base_model.model, "default")
    assert torch.equal(model(x), expected)
    assert {name for name, _ in model.named_parameters()} == names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a saved adapter with shared gates."""
    model = adapted(Blocks(), circuit=file_of("6x4", NOT_ZERO), target_modules=["q_proj"])
    train(model, batch())
    model.save_pretrained(str(tmp_path))
    return tmp_path


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


KEY = f"base_model.model.{SHARED}.delta-g1-6x6-B"
DAMAGE: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "missing": (lambda tensors: tensors.pop(KEY), "the model: shared.delta-g1-6x6-B is missing"),
    "all missing": (
        lambda tensors: [tensors.pop(key) for key in list(tensors) if SHARED in key],
        "the model: nothing is saved of what layers have together",
    ),
    "wrong shape": (
        lambda tensors: tensors.update({KEY: torch.zeros(6, 3)}),
        r"the model: shared.delta-g1-6x6-B is saved as \[6, 3\], the circuit needs \[6, 2\]",
    ),
    "not a number": (lambda tensors: tensors[KEY].fill_(float("nan")), "the model: shared.delta-g1-6x6-B holds NaN"),
    "too many": (
        lambda tensors: tensors.update({KEY + "2": torch.zeros(6, 2)}),
        "the model: shared.delta-g1-6x6-B2 is saved, and the configuration has no place for it",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tensors_are_refused_before_anything_is_changed(damage: str, folder: Path) -> None:
    change, message = DAMAGE[damage]
    changed(folder, change)
    with pytest.raises(AdapterError, match=message):
        PeftModel.from_pretrained(Blocks(), str(folder))
    model = adapted(Blocks(), circuit=file_of("6x4", NOT_ZERO), target_modules=["q_proj"])
    expected = model(batch())
    with pytest.raises(AdapterError, match=message):
        model.load_adapter(str(folder), "default")
    assert torch.equal(model(batch()), expected)


def test_analysing_reads_them_without_a_model(folder: Path) -> None:
    model = PeftModel.from_pretrained(Blocks(), str(folder))
    updates = read_adapter(folder).updates
    assert set(updates) == {"layers.0.q_proj", "layers.1.q_proj"}
    for name, update in updates.items():
        layer: Any = model.base_model.model.get_submodule(name)
        expected = layer.get_delta_weight("default")
        assert torch.allclose(update.matrix(torch.device("cpu")).float(), expected, atol=1e-5)
