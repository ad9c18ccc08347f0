"""Adapters on every backend: the same outputs and gradients, and still the base model bit for bit at the start."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers, train
from compiled_circuits import saved_bytes
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from random_circuits import error, file_of
from torch import nn

from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.engines.cpu.build import kernel_library
from quanta_compiler.peft import QuantaConfig

RESIDUALS = ("frozen_copy", "folded", "none")
WAYS = (("torch", False), ("torch", True), ("fused", False), ("fused", True), ("auto", False), ("auto", True))
MIXED = file_of(
    "6x4",
    [
        {"axes": [0], "kind": "lowrank", "rank": 6, "name": "whole"},
        {"axes": [0, 1], "kind": "lowrank", "rank": 2},
        {"axes": [1], "kind": "constant", "value": [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
        {"axes": [1], "kind": "diagonal", "per": [0], "frozen": True},
        {"axes": [1], "name": "one"},
        {"axes": [1], "share": "one", "transpose": True},
    ],
)
"""With tensors of every kind, a product of factors that is built as one matrix, and a gate that is used twice."""


def moved(model: Any) -> Any:
    """Move T away from S, the same way every time."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "quanta_circuit_delta" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model


def results(model: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a model's output, and the gradients of its input and of all that trains."""
    x = x.clone().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    assert x.grad is not None
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "x": x.grad, **found}


@pytest.mark.parametrize("circuit", [QUANTA, MIXED], ids=["pairs", "mixed"])
@pytest.mark.parametrize("residual", RESIDUALS)
def test_outputs_and_gradients_are_the_same(residual: str, circuit: dict[str, Any]) -> None:
    x = batch(torch.float64, rows=19)
    expected: dict[str, torch.Tensor] = {}
    for backend, recompute in WAYS:
        keys = {"circuit": circuit, "residual": residual, "backend": backend, "recompute": recompute}
        model = moved(adapted(Mlp(torch.float64), **keys, scale=1.5)).train()
        found = results(model, x)
        assert len(found) > 8
        expected = expected or found
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert error(tensor, expected[name]) < 1e-11, (backend, recompute, name)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("backend", "recompute"), WAYS)
def test_the_start_is_the_base_model_bit_for_bit(
    backend: str, recompute: bool, dtype: torch.dtype, autocast: bool
) -> None:
    base = Mlp(dtype)
    model = adapted(copy.deepcopy(base), circuit=MIXED, residual="frozen_copy", backend=backend, recompute=recompute)
    for rows in (1, 7, 40):
        x = batch(dtype, rows=rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            expected = base(x)
            assert torch.equal(model(x), expected)
            assert torch.equal(model.train()(x), expected)
            with torch.no_grad():
                assert torch.equal(model(x), expected)
    # Not because nothing is there.
    assert not torch.equal(moved(model)(x), base(x))


def test_a_circuit_that_is_zero_begins_as_the_base_model() -> None:
    model, x = adapted(Mlp(), circuit=LORA, backend="fused"), batch()
    assert torch.equal(model(x), Mlp()(x))


@pytest.mark.parametrize("residual", RESIDUALS)
def test_under_autocast_the_update_is_as_close_as_that_of_the_emitted_module(residual: str) -> None:
    x = batch(rows=40)
    found = {}
    for backend in ("torch", "fused"):
        model = moved(adapted(Mlp(), circuit=MIXED, residual=residual, backend=backend))
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
        found[backend] = error(y, exact)
        assert y.dtype == torch.bfloat16
    assert found["fused"] < 1.2 * found["torch"] + 1e-3


def test_training_takes_the_same_steps() -> None:
    x, expected = batch(torch.float64, rows=19), dict[str, torch.Tensor]()
    for backend in ("torch", "fused"):
        model = adapted(Mlp(torch.float64), circuit=MIXED, backend=backend)
        train(model, x, steps=5)
        expected = expected or {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for name, tensor in model.state_dict().items():
            assert error(tensor, expected[name]) < 1e-9, name


@pytest.mark.parametrize("residual", RESIDUALS)
def test_merged_weights_are_the_same(residual: str) -> None:
    merged = []
    for backend, recompute in WAYS:
        model = moved(adapted(Mlp(), circuit=MIXED, residual=residual, backend=backend, recompute=recompute))
        merged.append(model.merge_and_unload(safe_merge=True).state_dict())
    for other in merged[1:]:
        for name, tensor in other.items():
            torch.testing.assert_close(tensor, merged[0][name], rtol=0, atol=1e-6)


# What is kept for backward


class One(nn.Module):
    """One wide layer without a bias, so that an adapted copy keeps little that is not the circuit's."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(24, 24, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.proj(x)
        return result


@pytest.mark.parametrize("residual", ["frozen_copy", "none"])
def test_the_adapted_layer_keeps_its_input_once(residual: str) -> None:
    """A frozen base weight keeps nothing, and a circuit nothing but the input and T where that is S + D."""
    model = adapted(One(), target_modules=["proj"], residual=residual, backend="fused").train()
    x = torch.relu(batch(rows=100).requires_grad_())
    composed = 4 * (12**2 + 8**2 + 6**2) if residual == "frozen_copy" else 0
    assert saved_bytes(model, lambda: model(x)) == 100 * 24 * 4 + composed
    plain = adapted(One(), target_modules=["proj"], residual=residual, backend="torch").train()
    assert saved_bytes(plain, lambda: plain(x)) > 100 * 24 * 4


# Configurations


@pytest.mark.parametrize(("backend", "recompute"), WAYS)
def test_a_saved_adapter_keeps_its_backend(tmp_path: Path, backend: str, recompute: bool) -> None:
    model = moved(adapted(Mlp(), circuit=MIXED, backend=backend, recompute=recompute))
    model.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["backend"], saved["recompute"]) == (backend, recompute)
    loaded = PeftModel.from_pretrained(Mlp(), str(tmp_path))
    assert {layer.quanta_circuit_backend["default"] for layer in circuit_layers(loaded).values()} == {
        (backend, recompute)
    }
    assert torch.equal(loaded(batch()), model(batch()))
    # Which one made the weights does not bind who loads them.
    config = QuantaConfig.from_pretrained(str(tmp_path))
    config.backend, config.recompute = "torch", False
    other = PeftModel.from_pretrained(Mlp(), str(tmp_path), config=config)
    assert error(other(batch()), model(batch())) < 1e-6


def test_a_configuration_of_before_there_were_backends_is_loaded(tmp_path: Path) -> None:
    model = moved(adapted(Mlp(), circuit=MIXED))
    model.save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    saved = json.loads(path.read_text())
    del saved["backend"], saved["recompute"]
    path.write_text(json.dumps(saved))
    config = QuantaConfig.from_pretrained(str(tmp_path))
    assert (config.backend, config.recompute) == ("auto", False)
    assert torch.equal(PeftModel.from_pretrained(Mlp(), str(tmp_path))(batch()), model(batch()))


def test_an_unknown_backend_is_refused() -> None:
    message = re.escape("unknown backend 'triton': choose one of auto, torch, fused")
    with pytest.raises(ValueError, match=f"^{message}$"):
        QuantaConfig(backend="triton")


def test_adapters_of_different_backends_stand_side_by_side() -> None:
    x = batch(torch.float64)
    model = moved(adapted(Mlp(torch.float64), circuit=MIXED, backend="fused"))
    model.add_adapter("other", QuantaConfig(circuit=QUANTA, target_modules=["q_proj", "o_proj"], backend="torch"))
    moved(model)
    ways = {name: dict(layer.quanta_circuit_backend) for name, layer in circuit_layers(model).items()}
    assert ways["base_model.model.q_proj"] == {"default": ("fused", False), "other": ("torch", False)}
    model.base_model.set_adapter(["default", "other"])
    both = model(x)
    merged = copy.deepcopy(model).merge_and_unload()
    assert error(merged(x), both) < 1e-10
    model.delete_adapter("default")
    assert all("default" not in layer.quanta_circuit_backend for layer in circuit_layers(model).values())


def test_auto_takes_what_is_faster_for_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it computes: the kernel's sums are rounded otherwise than those of the emitted module."""
    if kernel_library() is None:
        pytest.skip("there is no kernel")
    x = batch(rows=40)
    for prefers, same in ((True, "fused"), (False, "torch")):
        monkeypatch.setattr(cpu, "prefers", lambda *_, prefers=prefers: prefers)
        circuit = {**MIXED, "name": f"automatic-{same}"}
        models = {way: moved(adapted(Mlp(), circuit=circuit, backend=way)) for way in ("auto", "torch", "fused")}
        assert torch.equal(models["auto"](x), models[same](x))


def test_peft_can_switch_the_casting_of_inputs_off() -> None:
    model, x = moved(adapted(Mlp())), batch()
    expected = model(x)
    with disable_input_dtype_casting(model):
        assert torch.equal(model(x), expected)
    assert torch.equal(model(x), expected)
