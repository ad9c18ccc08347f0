"""The two-design circuit on axes of any sizes, by Kronecker products in numpy: 768 = 12 x 8 x 8 among them."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
import torch
from compiled_circuits import scaled_module
from plain_rotations import Array, plain_orthogonal, plain_ry
from random_circuits import error, file_of

from quanta_compiler.driver import compile_circuit

CASES = [((12, 8, 8), 1), ((12, 8, 8), 2), ((3, 5), 3), ((2, 3, 2, 4), 2), ((5,), 1), ((2, 2, 3), 0), ((1, 4, 3), 1)]


def turns(sizes: tuple[int, ...], layers: int) -> list[tuple[int, ...]]:
    """Return the axes of each gate: one of an RY, two of a CZ."""
    listed: list[tuple[int, ...]] = [(axis,) for axis in range(len(sizes))]
    for start in [0, 1] * layers:
        pairs = [(axis, axis + 1) for axis in range(start, len(sizes) - 1, 2)]
        listed += [*pairs, *((axis,) for pair in pairs for axis in pair)]
    return listed


def count(sizes: tuple[int, ...], layers: int) -> int:
    return sum(sizes[one[0]] * (sizes[one[0]] - 1) // 2 for one in turns(sizes, layers) if len(one) == 1)


def kron(slow: Array, fast: Array) -> Array:
    return np.asarray(np.kron(slow, fast), dtype=np.float64)


def plain_matrix(sizes: tuple[int, ...], layers: int, numbers: Array) -> Array:
    """Return the product of all gates, each written out over all axes."""
    matrix, used = np.eye(math.prod(sizes)), 0
    for axes in turns(sizes, layers):
        if len(axes) == 2:
            last = [np.arange(size) == size - 1 if axis in axes else np.ones(size) for axis, size in enumerate(sizes)]
            matrix = (1 - 2 * reduce(kron, last))[:, None] * matrix
            continue
        size = sizes[axes[0]]
        own = numbers[used : used + size * (size - 1) // 2]
        used += len(own)
        turned = plain_ry(own.item()) if size == 2 else plain_orthogonal(size, size, own, "exp")
        factors = [turned if axis == axes[0] else np.eye(other) for axis, other in enumerate(sizes)]
        matrix = reduce(kron, factors) @ matrix
    assert used == len(numbers)
    return np.asarray(matrix, dtype=np.float64)


@pytest.mark.parametrize(("sizes", "layers"), CASES, ids=str)
@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_operator_and_count_are_numpys(sizes: tuple[int, ...], layers: int, backend: str) -> None:
    circuit = compile_circuit(file_of(list(sizes), [{"pattern": "two_design", "layers": layers}]), tokens=8)
    drawn = scaled_module(circuit)
    numbers = torch.cat([parameter.detach().flatten() for parameter in drawn.parameters()]).numpy()
    assert circuit.report.parameters.trainable == len(numbers) == count(sizes, layers)
    expected = torch.from_numpy(plain_matrix(sizes, layers, numbers))
    module = circuit.module(backend=backend, dtype=torch.float64)
    module.load_state_dict(drawn.state_dict())
    assert error(module.operator(), expected) < 1e-12  # type: ignore[operator]
    x = torch.linspace(-1, 1, 8 * math.prod(sizes), dtype=torch.float64).view(8, -1)
    assert error(module(x), x @ expected.T) < 1e-12


def test_numbers_of_768() -> None:
    """A pauli gate of that size has 350 angles, and padded to 1024 it has 28."""
    assert count((12, 8, 8), 1) == 66 + 28 + 28 + 66 + 28 + 28 + 28 == 272
