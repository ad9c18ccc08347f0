"""A kind whose function is its own text: emitted once, exported, and counted in reports and predictions."""

from __future__ import annotations

import io

import pytest
import torch
from random_circuits import file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.oracle.verification import verify
from quanta_compiler.predict.circuits import circuit_work

FILE = file_of(
    "2x3x4",
    [
        {"axes": [1, 2], "kind": "householder", "per": [0], "name": "h"},
        {"axes": [1], "kind": "householder", "reflections": 2, "to": [5]},
        {"axes": [1, 2], "kind": "orthogonal"},
        {"axes": [2], "kind": "householder", "to": [2], "per": "rest"},
    ],
)


@pytest.fixture
def circuit(householder: None) -> CompiledCircuit:
    return compile_circuit(FILE, tokens=6)


def test_the_text_is_written_once_and_exported(circuit: CompiledCircuit) -> None:
    assert verify(circuit).passed
    assert circuit.source.count("def _householder__householder(") == 1
    module, x = circuit.module(backend="torch"), torch.randn(6, circuit.report.in_features)
    exported = torch.export.export(module, (x,))
    saved = io.BytesIO()
    torch.export.save(exported, saved)
    saved.seek(0)
    torch.testing.assert_close(torch.export.load(saved).module()(x), module(x))


def test_its_steps_are_in_the_report_and_in_what_is_predicted(circuit: CompiledCircuit) -> None:
    steps = [step for step in circuit.report.apply.steps if "h" in step.operands]
    assert steps[0].op == "elementwise"
    for backend in ("torch", "fused"):
        assert circuit_work(circuit, backend).step_flops > 0
