"""What a circuit asks of a machine, against what the report says and what torch counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from compiled_circuits import counted_flops
from drawn_kinds import STORED
from random_circuits import file_of, random_file

from quanta_compiler.compare.method_costs import linear_work
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.work import FusedPass, Pass, Permutation, Product, Work, joined

SEEDS = range(40)


def drawn(seed: int, tokens: int | None = None) -> CompiledCircuit:
    """Return the random circuit of a seed, without rotations, which test_predicted_rotations has."""
    return compile_circuit(random_file(seed, kinds=STORED), tokens=tokens)


def products(work: Work) -> int:
    """Return the FLOPs of the matrix products, forward and backward."""
    return sum(one.flops for one in (*work.forward, *work.backward) if isinstance(one, Product | FusedPass))


def torch_flops(circuit: CompiledCircuit, backend: str) -> int:
    """Return what torch counts for a training step on a batch of the planned size."""
    module = circuit.module(backend=backend)
    x = torch.randn(circuit.spec.tokens, circuit.spec.in_features, requires_grad=True)

    def step() -> None:
        y = module(x)
        if y.requires_grad:
            y.backward(torch.ones_like(y))

    return counted_flops(step)


@pytest.mark.parametrize("seed", SEEDS)
def test_forward_flops_are_those_of_the_report(seed: int) -> None:
    apply = drawn(seed).report.apply
    expected = apply.flops_per_token * apply.planned_tokens
    assert circuit_work(drawn(seed)).forward_flops == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_products_are_what_torch_counts(seed: int) -> None:
    circuit = drawn(seed, 3 + seed % 5)
    assert products(circuit_work(circuit)) == torch_flops(circuit, "torch")


@pytest.mark.parametrize("seed", range(0, 40, 3))
def test_the_kernels_products_are_what_torch_counts(seed: int) -> None:
    circuit = drawn(seed, 5)
    assert products(circuit_work(circuit, "fused")) == torch_flops(circuit, "fused")


@pytest.mark.parametrize("seed", range(0, 40, 2))
def test_steps_are_those_that_the_report_lists(seed: int) -> None:
    steps = [step.op for step in drawn(seed).report.apply.steps]
    forward = circuit_work(drawn(seed)).forward
    assert sum(isinstance(one, Product) for one in forward) == steps.count("matmul")
    assert sum(isinstance(one, Pass) and one.flops > 0 for one in forward) == steps.count("elementwise")


def permutations(*gates: Any, layout: str = "4x5x6", tokens: int = 7) -> list[Permutation]:
    work = circuit_work(compile_circuit(file_of(layout, list(gates)), tokens=tokens))
    return [one for one in (*work.forward, *work.backward) if isinstance(one, Permutation)]


def test_a_copy_is_said_as_torch_sees_it() -> None:
    # The middle axis goes to the end for the product, and from there back to its place; backward likewise.
    found = permutations({"axes": [1]}, {"axes": [0]}, {"axes": [2]})
    assert found
    for one in found:
        assert all(size > 1 for size in one.sizes)
        assert len(one.sizes) == len(one.strides) >= 2
        source = torch.arange(one.numbers)
        copy = source.as_strided(one.sizes, one.strides)
        assert sorted(copy.flatten().tolist()) == source.tolist()
        assert not copy.is_contiguous()


def test_a_gate_on_the_last_axis_moves_nothing() -> None:
    assert permutations({"axes": [2]}) == []


def test_frozen_gates_have_no_gradient_of_their_own() -> None:
    trained, frozen = (
        circuit_work(compile_circuit(file_of("8x8", [{"axes": [1], "frozen": is_frozen}]), tokens=4))
        for is_frozen in (False, True)
    )
    assert trained.forward == frozen.forward
    assert [one for one in trained.backward if isinstance(one, Product)] == [
        Product(8, 32, 8, is_transposed=True),
        Product(32, 8, 8),
    ]
    assert frozen.backward == (Product(32, 8, 8),)


def test_a_diagonal_is_elementwise_and_its_gradient_is_summed() -> None:
    work = circuit_work(compile_circuit(file_of("4x8", [{"axes": [1], "kind": "diagonal"}]), tokens=4))
    (forward,) = work.forward
    assert forward == Pass(4 * (128 + 8 + 128), 128, inner=8)
    assert [one.flops for one in work.backward] == [128, 128, 128]


def test_padding_is_filled_and_copied_into() -> None:
    work = circuit_work(compile_circuit(file_of("4x8", [[1]], in_features=30), tokens=4))
    assert work.forward[:2] == (Pass(4 * 4 * 32), Pass(2 * 4 * 4 * 30))
    assert work.backward[-1] == Pass(2 * 4 * 4 * 30)


def test_what_does_nothing_is_one_copy() -> None:
    work = circuit_work(compile_circuit(file_of("4x8", [{"axes": [1], "kind": "slice"}]), tokens=4))
    assert work.forward == (Pass(2 * 4 * 4 * 32),)
    assert work.backward == ()


def test_a_dense_layer() -> None:
    work = linear_work(5, 32, 48)
    x, weight = torch.randn(5, 32, requires_grad=True), torch.randn(48, 32, requires_grad=True)
    flops = counted_flops(lambda: torch.autograd.grad((x @ weight.t()).sum(), (x, weight)))
    assert products(work) == flops == work.step_flops
    assert work.forward_flops == 2 * math.prod((32, 48, 5))


def test_work_one_after_the_other() -> None:
    first, second = linear_work(4, 2, 3), linear_work(4, 3, 5)
    whole = joined([first, second])
    assert whole.forward == first.forward + second.forward
    assert whole.backward == second.backward + first.backward


def test_a_backend_that_chooses_is_no_backend() -> None:
    with pytest.raises(ValueError, match="'auto' is no backend that works by itself: choose one of torch, fused"):
        circuit_work(drawn(0), "auto")
