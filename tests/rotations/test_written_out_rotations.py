"""Operators that are contracted from the blocks of their `pauli` gates, however small these are here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_circuits import counted_flops, peak_bytes, published_result, scaled_module
from random_circuits import error, file_of
from rotation_circuits import SQUARE
from sliced_circuits import all_slicings, in_slices

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.oracle.reference import reference_operator
from quanta_compiler.planner import planner

CIRCUITS: dict[str, dict[str, Any]] = {
    **{name: SQUARE[name] for name in ("pauli-8", "pauli-16-deep", "pauli-few", "pauli-two-axes", "shared")},
    "128": file_of(128, [{"axes": [0], "kind": "pauli", "layers": 2, "rank_parameters": 3}]),
    "cut-input": file_of(64, [{"axes": [0], "kind": "pauli"}], in_features=60),
    "cut-output": file_of("32x3", [{"axes": [0], "kind": "pauli"}], in_features=95, out_features=64),
    "still-wires": file_of("16x3", [{"axes": [0], "kind": "pauli", "rank_parameters": 1}], output=[1, 0]),
    "still-and-untouched": file_of(
        "2x16x1x3",
        [{"axes": [1], "kind": "pauli", "layers": 0, "rank_parameters": 2}, {"axes": [3], "kind": "diagonal"}],
    ),
    "between": file_of(
        "4x8x2",
        [
            [1, 2],
            {"axes": [1], "kind": "pauli"},
            {"axes": [0, 1], "kind": "lowrank", "rank": 2},
            {"axes": [0, 2], "kind": "pauli", "frozen": True},
            {"axes": [2], "kind": "diagonal", "per": [1]},
            {"axes": [1], "to": [6], "kind": "pauli"},
            {"axes": [0], "kind": "slice", "to": [3]},
        ],
        in_features=60,
        out_features=40,
    ),
}


@pytest.fixture(params=CIRCUITS)
def circuit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CompiledCircuit:
    """Compile a circuit with no matrix too small to be written out."""
    monkeypatch.setattr(planner, "SMALL_FOR_OPERATOR", 0)
    compiled = compile_circuit(CIRCUITS[request.param])
    assert any(leaf.gate is not None and leaf.gate.block_of is not None for leaf in compiled.operator.plan.leaves)
    return compiled


def test_operators_are_those_of_the_reference_in_every_slicing(circuit: CompiledCircuit) -> None:
    module = scaled_module(circuit)
    expected = reference_operator(module)
    for compiled in (circuit, *(in_slices(circuit, slicing) for slicing in all_slicings(circuit))):
        sliced: Any = scaled_module(compiled)
        assert error(sliced.operator().detach(), expected) < 1e-12


def test_figures_are_those_of_torch(circuit: CompiledCircuit) -> None:
    module: Any = circuit.module(backend="torch")
    operator = circuit.report.operator
    assert counted_flops(module.operator) == sum(step.flops for step in operator.steps if step.op == "matmul")
    assert peak_bytes(module, None, module.operator) == pytest.approx(operator.peak_bytes, rel=0.2)


def test_gradients_and_the_published_path_are_those_of_the_circuit(circuit: CompiledCircuit) -> None:
    module: Any = scaled_module(circuit)
    assert error(published_result(circuit, module, None), module.operator()) < 1e-12
    probe = torch.randn(module.operator().shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    found = torch.autograd.grad((module.operator() * probe).sum(), trained)
    # The rows of an operator, by forward.
    unit = torch.eye(module.in_features, dtype=torch.float64)
    expected = torch.autograd.grad((module(unit) * probe.T).sum(), trained)
    for one, other in zip(found, expected, strict=True):
        assert error(one, other) < 1e-10


def test_a_two_design_costs_what_its_pattern_does() -> None:
    """Nothing is applied to an identity matrix, which would have 65 times the FLOPs."""
    pauli, pattern = (
        compile_circuit(file_of(layout, [gate])).report.operator
        for layout, gate in (
            (4096, {"axes": [0], "kind": "pauli"}),
            ("x".join("2" * 12), {"pattern": "two_design"}),
        )
    )
    assert pauli.flops < 2 * pattern.flops
    # A second matrix is not made.
    assert pauli.peak_bytes < 1.25 * 4 * 4096**2
