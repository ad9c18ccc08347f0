"""Circuits of RY and CZ beside PennyLane, an independent simulator, wire 0 the slowest bit."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from plain_rotations import plain_pauli
from random_circuits import error, file_of
from rotation_circuits import file_operator

from quanta_compiler.driver import compile_circuit
from quanta_compiler.oracle.reference import reference_operator

qml = pytest.importorskip("pennylane")
linalg = pytest.importorskip("scipy.linalg")
Array = npt.NDArray[np.float64]
SHAPES = [(1, 1), (2, 1), (3, 2), (4, 1), (5, 1), (5, 3), (6, 0), (7, 1)]
"""Wires and layers."""


def draw(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=count) * 2


def queue_circuit(angles: Array, wires: int, layers: int, kept: int | None) -> None:
    """Queue the simplified two-design circuit in PennyLane; angles beyond the first `kept` of a column are zero."""
    left = iter(angles)
    for wire in range(wires)[:kept]:
        qml.RY(next(left), wires=wire)
    for _ in range(layers):
        for start in (0, 1):
            pairs = list(zip(range(start, wires, 2), range(start + 1, wires, 2), strict=False))
            for pair in pairs:
                qml.CZ(wires=pair)
            for wire in islice((wire for pair in pairs for wire in pair), kept):
                qml.RY(next(left), wires=wire)
    assert not list(left)


def simulated(angles: Array, wires: int, layers: int, kept: int | None = None) -> torch.Tensor:
    """Return PennyLane's matrix of the circuit, `[2^wires, 2^wires]`."""
    if wires == 0:
        return torch.eye(1, dtype=torch.float64)
    matrix = qml.matrix(queue_circuit, wire_order=range(wires))(angles, wires, layers, kept)
    assert np.abs(np.imag(matrix)).max() == 0
    return torch.from_numpy(np.real(matrix).astype(np.float64))


def angle_count(wires: int, layers: int, kept: int | None) -> int:
    """Return how many RY the circuit has: a column of all wires, and columns of as many pairs as fit."""
    columns = [wires] + [2 * (wires // 2), 2 * ((wires - 1) // 2)] * layers
    return sum(columns if kept is None else [min(kept, column) for column in columns])


@pytest.mark.parametrize(("wires", "layers", "kept"), [*((*shape, None) for shape in SHAPES), (4, 2, 1), (5, 2, 3)])
def test_a_pauli_gate_is_the_simulators_circuit(wires: int, layers: int, kept: int | None) -> None:
    keys = {} if kept is None else {"rank_parameters": kept}
    angles = draw(angle_count(wires, layers, kept), wires)
    expected = simulated(angles, wires, layers, kept)
    file = file_of(2**wires, [{"axes": [0], "kind": "pauli", "layers": layers, **keys}])
    assert error(file_operator(file, {"g0": torch.from_numpy(angles)}), expected) < 1e-12
    assert error(torch.from_numpy(plain_pauli(2**wires, layers, angles, kept)), expected) < 1e-12
    check_module(file, angles, expected)


@pytest.mark.parametrize(("wires", "layers"), SHAPES)
def test_a_two_design_pattern_is_the_simulators_circuit(wires: int, layers: int) -> None:
    angles = draw(angle_count(wires, layers, None), wires)
    file = file_of([2] * wires, [{"pattern": "two_design", "layers": layers}])
    check_module(file, angles, simulated(angles, wires, layers))


def check_module(file: dict[str, Any], angles: Array, expected: torch.Tensor) -> None:
    """Give a compiled module these angles in the order of its state dict; compare both modes in both precisions."""
    compiled = compile_circuit(file)
    for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        module: Any = compiled.module(dtype=dtype, backend="torch")
        assert sum(parameter.numel() for parameter in module.parameters()) == len(angles)
        torch.nn.utils.vector_to_parameters(torch.from_numpy(angles).to(dtype), module.parameters())
        if dtype == torch.float64:
            assert error(reference_operator(module), expected) < 1e-12
        x = torch.randn(5, len(expected), dtype=dtype, generator=torch.Generator().manual_seed(1))
        assert error(module(x), x.double() @ expected.T) < close
        assert error(module.operator(), expected) < close


# Sizes that are no power of two: a sum of circuits, and rotations between its halves.


def cosine_sine(size: int, layers: int, angles: Array) -> tuple[Array, int]:
    """Return diag(U1, U2) C diag(V1, V2) and how many angles it takes; C as the exponential of its generator."""
    wires = size.bit_length() - 1
    if size == 2**wires:
        count = angle_count(wires, layers, None) if wires else 0
        return simulated(angles[:count], wires, layers).numpy(), count
    first, second = 2**wires, size - 2**wires
    taken = 0

    def apart() -> Array:
        nonlocal taken
        above, used = cosine_sine(first, layers, angles[taken:])
        below, more = cosine_sine(second, layers, angles[taken + used :])
        taken += used + more
        both: Array = linalg.block_diag(above, below)
        return both

    right = apart()
    generator = np.zeros((size, size))
    generator[range(first, size), range(second)] = angles[taken : taken + second] / 2
    taken += second
    middle = linalg.expm(generator - generator.T)
    return apart() @ middle @ right, taken


@pytest.mark.parametrize(("size", "layers"), [(3, 1), (5, 2), (6, 1), (7, 1), (12, 2), (15, 0), (259, 1)])
def test_sizes_between_powers_of_two_are_made_of_the_simulators_circuits(size: int, layers: int) -> None:
    many = draw(1000, size)
    expected, count = cosine_sine(size, layers, many)
    angles, matrix = many[:count], torch.from_numpy(expected)
    file = file_of(size, [{"axes": [0], "kind": "pauli", "layers": layers}])
    assert error(file_operator(file, {"g0": torch.from_numpy(angles)}), matrix) < 1e-12
    assert error(torch.from_numpy(plain_pauli(size, layers, angles)), matrix) < 1e-12
    check_module(file, angles, matrix)
