"""Programs: every access is a view, every value is whole, and copies are few on the examples that matter."""

from __future__ import annotations

import math

import pytest
import torch
from compiled_circuits import compiled, scaled_module
from random_circuits import error, file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.lowering.moves import is_run, merged, runs
from quanta_compiler.lowering.program import Call, Copy, Load, Matmul, Multiply, Program, Tie, sources
from quanta_compiler.oracle.reference import reference_operator

SEEDS = [*range(45), 65, 90]


def copies(program: Program) -> int:
    return sum(isinstance(operation, Copy) for operation in program.operations)


@pytest.mark.parametrize("seed", SEEDS)
def test_programs_are_well_formed(seed: int) -> None:
    for program in (compiled(seed).apply, compiled(seed).operator):
        layouts: dict[int, tuple[int, ...]] = {}
        uses: dict[int, int] = {}
        for number, operation in enumerate(program.operations):
            assert operation.result == number
            for access in sources(operation):
                layout = layouts[access.value]
                uses[access.value] = uses.get(access.value, 0) + 1
                assert all(is_run(layout, group) for group in access.groups)
                flat = [leg for group in access.groups for leg in group]
                assert sorted(flat) == sorted(layout)
            if not isinstance(operation, Load):
                flat = [leg for group in operation.groups for leg in group]
                assert flat == list(operation.layout)
            if isinstance(operation, Matmul):
                assert len(operation.left.groups) == len(operation.right.groups) in (2, 3)
                assert operation.left.groups[-1] == operation.right.groups[-2]
                assert operation.left.groups[:-2] == operation.right.groups[:-2]
            if isinstance(operation, Multiply):
                for left, right in zip(operation.left.groups, operation.right.groups, strict=True):
                    assert left == right or not left or not right
            if isinstance(operation, Tie):
                assert set(operation.legs) <= set(operation.layout)
            layouts[number] = operation.layout
        # A tensor is used once: that is what lets a program free it, and say what autograd keeps.
        assert all(count == 1 for count in uses.values())
        assert set(uses) == set(range(program.output))
        assert layouts[program.output] == program.plan.output


@pytest.mark.parametrize("seed", SEEDS)
def test_flops_of_the_operations_are_those_of_the_plan(seed: int) -> None:
    for program in (compiled(seed).apply, compiled(seed).operator):
        products = [op for op in program.operations if isinstance(op, Matmul | Multiply)]
        calls = [op for op in program.operations if isinstance(op, Call)]
        assert sum(operation.flops for operation in [*products, *calls]) == program.plan.flops
        for operation in products:
            volume = math.prod(program.plan.sizes[leg] for leg in operation.layout)
            if isinstance(operation, Multiply):
                assert operation.flops == volume
            else:
                inner = math.prod(program.plan.sizes[leg] for leg in operation.left.groups[-1])
                assert operation.flops == 2 * volume * inner


def test_no_copy_where_none_is_needed() -> None:
    assert copies(compile_circuit(file_of("3x4", [[0, 1]])).apply) == 0
    assert copies(compile_circuit(file_of("3x4", [[1]])).apply) == 0
    assert (
        copies(
            compile_circuit(
                file_of({"x": 20}, [{"axes": ["x"], "to": {"r": 3}}, {"axes": ["r"], "to": {"y": 30}}])
            ).apply
        )
        == 0
    )
    assert copies(compile_circuit(file_of("3x4", [{"axes": [0, 1], "kind": "diagonal"}])).apply) == 0


@pytest.mark.parametrize(("layout", "most"), [("16x8x8x4", 6), ("16x16x16", 3), ("8x8x4x4x4", 11)])
def test_copies_of_all_pairs_stay_few(layout: str, most: int) -> None:
    """One a gate, and one to bring the result into order, is what gate by gate takes."""
    assert copies(compile_circuit(file_of(layout, ["all_pairs"])).apply) <= most


def test_runs() -> None:
    assert runs((0, 1, 2, 3), (0, 1, 2, 3), (1, 2)) == ((0,), (1, 2), (3,))
    assert runs((0, 1, 2), (0, 1, 2), (2, 1)) == ((0,), (1,), (2,))


def test_layouts_are_merged_so_that_both_are_read_in_order() -> None:
    assert merged((0, 2, 3), (0, 1, 2)) == (0, 1, 2, 3)
    assert merged((0, 3), (1, 0, 2)) == (1, 0, 3, 2)
    assert merged((5, 6), ()) == (5, 6)
    # Shared legs in another order: the others still stand somewhere, each once.
    assert sorted(merged((0, 1), (2, 1, 3, 0, 4))) == [0, 1, 2, 3, 4]
    assert is_run((3, 1, 2), (1, 2))
    assert not is_run((3, 1, 2), (3, 2))
    assert is_run((3,), ())


# Once wrong, each by another rule of torch.

REGRESSIONS = {
    # `x.t().reshape(the same shape)` is a view: the copy never happened.
    "reshape that is a view": file_of("16x16", [[0], [1], [0, 1]], output=[1, 0]),
    # torch writes a product in the order of its operands' memory, not of its dimensions.
    "product of permuted factors": file_of(
        "4x3x2", [{"axes": [0], "per": [1]}, {"axes": [1], "kind": "diagonal"}, {"axes": [2], "per": [1, 0]}]
    ),
    "scalars": file_of("1x3", [[0], {"axes": [0], "per": [1]}, [1]]),
}


@pytest.mark.parametrize("tokens", [1, 5, 2048])
@pytest.mark.parametrize("name", REGRESSIONS)
def test_regressions(name: str, tokens: int) -> None:
    module = scaled_module(compile_circuit(REGRESSIONS[name], tokens=tokens))
    matrix = reference_operator(module)
    for batch in (0, 1, 5):
        x = torch.randn(batch, matrix.shape[1], dtype=torch.float64)
        assert error(module(x), x @ matrix.T) < 1e-12
    assert error(module.operator(), matrix) < 1e-12  # type: ignore[operator]


@pytest.mark.parametrize("seed", SEEDS)
def test_results_are_contiguous(seed: int) -> None:
    module = scaled_module(compiled(seed))
    for batch in (1, 4):
        assert module(torch.zeros(batch, compiled(seed).spec.in_features, dtype=torch.float64)).is_contiguous()
    assert module.operator().is_contiguous()  # type: ignore[operator]


def test_chains_may_join_chains_as_deep_as_a_circuit_is_long() -> None:
    """Gates larger than the state make every step of the operator a side of the next: no recursion may follow them."""
    gates = [{"axes": [0], "to": [size]} for size in [8, 4] * 600]
    file = {"version": 1, "name": "deep", "layout": 4, "gates": gates, "plan": {"tokens": 1}}
    assert compile_circuit(file).report.operator.flops > 0
