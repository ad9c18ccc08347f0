"""Adapted layers over seeded random circuits against the oracle: the update is scale (T - S), merged or beside."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Collection
from typing import Any

import pytest
import torch
from adapted_models import adapted, batch, circuit_layers, train
from drawn_kinds import KINDS, STORED
from quick_seeds import every_second
from random_circuits import error, random_file
from torch import nn

from quanta_compiler.nn import fit_circuit
from quanta_compiler.oracle.reference import circuit_operator
from quanta_compiler.peft import QuantaCircuitLayer
from quanta_compiler.spec import load_spec

SEEDS = range(40)


class One(nn.Module):
    """One layer, of any shape."""

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.proj = nn.Linear(in_features, out_features, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.proj(x)
        return result


def operators(layer: Any, adapter: str = "default") -> tuple[torch.Tensor, torch.Tensor]:
    """Return T and S by the oracle, from what the layer holds: `[out_features, in_features]`, float64."""
    from quanta_compiler.ir.build import build_circuit

    fitted = layer.quanta_circuit_plan[adapter]
    circuit = build_circuit(fitted.spec)

    def dotted(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name.replace("-", "."): tensor.detach().double() for name, tensor in tensors.items()}

    trained, frozen = layer.circuits(adapter)
    operator = circuit_operator(circuit, dotted(trained))
    return operator, circuit_operator(circuit, dotted(frozen)) if frozen else torch.zeros_like(operator)


def random_adapter(
    seed: int, kinds: Collection[str] = tuple(KINDS), **keys: Any
) -> tuple[Any, QuantaCircuitLayer, torch.Tensor]:
    """Return a model of one layer with a random circuit, that layer, and a batch; float64."""
    file = random_file(seed, frozen=0.3, kinds=kinds)
    spec = load_spec(file)
    if not fit_circuit(file, spec.in_features, spec.out_features).trained:
        pytest.skip("the drawn circuit has no gate that trains, which an adapter refuses")
    model = adapted(
        One(spec.in_features, spec.out_features, torch.float64), circuit=file, target_modules=["proj"], **keys
    )
    layer = next(iter(circuit_layers(model).values()))
    return model, layer, batch(torch.float64, 5, spec.in_features)


def move(model: nn.Module) -> None:
    """Give every trained tensor other values."""
    generator = torch.Generator().manual_seed(9)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.5


@pytest.mark.parametrize("residual", ["frozen_copy", "folded", "none"])
@pytest.mark.parametrize("seed", every_second(SEEDS))
def test_the_update_is_that_of_the_oracle(seed: int, residual: str) -> None:
    model, layer, x = random_adapter(seed, residual=residual, scale=1.5, init_seed=seed)
    move(model)
    base: Any = layer.get_base_layer()
    weight, bias = base.weight.detach().clone(), base.bias.detach()
    trained, frozen = operators(layer)
    expected = weight + 1.5 * (trained - frozen)
    assert error(model(x).detach(), x @ expected.T + bias) < 1e-10
    assert error(layer.get_delta_weight("default"), 1.5 * (trained - frozen)) < 1e-10
    model.merge_adapter(safe_merge=True)
    assert error(base.weight.detach(), expected) < 1e-12
    assert error(model(x).detach(), x @ expected.T + bias) < 1e-10
    model.unmerge_adapter()
    assert error(base.weight.detach(), weight) < 1e-13


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_gradients_are_those_of_the_oracle(seed: int) -> None:
    model, layer, x = random_adapter(seed, residual="frozen_copy")
    move(model)
    fitted = layer.quanta_circuit_plan["default"]
    parameters: Any = layer.quanta_circuit_delta["default"]
    model(x).pow(2).sum().backward()
    name, step = fitted.trained[0], 1e-6
    tensor = parameters[name]
    found = float(tensor.grad.flatten()[0])
    losses = []
    for sign in (1, -1):
        tensor.data.view(-1)[0] += sign * step
        trained, frozen = operators(layer)
        base: Any = layer.get_base_layer()
        losses.append(float((x @ (base.weight + trained - frozen).T + base.bias).pow(2).sum()))
        tensor.data.view(-1)[0] -= sign * step
    assert found == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_copies_and_pickles_compute_the_same(seed: int) -> None:
    model, _, x = random_adapter(seed)
    move(model)
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_training_moves_only_what_trains(seed: int) -> None:
    model, layer, x = random_adapter(seed, residual="frozen_copy")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, x.clone())
    frozen: Any = layer.quanta_circuit_delta["default"]
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved <= {f"base_model.model.proj.quanta_circuit_delta.default.{name}" for name in frozen}


def test_the_compiled_model_computes_the_same_in_one_graph() -> None:
    # Torch takes half a minute to compile rotations; tests/rotations compiles a few.
    model, _, x = random_adapter(3, STORED, residual="frozen_copy")
    move(model)
    compiled: Any = torch.compile(model, fullgraph=True)
    assert torch.allclose(compiled(x), model(x))
