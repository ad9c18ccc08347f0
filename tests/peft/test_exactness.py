"""The adapted model is the base model bit for bit: at the start, switched off, and unloaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers, train
from random_circuits import file_of

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
CIRCUITS = {
    "quanta": QUANTA,
    "template": file_of({"auto": 3}, ["all_pairs"]),
    "zero": LORA,
    "orthogonal": file_of("6x4", ["all_pairs"], init="orthogonal"),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", CIRCUITS)
def test_the_adapted_model_begins_as_the_base_model(name: str, dtype: torch.dtype) -> None:
    x = batch(dtype)
    expected = Mlp(dtype)(x)
    model = adapted(Mlp(dtype), circuit=CIRCUITS[name])
    assert torch.equal(model(x), expected)
    assert model(x).dtype == dtype


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_switched_off_and_unloaded_it_is_the_base_model_after_training(dtype: torch.dtype, autocast: bool) -> None:
    x = batch(dtype)
    expected = Mlp(dtype)(x)
    from peft import get_peft_model

    from quanta_compiler.peft import QuantaConfig

    config = QuantaConfig(circuit=file_of({"auto": 3}, ["all_pairs"]), target_modules=["q_proj", "o_proj"])
    model: Any = get_peft_model(Mlp(dtype), config, autocast_adapter_dtype=autocast)
    assert torch.equal(model(x), expected)
    train(model, x)
    assert not torch.equal(model(x), expected)
    with model.disable_adapter():
        assert torch.equal(model(x), expected)
    unloaded = model.unload()
    assert torch.equal(unloaded(x), expected)
    assert not circuit_layers(unloaded)


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
def test_a_folded_weight_leaves_the_base_weight_alone(dtype: torch.dtype) -> None:
    x = batch(dtype)
    base = Mlp(dtype)
    expected, weight = base(x), base.q_proj.weight.detach().clone()
    model = adapted(base, residual="folded")
    # W - S is rounded to the dtype of the weight: at the start the model is the base model but for that.
    assert torch.allclose(
        model(x), expected, rtol=0, atol=float(expected.detach().abs().max()) * 4 * torch.finfo(dtype).eps
    )
    train(model, x)
    assert torch.equal(base.q_proj.weight, weight)
    with model.disable_adapter():
        assert torch.equal(model(x), expected)
    assert torch.equal(model.unload()(x), expected)


def test_dropout_feeds_both_circuits_the_same_mask() -> None:
    x = batch()
    model = adapted(Mlp(), dropout=0.5).train()
    assert torch.equal(model(x), Mlp()(x))
    train(model, x)
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_under_autocast_it_begins_as_the_base_model_too() -> None:
    x = batch()
    model = adapted(Mlp())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), Mlp()(x))


@pytest.mark.parametrize("circuit", ["quanta", "zero"])
def test_init_weights_false_is_some_update(circuit: str) -> None:
    x = batch()
    model = adapted(Mlp(), circuit=CIRCUITS[circuit], init_weights=False)
    assert not torch.allclose(model(x), Mlp()(x), atol=1e-4)


def test_layers_draw_apart_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again = adapted(Mlp()), adapted(Mlp())
    assert torch.equal(torch.rand(3), expected)
    other = adapted(Mlp(), init_seed=1)
    gates = [
        [layer.circuits("default")[0]["g0"] for layer in circuit_layers(model).values()]
        for model in (first, again, other)
    ]
    assert not torch.equal(gates[0][0], gates[0][1])
    assert all(torch.equal(a, b) for a, b in zip(gates[0], gates[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(gates[0], gates[2], strict=True))


def test_adapters_are_kept_in_float32_beside_weights_of_less() -> None:
    for layer in circuit_layers(adapted(Mlp(torch.bfloat16))).values():
        trained, frozen = layer.circuits("default")
        assert frozen is not None
        for name, tensor in trained.items():
            assert tensor.dtype == frozen[name].dtype == torch.float32
            assert torch.equal(tensor, frozen[name])
