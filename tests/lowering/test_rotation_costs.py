"""What the report says of rotations, against what torch does: products, what is kept for backward, the peak."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_circuits import counted_flops, peak_bytes, saved_bytes
from random_circuits import file_of
from rotation_circuits import CIRCUITS as SMALL

from quanta_compiler.driver import CompiledCircuit, compile_circuit

MORE: dict[str, Any] = {
    "quantum_peft": file_of(
        48,
        [
            {"axes": [0], "to": [4], "kind": "pauli"},
            {"axes": [0], "kind": "diagonal"},
            {"axes": [0], "to": [40], "kind": "pauli"},
        ],
    ),
    "pauli-259": file_of(259, [{"axes": [0], "kind": "pauli", "rank_parameters": 3}]),
    "called-ry": file_of("2x8", [{"axes": [0], "kind": "ry"}, {"axes": [1], "kind": "pauli", "to": [3], "name": "ry"}]),
    # A sum's second half is as large as the other gate, and its blocks are made for twice as many.
    "sum-beside-its-half": file_of("2x16x3", [{"axes": [2, 1], "kind": "pauli"}, {"axes": [1], "kind": "pauli"}]),
    "frozen": file_of("2x2x2", [{"pattern": "two_design", "frozen": True}, {"axes": [0, 1]}]),
    "frozen-beside": file_of(
        12,
        [{"axes": [0], "kind": "pauli", "frozen": True}, {"axes": [0], "kind": "orthogonal", "frozen": True}, [0]],
    ),
}
CIRCUITS = {**SMALL, **MORE}
CASES = [(name, tokens) for name in CIRCUITS for tokens in (7, 300)]


def circuit_of(name: str, tokens: int) -> CompiledCircuit:
    return compile_circuit(CIRCUITS[name], tokens=tokens)


@pytest.mark.parametrize(("name", "tokens"), CASES)
def test_flops_are_those_that_torch_counts(name: str, tokens: int) -> None:
    circuit = circuit_of(name, tokens)
    module, report = circuit.module(backend="torch"), circuit.report
    x = torch.zeros(tokens, report.in_features)
    for steps, run in ((report.apply.steps, lambda: module(x)), (report.operator.steps, module.operator)):
        assert counted_flops(run) == sum(step.flops for step in steps if step.op == "matmul")  # type: ignore[arg-type]
        assert {step.op for step in steps} <= {"matmul", "elementwise", "copy"}
    assert report.apply.flops_per_token * tokens == pytest.approx(sum(step.flops for step in report.apply.steps))


@pytest.mark.parametrize(("name", "tokens"), CASES)
def test_saved_bytes_are_those_that_autograd_keeps(name: str, tokens: int) -> None:
    circuit = circuit_of(name, tokens)
    module = circuit.module(backend="torch")
    x = torch.zeros(tokens, circuit.report.in_features, requires_grad=True)
    assert saved_bytes(module, lambda: module(x)) == round(circuit.report.apply.saved_bytes_per_token * tokens)


@pytest.mark.parametrize(("name", "tokens"), CASES)
def test_peak_bytes_are_those_alive_at_once(name: str, tokens: int) -> None:
    """To a fifth; an exponential or a solution takes memory of its own while it is computed."""
    circuit = circuit_of(name, tokens)
    module, report = circuit.module(backend="torch"), circuit.report
    x = torch.zeros(tokens, report.in_features)
    is_plain = not any(gate.kind == "orthogonal" for gate in circuit.spec.gates)
    wanted = round(report.apply.peak_bytes_per_token * tokens), report.operator.peak_bytes
    for run, given, bytes_of in ((lambda: module(x), x, wanted[0]), (module.operator, None, wanted[1])):
        found = peak_bytes(module, given, run)  # type: ignore[arg-type]
        assert found == pytest.approx(bytes_of, rel=0.2 if is_plain else 0.3)


@pytest.mark.parametrize("name", CIRCUITS)
def test_steps_name_gates_of_the_file_or_results(name: str) -> None:
    report = circuit_of(name, 7).report
    names = {gate.name for gate in report.gates} | {"input", "eye", "one"}
    for steps in (report.apply.steps, report.operator.steps):
        results = {f"%{number}" for number in range(1, len(steps) + 1)}
        factors = {f"{gate}{factor}" for gate in names for factor in (".A", ".B")}
        assert all(set(step.operands) <= names | factors | results for step in steps)
