"""What every orthogonal gate keeps to: orthonormal columns or rows, before and after training, and its start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_circuits import scaled_module
from random_circuits import error, file_of
from rotation_circuits import CUT, SQUARE, TALL, WIDE, rotation_circuit
from torch.nn.utils import parametrizations

from quanta_compiler.driver import compile_circuit

CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}
ORTHONORMAL = pytest.mark.parametrize("name", [*SQUARE, *TALL, *WIDE])
DTYPES = pytest.mark.parametrize("dtype", CLOSE, ids=str)


def distance(operator: torch.Tensor) -> float:
    """Return the largest entry of Q^T Q - I, or of Q Q^T - I where rows are fewer."""
    wide = operator.detach().double()
    tall = wide if wide.shape[0] >= wide.shape[1] else wide.T
    return float((tall.T @ tall - torch.eye(tall.shape[1], dtype=torch.float64)).abs().max())


@DTYPES
@ORTHONORMAL
def test_operators_are_orthonormal_whatever_is_stored(name: str, dtype: torch.dtype) -> None:
    circuit = rotation_circuit(name)
    module: Any = circuit.module(dtype=dtype, backend="torch")
    assert distance(module.operator()) <= CLOSE[dtype]
    module = scaled_module(circuit, dtype)
    assert distance(module.operator()) <= CLOSE[dtype]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(30)
    assert distance(module.operator()) <= CLOSE[dtype]
    assert distance(module(torch.eye(circuit.spec.in_features, dtype=dtype)).T) <= CLOSE[dtype]


def train(module: Any, steps: int, rate: float = 1e-2) -> float:
    """Fit a random orthogonal matrix by Adam; return the loss at the end over that at the start."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, module.in_features, generator=generator)
    target = torch.linalg.qr(torch.randn(64, 64, generator=generator))[0][: module.in_features, : module.out_features]
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, fused=True)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (module(x) - x @ target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[-1] / losses[0]


def check_training(file: dict[str, Any]) -> None:
    module: Any = compile_circuit(file).module(backend="torch")
    before = module.operator().detach()
    assert train(module, 1000) < 0.9
    assert error(module.operator(), before) > 0.1
    assert distance(module.operator()) <= CLOSE[torch.float32]
    assert distance(module.double().operator()) <= CLOSE[torch.float64]


def test_a_circuit_is_orthogonal_after_a_thousand_steps() -> None:
    gates = [
        {"axes": [1], "kind": "pauli"},
        {"axes": [0], "kind": "ry"},
        {"axes": [0, 1], "kind": "cz"},
        {"axes": [1], "kind": "orthogonal"},
    ]
    check_training(file_of("2x3", gates))


@pytest.mark.slow
@ORTHONORMAL
def test_every_circuit_is_orthonormal_after_a_thousand_steps(name: str) -> None:
    check_training({**SQUARE, **TALL, **WIDE}[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "gate",
    [
        {"kind": "orthogonal"},
        {"kind": "orthogonal", "map": "cayley"},
        {"kind": "orthogonal", "to": [8]},
        {"kind": "pauli", "layers": 4},
    ],
    ids=lambda gate: "-".join(map(str, gate.values())),
)
def test_wide_gates_are_orthonormal_after_a_thousand_steps(gate: dict[str, Any]) -> None:
    check_training(file_of(64, [{"axes": [0], **gate}]))


# The start


def neighbours(size: int) -> torch.Tensor:
    """Return the product of the CZ on all neighbouring wires, `[size]`: -1 for an odd number of pairs of ones."""
    return torch.tensor([(-1.0) ** f"{index & index >> 1:b}".count("1") for index in range(size)])


def last(size: int) -> torch.Tensor:
    """Return ones but for a -1 at the end."""
    return torch.tensor([1.0] * (size - 1) + [-1.0])


QUARTET = neighbours(4)
SIGNS = {
    "pauli-8": neighbours(8),
    "pauli-16-deep": neighbours(16),
    "pauli-wide": neighbours(8),
    # Axis 2 holds the slowest wire; axis 1 is let alone.
    "pauli-two-axes": neighbours(8).view(2, 4, 1).expand(2, 4, 3).permute(1, 2, 0).flatten(),
    # On each index of axis 1, wherever in axes 0 and 2.
    "per": QUARTET[:, None].expand(3, 4, 2).flatten(),
    # `p` on axis 0, its transpose on axis 1, and the CZ on axes 0 and 2.
    "shared": (QUARTET[:, None, None] * QUARTET[:, None] * last(8).view(4, 1, 2)).flatten(),
    # The CZ on axes 0 and 1, 2 and 3, then 1 and 2.
    "two_design-any": (last(3)[:, None, None] * last(8).view(4, 2) * last(4).view(1, 4, 1)).flatten(),
    "cz": last(12),
    # One CZ on the last index of axis 2, and one that is -1 throughout.
    "unit-axes": -last(3).repeat(2),
}
"""What stands on the diagonal at zero: signs where a circuit has an odd number of layers of CZ; elsewhere ones."""


@DTYPES
@pytest.mark.parametrize("name", [*SQUARE, *TALL, *WIDE, *CUT])
def test_circuits_begin_as_documented(name: str, dtype: torch.dtype) -> None:
    module: Any = rotation_circuit(name).module(dtype=dtype, backend="torch")
    assert all(not parameter.any() for parameter in module.parameters())
    operator = module.operator().double()
    one = torch.kron(torch.eye(2), torch.eye(3, 6)) if name == "per-wide" else torch.eye(*operator.shape)
    assert torch.equal(operator, (one * SIGNS.get(name, torch.ones(operator.shape[1]))).double())
    assert torch.equal(module(torch.eye(operator.shape[1], dtype=dtype)).T.double(), operator)


@pytest.mark.parametrize("scheme", ["kaiming_uniform", "orthogonal", "zeros", None])
def test_the_circuits_scheme_leaves_rotations_at_zero(scheme: str | None) -> None:
    gates = [{"axes": [0], "kind": kind} for kind in ("pauli", "orthogonal")]
    module: Any = compile_circuit(file_of(6, gates, **({} if scheme is None else {"init": scheme}))).module()
    assert torch.equal(module.operator(), torch.eye(6))


@pytest.mark.parametrize("kind", ["ry", "pauli", "orthogonal"])
def test_normal_draws_angles(kind: str) -> None:
    size = 2 if kind == "ry" else 8
    gate = {"axes": [1], "per": [0], "kind": kind, "init": {"scheme": "normal", "std": 0.5}}
    compiled = compile_circuit(file_of([50, size], [gate]))
    module: Any = compiled.module(seed=3)
    drawn = module.get_parameter("gates.g0")
    assert drawn.shape[0] == 50
    assert 0.35 < float(drawn.std()) < 0.65
    again: Any = compiled.module(seed=3)
    assert torch.equal(again.get_parameter("gates.g0"), drawn)


# Beside torch's own parametrization


@pytest.mark.parametrize("how", ["exp", "cayley"])
@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (7, 3), (3, 7), (4, 1), (1, 1)])
def test_orthogonal_gates_are_torchs_parametrization(rows: int, columns: int, how: str) -> None:
    file = file_of(columns, [{"axes": [0], "to": [rows], "kind": "orthogonal", "map": how}])
    module: Any = scaled_module(compile_circuit(file))
    size, fewer = max(rows, columns), min(rows, columns)
    entries = torch.zeros(size, fewer, dtype=torch.float64)
    below = torch.ones(fewer, size).triu(1).bool().T
    entries.T[below.T] = module.get_parameter("gates.g0").detach()
    # A wide matrix is the first rows of Q. Torch's is the transpose of its Q's first columns: our Q's inverse.
    layer: Any = torch.nn.Linear(columns, rows, bias=False, dtype=torch.float64)
    parametrizations.orthogonal(layer, orthogonal_map="matrix_exp" if how == "exp" else how, use_trivialization=False)
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(entries if rows >= columns else -entries.T)
    assert error(module.operator(), layer.weight) < 1e-12
