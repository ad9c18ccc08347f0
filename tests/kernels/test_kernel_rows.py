"""Operators made row by row by an engine: the numbers of the emitted `operator()`, and what is left to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_circuits import counted_flops, scaled_module
from random_circuits import error, file_of, random_file

from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.kernels.modules import stored_in
from quanta_compiler.kernels.rows import TILE, Rows
from quanta_compiler.lowering.rows import operator_rows
from quanta_compiler.planner.planner import plan_operator
from quanta_compiler.runtime.loading import class_on

PAIRS = [{"axes": [2, 3]}, {"axes": [1, 3]}, {"axes": [0, 3]}, {"axes": [1, 2]}, {"axes": [0, 2]}, {"axes": [0, 1]}]
CIRCUITS = {
    "pairs": file_of("16x8x8x2", PAIRS),
    "both sides": file_of("6x6x6x6", PAIRS),
    "two axes each": file_of("8x8x8", ["all_pairs"]),
    "low rank": file_of("16x8x8x2", [{"axes": [1, 3], "kind": "lowrank", "rank": 2}, *PAIRS]),
    "diagonal": file_of("16x8x8x2", [{"axes": [2, 3], "kind": "diagonal"}, *PAIRS]),
    "per": file_of("16x8x8x2", [{"axes": [3], "per": [2]}, *PAIRS]),
    "constant": file_of("16x8x8x2", [{"axes": [3], "kind": "constant", "value": [[1, 2], [3, 5]]}, *PAIRS]),
    "shared": file_of("16x8x8x2", [PAIRS[0], {**PAIRS[1], "share": "g0", "transpose": True}, *PAIRS[2:]]),
    "more rows": file_of("16x8x8x2", [*PAIRS[:5], {"axes": [0, 1], "to": [24, 8]}]),
    "fewer rows": file_of("16x8x8x2", [{"axes": [2, 3], "to": [6, 2]}, *PAIRS[1:]]),
}
CPU = torch.device("cpu")


def rows_of(file: dict[str, Any]) -> tuple[Rows, torch.nn.Module, torch.Tensor]:
    """Return what makes the rows of a circuit, a module with well-scaled gates, and its operator as emitted."""
    compiled = compile_circuit(file)
    found = operator_rows(plan_operator(compiled.circuit), compiled.circuit)
    assert found is not None
    module: Any = scaled_module(compiled)
    return Rows(found), module, module.operator().detach()


@pytest.mark.parametrize("engine", [cpu, portable], ids=lambda engine: engine.name)
@pytest.mark.parametrize("name", CIRCUITS)
def test_rows_are_those_of_the_emitted_operator(name: str, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quanta_compiler.kernels.rows.engine_for", lambda *_: engine)
    rows, module, expected = rows_of(CIRCUITS[name])
    assert error(rows.whole(stored_in(module), torch.float64, CPU), expected) < 1e-13
    made, reached = torch.zeros_like(expected), 0
    for some, block in rows.blocks(stored_in(module), torch.float64, CPU):
        assert some.start == reached
        assert block.shape == (some.stop - some.start, expected.shape[1])
        made[some], reached = block, some.stop
    assert reached == len(expected)
    assert error(made, expected) < 1e-13


def test_a_block_is_a_small_part_of_a_large_matrix() -> None:
    compiled = compile_circuit(file_of("16x8x8x4", ["all_pairs"]))
    found = operator_rows(plan_operator(compiled.circuit), compiled.circuit)
    assert found is not None
    assert (found.count, found.table.in_size, found.table.out_size) == (1024, 1024, 16384)
    assert Rows(found).tiles == found.count // TILE == 64
    # Nothing is computed that the plan has not: what is left is the first product of two gates.
    assert found.count * found.table.flops_per_token == sum(step.flops for step in found.plan.steps[1:])


@pytest.mark.parametrize("seed", range(40))
def test_random_circuits_have_rows_or_none(seed: int) -> None:
    """Small ones have too few tokens for a table; that threshold aside, all that are contracted have one."""
    compiled = compile_circuit(random_file(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quanta_compiler.lowering.rows._LEAST_TOKENS", 2)
        patch.setattr("quanta_compiler.lowering.rows._SHARE", 1)
        found = operator_rows(plan_operator(compiled.circuit), compiled.circuit)
    if found is not None:
        module: Any = scaled_module(compiled)
        assert error(Rows(found).whole(stored_in(module), torch.float64, CPU), module.operator().detach()) < 1e-12


NO_ROWS = {
    "computed": file_of("16x8x8x2", [{**PAIRS[0], "kind": "orthogonal"}, *PAIRS[1:]]),
    "cut": file_of("16x8x8x2", PAIRS, out_features=2000),
    "a slice": file_of("16x8x8x2", [*PAIRS, {"axes": [3], "kind": "slice", "to": [3]}]),
    "small": file_of("4x4x4", ["all_pairs"]),
    "scaled at the end": file_of("16x8x8x2", [*PAIRS, {"axes": [0], "kind": "diagonal"}]),
}


@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_without_rows_the_operator_is_the_emitted_one(backend: str) -> None:
    for file in NO_ROWS.values():
        compiled = compile_circuit(file)
        assert operator_rows(plan_operator(compiled.circuit), compiled.circuit) is None
        module: Any = scaled_module(compiled)
        expected = module.operator().detach()
        module.__class__ = class_on(type(module), backend, False)
        with torch.no_grad():
            assert error(module.operator(), expected) < 1e-13


@pytest.fixture(name="pair")
def modules() -> tuple[Any, Any]:
    """Return a module as emitted and the same on the kernel."""
    compiled = compile_circuit(CIRCUITS["pairs"])
    plain, fused = scaled_module(compiled), scaled_module(compiled)
    fused.__class__ = class_on(type(fused), "fused", False)
    return plain, fused


def test_the_kernel_makes_the_operator_of_a_fused_module(pair: tuple[Any, Any]) -> None:
    plain, fused = pair
    expected = plain.operator().detach()
    with torch.no_grad():
        # Seen by a mode it is torch's own operations, which count.
        assert counted_flops(fused.operator) == counted_flops(plain.operator) > 0
        assert error(fused.operator(), expected) < 1e-13
        with torch.autocast("cpu", torch.bfloat16):
            assert error(fused.operator(), expected) < 1e-13
    weight = torch.ones(2048, 2048, dtype=torch.float32)
    assert fused.operator(add_to=weight, scale=-2.0) is weight
    assert error(weight.double(), 1 - 2 * expected) < 1e-6
    with pytest.raises(ValueError, match=r"expected \[2048, 2048\] to add to, got \[8, 8\]"):
        fused.operator(add_to=torch.ones(8, 8))


def test_gradients_and_transforms_get_the_emitted_operator(pair: tuple[Any, Any]) -> None:
    plain, fused = pair
    grads = []
    for module in pair:
        module.operator().square().sum().backward()
        grads.append([parameter.grad for parameter in module.parameters()])
    for one, other in zip(*grads, strict=True):
        assert error(one, other) < 1e-13
    state = {name: tensor.detach() for name, tensor in plain.state_dict().items()}
    made = torch.func.functional_call(fused, state, (torch.eye(2048, dtype=torch.float64),))
    assert error(made.T, plain.operator().detach()) < 1e-12
