"""An operator that is added to a weight, slice by slice: exact, rounded once, and without a second matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_circuits import compiled, peak_meter, plain_matrix, scaled_module
from quick_seeds import every_second
from random_circuits import error, file_of, random_file
from sliced_circuits import sliced

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.runtime.loading import load_class

SEEDS = [*every_second(range(45)), 65, 90]


@pytest.mark.parametrize("seed", SEEDS)
def test_adding_is_adding_the_matrix(seed: int) -> None:
    for circuit in (compiled(seed), *sliced(seed)):
        module = scaled_module(circuit)
        matrix = plain_matrix(random_file(seed), module)
        weight = torch.randn(matrix.shape, dtype=torch.float64)
        expected = weight - 0.5 * matrix
        given = weight.clone()
        added = module.operator(add_to=given, scale=-0.5)  # type: ignore[operator]
        assert added is given
        assert error(given, expected) < 1e-10
        assert not given.requires_grad
        turned = weight.t().contiguous().t()
        module.operator(add_to=turned, scale=-0.5)  # type: ignore[operator]
        assert error(turned, expected) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_sum_is_rounded_once(medium: CompiledCircuit, dtype: torch.dtype) -> None:
    """Computed in the gates' float32, autocast or not, added, and rounded to what the weight has."""
    module: Any = scaled_module(medium, torch.float32)
    weight = torch.nn.Parameter(torch.randn(512, 512, generator=torch.Generator().manual_seed(2)).to(dtype))
    start = weight.detach().clone()
    with torch.autocast("cpu", torch.bfloat16):
        module.operator(add_to=weight, scale=0.25)
    with torch.no_grad():
        expected = (start.double() + 0.25 * module.operator().double()).to(dtype)
    if dtype == torch.bfloat16:
        # Where the sum in float32 lies within its own rounding of the middle between two numbers, either may be taken.
        assert float((weight == expected).double().mean()) > 0.999
        assert error(weight, expected) < 1e-4
    else:
        assert error(weight, expected) < (1e-7 if dtype == torch.float32 else 1e-8)
    assert weight.grad_fn is None
    assert weight.requires_grad


def test_adding_holds_no_second_matrix(medium: CompiledCircuit) -> None:
    lora = compile_circuit(file_of(512, [{"axes": [0], "kind": "lowrank", "rank": 4}]))
    for circuit in (medium, lora):
        module: Any = scaled_module(circuit, torch.float32)
        weight = torch.zeros(512, 512)
        with peak_meter(module, weight) as meter:
            module.operator(add_to=weight)
        assert meter.peak <= 0.25 * weight.nbytes
        assert error(weight, module.operator()) < 1e-6


@pytest.mark.parametrize("shape", [(512, 511), (512,), (1, 512, 512)], ids=str)
def test_another_shape_is_refused_and_nothing_changed(medium: CompiledCircuit, shape: tuple[int, ...]) -> None:
    small = compile_circuit(file_of("2x3", [[0, 1]]))
    for circuit, name in ((medium, r"\[512, 512\]"), (small, r"\[6, 6\]")):
        weight = torch.ones(shape)
        listed = str(list(shape)).replace("[", r"\[").replace("]", r"\]")
        with pytest.raises(ValueError, match=f"expected {name} to add to, got {listed}"):
            circuit.module().operator(add_to=weight)  # type: ignore[operator]
        assert bool((weight == 1).all())


def test_memory_is_looked_at_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = compile_circuit(file_of("16x16x16x8", ["all_pairs"]))
    module = load_class(circuit.source)(device="meta")
    asked: list[int] = []

    def refuse(numbers: int) -> None:
        asked.append(numbers)
        raise MemoryError

    monkeypatch.setattr(module, "_require_memory", refuse)
    with pytest.raises(MemoryError):
        module.operator()
    with pytest.raises(MemoryError):
        module.operator(add_to=torch.empty(1, 1).expand(32768, 32768))
    elements = 32768 * 32768
    assert asked == [circuit.report.operator.peak_bytes // 4, circuit.report.operator.peak_bytes // 4 - elements]
    assert asked[1] <= elements // 4
