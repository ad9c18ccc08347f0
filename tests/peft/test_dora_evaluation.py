"""`dora` in evaluation, where norms are kept, behind other adapters, and compiled."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from adapted_models import LORA, Mlp, adapted, batch, circuit_layers
from test_dora import IDENTITY, move
from torch import nn

from quanta_compiler.peft import QuantaConfig


def test_evaluation_keeps_the_norms_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, made = adapted(Mlp(), dora=True).eval(), batch(), [0]
    layer: Any = circuit_layers(model)["base_model.model.q_proj"]
    blocks = layer.delta_blocks

    def counted(*args: Any) -> Any:
        made[0] += 1
        return blocks(*args)

    monkeypatch.setattr(layer, "delta_blocks", counted)
    (parameter,) = (p for name, p in layer.named_parameters() if name.endswith("delta.default.g0"))

    def changes() -> list[Any]:
        base, magnitude = layer.get_base_layer(), layer.quanta_circuit_magnitude["default"]
        return [
            lambda: parameter.add_(0.1),
            lambda: setattr(parameter, "data", parameter.data * 2),
            lambda: base.weight.mul_(2),
            lambda: layer.set_scale("default", 0.5),
            lambda: (parameter.data.mul_(3), model.eval()),
            lambda: magnitude.mul_(2),
        ]

    with torch.no_grad():
        model(x)
        for change in changes():
            model(x)
            before, result = made[0], model(x)
            assert made[0] == before
            change()
            assert not torch.equal(model(x), result)
    model.train()
    before = made[0]
    model(x)
    model(x)
    assert made[0] == before + 2


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
def test_compiled_it_computes_the_same() -> None:
    model, x = adapted(Mlp(), dora=True, target_modules=["q_proj"]), batch()
    move(model)
    for mode in (True, False):
        compiled: Any = torch.compile(model.train(mode), backend="eager")
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", ["delta", "frozen", "base"])
def test_evaluation_sees_numbers_that_are_written_past_autograd(part: str) -> None:
    """As where averaged weights (EMA) are copied in and out between two evaluations."""
    model, x = adapted(Mlp(), dora=True, init_weights=False).eval(), batch()
    model(x)
    for name, parameter in model.named_parameters():
        if f"_{part}." in name or (part == "base" and name.endswith("base_layer.weight")):
            parameter.data.copy_(1.5 * parameter.data + 0.1)
    written = model(x)
    assert torch.equal(written, copy.deepcopy(model).train().eval()(x))


def test_dropout_is_for_what_adapters_before_it_make_of_the_input_too() -> None:
    model = adapted(Mlp(), circuit=IDENTITY, placement="input", target_modules=["q_proj"], init_weights=False)
    model.add_adapter("scaled", QuantaConfig(circuit=LORA, dora=True, dropout=0.5, target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "scaled"])
    layer: Any = circuit_layers(model)["base_model.model.q_proj"]
    layer.quanta_circuit_magnitude["scaled"].data *= 2
    x = batch()
    expected = layer.eval()(x)
    # f is 2: what is dropped is what the second half is made of.
    turned = layer._turned("default", x)
    torch.manual_seed(1)
    dropped = layer._turned("default", nn.functional.dropout(x, 0.5))
    torch.manual_seed(1)
    result = layer.train()(x)
    base = layer.get_base_layer()
    torch.testing.assert_close(expected, 2 * base(turned) - base.bias, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result, base(turned) + base(dropped) - base.bias, rtol=1e-4, atol=1e-4)


def test_compiled_without_a_break_and_on_meta_tensors() -> None:
    model, x = adapted(Mlp(), dora=True, target_modules=["q_proj"]), batch()
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-6)
    cases: list[dict[str, Any]] = [
        {"dora": True},
        {"circuit": IDENTITY, "placement": "input", "target_modules": ["q_proj"]},
        {},
    ]
    for keys in cases:
        with torch.device("meta"):
            model = adapted(Mlp(), **keys)
        assert model(x.to("meta")).shape == x.shape
