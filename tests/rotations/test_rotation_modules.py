"""Modules with gates from a Lie algebra or from angles, against two oracles that share no code with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_circuits import published_result, scaled_module
from fused_circuits import gradients, vectors
from random_circuits import error
from rotation_circuits import CIRCUITS, TALL, expanded_matrix, file_operator, rotation_circuit, stored_gates

from quanta_compiler.oracle.reference import reference_operator

CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}
BACKENDS = ("torch", "fused")
NAMED = pytest.mark.parametrize("name", CIRCUITS)
DERIVED = (
    "ry",
    "exp-few",
    "exp-wide",
    "cayley",
    "cayley-tall-few",
    "taylor-tall",
    "taylor-few",
    "neumann-wide",
    "householder-tall-few",
    "planes-wide-few",
    "pauli-8",
    "pauli-7",
    "pauli-tall-12",
    "cz",
    "per-wide",
)
"""Every kind and shape: finite differences take long."""


def on(backend: str, name: str, dtype: torch.dtype = torch.float64) -> Any:
    """Return a circuit's module on a backend with numbers that are worth comparing."""
    module = rotation_circuit(name).module(dtype=dtype, backend=backend)
    module.load_state_dict(scaled_module(rotation_circuit(name), dtype).state_dict())
    return module


@NAMED
def test_the_reference_is_the_plain_oracle(name: str) -> None:
    module = scaled_module(rotation_circuit(name))
    assert error(reference_operator(module), expanded_matrix(module)) < 1e-12


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@NAMED
def test_module_is_the_oracle_in_both_modes(name: str, backend: str, dtype: torch.dtype) -> None:
    module = on(backend, name, dtype)
    matrix = expanded_matrix(module)
    for batch in (0, 1, 7):
        x = vectors(rotation_circuit(name), batch, dtype=dtype)
        assert error(module(x), x.double() @ matrix.T) < CLOSE[dtype]
    assert error(module.operator(), matrix) < CLOSE[dtype]


@pytest.mark.parametrize("backend", BACKENDS)
@NAMED
def test_gradients_are_those_of_the_reference(name: str, backend: str) -> None:
    module = on(backend, name)
    gates = stored_gates(module)
    matrix = file_operator(CIRCUITS[name], gates)
    x = vectors(rotation_circuit(name), 7).requires_grad_()
    weights = torch.randn(7, len(matrix), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    # A matrix of size 1 has no angles to depend on.
    keys: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    expected = torch.autograd.grad(x @ matrix.T, [x, *gates.values()], weights, retain_graph=True, **keys)
    for found, wanted in zip(gradients(module, x, weights=weights).values(), expected, strict=True):
        assert error(found, wanted) < 1e-11
    weights = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = torch.autograd.grad(matrix, list(gates.values()), weights, **keys)
    built = torch.autograd.grad(module.operator(), list(module.parameters()), weights, **keys)
    for found, wanted in zip(built, expected, strict=True):
        assert error(found, wanted) < 1e-11


@NAMED
def test_published_einsums_and_paths_are_the_circuits(name: str) -> None:
    circuit = rotation_circuit(name)
    module: Any = scaled_module(circuit)
    x = vectors(circuit, 3)
    assert error(published_result(circuit, module, x), module(x)) < 1e-12
    assert error(published_result(circuit, module, None), module.operator()) < 1e-12


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.parametrize("at_zero", [False, True], ids=["drawn", "zeros"])
def test_gradcheck(name: str, at_zero: bool) -> None:
    module: Any = scaled_module(rotation_circuit(name))
    names = [name for name, _ in module.named_parameters()]
    given = [parameter.detach() * (not at_zero) for parameter in module.parameters()]

    def run(x: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(module, dict(zip(names, tensors, strict=True)), (x,))
        return result

    inputs = [tensor.requires_grad_() for tensor in (vectors(rotation_circuit(name), 2), *given)]
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("name", ["per", "shared", "pauli-11-few", *TALL])
def test_only_what_trains_is_stored(name: str) -> None:
    module = rotation_circuit(name).module()
    counts = {key: value.numel() for key, value in module.state_dict().items()}
    assert counts == {f"gates.{key}": count for key, count in STORED[name].items()}


STORED = {
    # Three blocks of q = 2, two of n = 4, two and eight of n = 3, one angle for each of 3 x 4.
    "per": {"g0": 3 * 4, "g1": 2 * 6, "g2": 2 * 3, "g3": 8 * 3, "g4": 12},
    "shared": {"p": 4, "o": 6, "r": 1},
    # 11 = 8 + 3, L = 2, at most two angles of a column: 8 has columns of 3, 2, 2, 2, 2; 3 = 2 + 1 has three of one.
    "pauli-11-few": {"g0": 2 * (2 + 4 * 2) + 2 * 3 + 2},
    "exp-tall": {"g0": 6 + 5 + 4},
    "cayley-tall-few": {"g0": 6 + 5},
    "householder-tall-few": {"g0": 6 + 5},
    "planes-tall": {"g0": 6 + 5 + 4},
    "pauli-tall": {"g0": 5 * 4 - 4},
    # 12 = 8 + 4, L = 1: (3 * 3 - 2), (3 * 2 - 2), and four between them.
    "pauli-tall-12": {"g0": 2 * 7 + 2 * 4 + 4},
}
