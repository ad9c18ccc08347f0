"""Figures of operators that are built slice by slice, against independent counts on the running module."""

from __future__ import annotations

import math

import pytest
from compiled_circuits import computed_kinds, counted_flops, peak_bytes
from random_circuits import file_of
from sliced_circuits import sliced

from quanta_compiler.driver import CompiledCircuit, compile_circuit

SEEDS = [*range(48), 65, 224]
LONG = {23, 26}
"""Circuits that take as long as ten of the others."""


def check(circuit: CompiledCircuit) -> None:
    """Compare what the report says of `operator()` with what torch counts and a meter sees."""
    module, report = circuit.module(backend="torch"), circuit.report.operator
    computed = computed_kinds(circuit)
    # What makes a matrix of a few numbers is less than a slice of one.
    near = 0.4 if computed else 0.0
    assert peak_bytes(module, None, module.operator) == pytest.approx(report.peak_bytes, rel=near)  # type: ignore[arg-type]
    counted = sum(step.flops for step in report.steps if step.op == "matmul")
    assert counted_flops(module.operator) == counted  # type: ignore[arg-type]
    assert report.flops == sum(step.flops for step in report.steps)
    assert computed or report.flops <= report.sequential_flops
    for step in report.steps:
        assert step.op in ("matmul", "elementwise", "copy")
        if step.op == "copy" or (step.op == "elementwise" and not computed):
            assert step.flops == (math.prod(step.shape) if step.op == "elementwise" else 0)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed in LONG)) for seed in SEEDS])
def test_figures_of_every_slicing_are_those_that_are_counted(seed: int) -> None:
    for circuit in sliced(seed):
        check(circuit)
        loop = circuit.operator.loop
        assert loop is not None
        assert circuit.report.operator.slices == loop.slices
        written = circuit.report.operator.steps[-1]
        assert (written.op, written.shape[0]) == ("copy", loop.slices)


@pytest.mark.parametrize(
    ("layout", "keys"),
    [("8x8x8", {}), ("8x8x9", {"in_features": 600, "out_features": 520}), ("16x8x5", {"out_features": 650})],
    ids=str,
)
def test_figures_of_operators_that_are_sliced_for_their_size(layout: str, keys: dict[str, int]) -> None:
    circuit = compile_circuit(file_of(layout, ["all_pairs"], **keys))
    assert circuit.report.operator.slices > 1
    check(circuit)
