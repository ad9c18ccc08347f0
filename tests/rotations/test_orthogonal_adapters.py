"""Rotations as adapters: the update is exactly zero at the start, and trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import Mlp, adapted, batch, circuit_layers, train
from random_circuits import error, file_of

WIDTHS = {"q_proj": (24, 24), "k_proj": (24, 16), "o_proj": (16, 24)}


def circuits(kind: str) -> dict[str, dict[str, Any]]:
    """Return a circuit of one kind of gate for each layer of the model."""
    if kind == "two_design":
        gates = [{"pattern": "two_design"}]
        return {
            name: file_of([2] * 5, gates, name=name, in_features=i, out_features=o) for name, (i, o) in WIDTHS.items()
        }
    gate = {"cayley": {"kind": "orthogonal", "map": "cayley"}}.get(kind, {"kind": kind})
    return {name: file_of(i, [{"axes": [0], "to": [o], **gate}], name=name) for name, (i, o) in WIDTHS.items()}


def low_rank(kind: str) -> dict[str, dict[str, Any]]:
    """Return U diag(s) V^T of rank 4 for each layer, s zero at the start."""
    return {
        name: file_of(
            inputs,
            [
                {"axes": [0], "to": [4], "kind": kind},
                {"axes": [0], "kind": "diagonal", "init": "zeros"},
                {"axes": [0], "to": [outputs], "kind": kind},
            ],
            name=name,
        )
        for name, (inputs, outputs) in WIDTHS.items()
    }


@pytest.mark.parametrize("backend", ["torch", "fused"])
@pytest.mark.parametrize("kind", ["orthogonal", "cayley", "pauli", "two_design"])
def test_an_adapter_begins_as_the_base_model_and_trains(kind: str, backend: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = batch(dtype)
        base = Mlp(dtype)(x).detach()
        model = adapted(Mlp(dtype), circuit=circuits(kind), target_modules=None, backend=backend)
        assert torch.equal(model(x), base)
    x = batch()
    model = adapted(Mlp(), circuit=circuits(kind), target_modules=None, backend=backend)
    assert any("quanta_circuit_frozen" in key for key in model.state_dict())
    train(model, x)
    trained = model(x).detach()
    assert not torch.allclose(trained, Mlp()(x))
    assert error(model.merge_and_unload()(x), trained) < 1e-5


@pytest.mark.parametrize("kind", ["orthogonal", "pauli"])
def test_a_product_with_a_diagonal_of_zeros_needs_no_frozen_copy(kind: str) -> None:
    x = batch()
    model = adapted(Mlp(), circuit=low_rank(kind), target_modules=None)
    assert torch.equal(model(x), Mlp()(x))
    frozen = [key for key in model.state_dict() if "quanta_circuit_frozen" in key]
    # A plan may need the constant 1.
    assert all(key.endswith(".one") for key in frozen)
    train(model, x)
    assert not torch.allclose(model(x), Mlp()(x))
    assert len(circuit_layers(model)) == len(WIDTHS)
