"""The preset `vera` against PEFT's own VeRA layer, with the same numbers in both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import Blocks, adapted, batch, circuit_layers, train
from peft import VeraConfig, get_peft_model

RANK = 7
TARGETS = ["q_proj", "k_proj", "o_proj"]


def peft_vera() -> Any:
    model = get_peft_model(Blocks(), VeraConfig(r=RANK, target_modules=TARGETS))
    train(model, batch())
    model.zero_grad()
    return model


def with_the_numbers_of(vera: Any) -> Any:
    """Return our adapter with the matrices and diagonals of PEFT's, which are cut out of larger ones there."""
    model = adapted(Blocks(), circuit=None, preset=f"vera:{RANK}")
    theirs = dict(vera.named_modules())
    a, b = (getattr(vera.base_model, f"vera_{part}")["default"] for part in "AB")
    with torch.no_grad():
        for name, layer in circuit_layers(model).items():
            own, frozen = layer._holder("default"), layer.quanta_circuit_shared["default"].raw("frozen")
            own["b"].copy_(theirs[name].vera_lambda_b["default"])
            own["d"].copy_(theirs[name].vera_lambda_d["default"])
            frozen["A"].copy_(a[:, : layer.in_features])
            frozen["B"].copy_(b[: layer.out_features])
    return model


def test_forward_and_delta_weight_are_those_of_peft() -> None:
    x, vera = batch(), peft_vera()
    model = with_the_numbers_of(vera)
    torch.testing.assert_close(model(x), vera(x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(model(x), Blocks()(x), atol=1e-3)
    theirs = dict(vera.named_modules())
    for name, layer in circuit_layers(model).items():
        expected = theirs[name].get_delta_weight("default")
        torch.testing.assert_close(layer.get_delta_weight("default"), expected, rtol=1e-5, atol=1e-6)
    assert model.get_nb_trainable_parameters()[0] == vera.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("lambda_name", ["b", "d"])
def test_gradients_are_those_of_peft(lambda_name: str) -> None:
    x, vera = batch(), peft_vera()
    model = with_the_numbers_of(vera)
    for one in (model, vera):
        one(x).square().sum().backward()
    theirs = dict(vera.named_modules())
    for name, layer in circuit_layers(model).items():
        expected = getattr(theirs[name], f"vera_lambda_{lambda_name}")["default"].grad
        torch.testing.assert_close(layer._holder("default")[lambda_name].grad, expected, rtol=1e-4, atol=1e-5)


def test_it_begins_about_as_large_as_peft_s() -> None:
    """B diag(d) A, which the first gradient of b is made of: entries of 1 / (3 sqrt(n)) here, 1 / (5 sqrt(n)) there."""
    wide = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 512))
    ours = adapted(wide, circuit=None, preset="vera:128", target_modules=["0", "1"])
    tensors, _ = circuit_layers(ours)["base_model.model.0"].circuits("default")
    product = tensors["B"] @ torch.diag(tensors["d"]) @ tensors["A"]
    assert float(product.detach().std()) == pytest.approx(1 / (3 * 512**0.5), rel=0.05)
    assert not any("frozen" in name and one.requires_grad for name, one in ours.named_parameters())
