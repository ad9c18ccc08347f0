"""Operators of rotations built slice by slice: an axis that the loop goes over in chunks is whole in its gate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_circuits import error, file_of, scale_gates
from rotation_circuits import CIRCUITS
from sliced_circuits import all_slicings, in_slices

from quanta_compiler.driver import compile_circuit
from quanta_compiler.oracle.reference import reference_operator


def on(axis: int, kind: str, **keys: Any) -> dict[str, Any]:
    return {"axes": [axis], "kind": kind, **keys}


LARGE: dict[str, dict[str, Any]] = {
    "each": file_of("32x32", [{"pattern": "each", "kind": "orthogonal"}]),
    "one": file_of("512", [on(0, "orthogonal", map="cayley", rank_parameters=4)]),
    "padded": file_of("600", [on(0, "orthogonal", rank_parameters=4)], in_features=590, out_features=590),
    "product": file_of("768", [on(0, "orthogonal", to=[4]), on(0, "diagonal"), on(0, "orthogonal", to=[768])]),
    "per": file_of("64x16", [on(0, "orthogonal", rank_parameters=2, per=[1])]),
    "turns": file_of("2x256x3", [{"pattern": "each"}, on(0, "ry", per=[1]), [0, 2]]),
    "pauli": file_of("16x8x8", [{"pattern": "all_pairs", "kind": "pauli"}]),
}


@pytest.mark.parametrize("name", LARGE)
def test_operators_are_those_of_the_reference(name: str) -> None:
    circuit = compile_circuit(LARGE[name])
    module = scale_gates(circuit.module(dtype=torch.float64, backend="torch"), 0)
    expected = reference_operator(module)
    built: torch.Tensor = module.operator()  # type: ignore[operator]
    assert error(built.detach(), expected) < 1e-12
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    added: torch.Tensor = module.operator(add_to=weight.clone(), scale=2.0)  # type: ignore[operator]
    assert error(added, weight + 2 * expected) < 1e-12


@pytest.mark.parametrize("name", CIRCUITS)
def test_every_slicing_builds_the_same_matrix(name: str) -> None:
    circuit = compile_circuit(CIRCUITS[name])
    expected = reference_operator(scale_gates(circuit.module(dtype=torch.float64, backend="torch"), 0))
    for slicing in all_slicings(circuit):
        module = scale_gates(in_slices(circuit, slicing).module(dtype=torch.float64, backend="torch"), 0)
        built: torch.Tensor = module.operator()  # type: ignore[operator]
        assert error(built.detach(), expected) < 1e-12
