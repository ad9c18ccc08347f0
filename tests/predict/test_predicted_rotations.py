"""What rotations ask of a machine: making their matrices, and applying `pauli` gates by their structure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_circuits import counted_flops
from drawn_kinds import ROTATIONS
from made_up_calibration import calibration
from random_circuits import file_of, random_file
from rotation_circuits import CIRCUITS

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.times import predicted_times, seconds_of
from quanta_compiler.predict.work import FusedPass, MatrixFunction, Pass, Product, Work
from quanta_compiler.runtime.backends import RUNNING
from quanta_compiler.spec import load_spec

CASES: list[int | str] = [*range(12), *CIRCUITS]
EXAMPLES = [
    path
    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    if {gate.kind for gate in load_spec(path).gates} & {"ry", "cz", "orthogonal", "pauli"}
]


def circuit_of_case(case: int | str) -> CompiledCircuit:
    return compile_circuit(random_file(case, kinds=ROTATIONS) if isinstance(case, int) else CIRCUITS[case], tokens=5)


def products(work: Work) -> int:
    """Return the FLOPs of the matrix products, forward and backward."""
    return sum(one.flops for one in (*work.forward, *work.backward) if isinstance(one, Product | FusedPass))


def torch_flops(circuit: CompiledCircuit, backend: str) -> int:
    """Return what torch counts for a training step."""
    module: Any = circuit.module(backend=backend)
    x = torch.randn(circuit.spec.tokens, circuit.spec.in_features, requires_grad=True)
    return counted_flops(lambda: module(x).sum().backward())


@pytest.mark.parametrize("case", CASES)
def test_flops_are_the_reports_and_products_are_what_torch_counts(case: int | str) -> None:
    circuit = circuit_of_case(case)
    apply = circuit.report.apply
    work = circuit_work(circuit)
    assert work.forward_flops == pytest.approx(apply.flops_per_token * apply.planned_tokens, rel=1e-12)
    for backend in RUNNING:
        assert products(circuit_work(circuit, backend)) == torch_flops(circuit, backend)


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_that_the_report_lists(case: int | str) -> None:
    circuit = circuit_of_case(case)
    steps = [step.op for step in circuit.report.apply.steps]
    forward = circuit_work(circuit).forward
    assert sum(isinstance(one, Product) for one in forward) == steps.count("matmul")
    # Padding fills and copies, so it is two of them.
    assert sum(one.flops == 0 for one in forward) >= steps.count("copy")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_have_their_reports_flops_and_times(file: Path) -> None:
    circuit = compile_circuit(file)
    apply = circuit.report.apply
    work = circuit_work(circuit)
    assert work.forward_flops == pytest.approx(apply.flops_per_token * apply.planned_tokens, rel=1e-12)
    for backend in RUNNING:
        times = predicted_times(circuit_work(circuit, backend), calibration())
        assert 0 < times.forward_seconds < times.step_seconds


def test_frozen_rotations_have_no_gradients_of_their_own() -> None:
    kinds = [{"axes": [0], "kind": "pauli"}, {"axes": [1], "kind": "orthogonal"}, {"axes": [2], "kind": "ry"}]
    files = [
        file_of("12x6x2", [*({**gate, "frozen": is_frozen} for gate in kinds), {"axes": [0, 1], "kind": "cz"}])
        for is_frozen in (False, True)
    ]
    for backend in RUNNING:
        trained, frozen = (circuit_work(compile_circuit(file, tokens=8), backend) for file in files)
        assert trained.forward_flops == frozen.forward_flops
        assert not any(isinstance(one, MatrixFunction) for one in frozen.backward)
        assert products(frozen) < products(trained)


def test_a_function_of_a_matrix_takes_what_its_products_take() -> None:
    known = calibration()
    product = Product(16, 16, 16, 3)
    function = MatrixFunction(16, 16, 3, 8 * product.flops, is_double=False)
    assert seconds_of(function, known) == pytest.approx(8 * seconds_of(product, known))
    assert seconds_of(replace(function, is_double=True), known) == pytest.approx(16 * seconds_of(product, known))


def test_all_ry_are_made_at_once() -> None:
    few, many = (circuit_work(compile_circuit(file_of([2] * wires, ["two_design"]), tokens=4)) for wires in (3, 5))
    made = [[one for one in work.forward[:5] if isinstance(one, Pass)] for work in (few, many)]
    assert [sum(one.flops for one in passes) for passes in made] == [4 * 7, 4 * 13]
