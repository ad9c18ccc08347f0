"""Plans: costs by hand and by recount, the choice among optimizers, and that nothing depends on a hash seed."""

from __future__ import annotations

import itertools
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compiled_circuits import compiled
from random_circuits import file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.passes.absorb_rotations import absorb_rotations
from quanta_compiler.passes.drop_unit_axes import drop_unit_axes
from quanta_compiler.planner.optimizers import (
    BRANCH_TENSORS,
    Legs,
    cheapest,
    find_orders,
    order_flops,
    results,
    sequential_order,
)
from quanta_compiler.planner.plan import Plan
from quanta_compiler.planner.planner import plan_apply, plan_operator
from quanta_compiler.spec import load_spec

SEEDS = [*range(45), 65, 90]
LARGE = {
    "200 gates on 12 axes": file_of([2] * 12, [{"pattern": "brick", "repeat": 19}]),
    "all pairs on 7 axes": file_of([2] * 7, ["all_pairs"]),
    "all pairs on 7 unequal axes": file_of("4x2x3x2x2x2x3", ["all_pairs"]),
    "all pairs on 12 axes": file_of([2] * 12, ["all_pairs"]),
    "all pairs with ranks": file_of([4] * 6, [{"pattern": "all_pairs", "kind": "lowrank", "rank": 2}]),
    "200 random pairs on 12 axes": file_of([2] * 12, [random.Random(seed).sample(range(12), 2) for seed in range(200)]),
    "blocks on 12 axes": file_of([2] * 12, [{"pattern": "brick", "per": "rest"}]),
}


def circuit_of(layout: Any, gates: list[Any], **keys: Any) -> Circuit:
    return build_circuit(load_spec(file_of(layout, gates, **keys)))


# By hand


def test_apply_on_16x8x8x4_merges_the_first_two_gates_for_a_batch_of_eight() -> None:
    circuit = circuit_of("16x8x8x4", [[0, 1], [0, 1], [2, 3]])
    # A gate on (0,1) costs 2 * 128 * 4096 a token, one on (2,3) 2 * 32 * 4096, the product of the first two 2 * 128^3.
    one = plan_apply(circuit, 1)
    assert one.flops == one.sequential_flops == 2 * 4096 * (128 + 128 + 32)
    eight = plan_apply(circuit, 8)
    assert eight.flops == 2 * 128**3 + 8 * 2 * 4096 * (128 + 32)
    assert eight.sequential_flops == 8 * one.flops
    assert [len(eight.legs(tensor) - {eight.batch}) for tensor in eight.steps[0].inputs] == [4, 4]
    assert all(eight.leaves[tensor].source == "gate" for tensor in eight.steps[0].inputs)


@pytest.mark.parametrize(("layout", "flops"), [("16x8x8x4", 2_852_126_720), ("8x8x4x4x4", 2_538_602_496)])
def test_operator_of_all_pairs(layout: str, flops: int) -> None:
    plan = plan_operator(circuit_of(layout, ["all_pairs"]))
    assert (plan.flops, plan.optimizer) == (flops, "dp")


def test_sequential_operator_by_hand() -> None:
    # [2,3] first gate on all axes: free; then 2 on axis 0, open inputs 6: 2 * 2 * (2*3) * 6; then 3 on axis 1.
    plan = plan_operator(circuit_of("2x3", [[0, 1], [0], [1]]))
    assert plan.sequential_flops == 2 * 2 * 6 * 6 + 2 * 3 * 6 * 6
    # Composing the small ones first: an outer product of 2 x 2 by 3 x 3, then 6 x 6 by 6 x 6, costs more.
    assert plan.flops == plan.sequential_flops


def test_low_rank_factors_are_applied_one_by_one() -> None:
    plan = plan_apply(circuit_of(64, [{"axes": [0], "kind": "lowrank", "rank": 4}]), 10)
    assert plan.flops == 10 * 2 * 4 * (64 + 64)
    # With as many tokens as that and the rank full, the product is formed first.
    plan = plan_apply(circuit_of(8, [{"axes": [0], "kind": "lowrank", "rank": 8}]), 1000)
    assert plan.flops == 2 * 8**3 + 1000 * 2 * 64


def test_diagonal_gates_cost_one_product_a_number() -> None:
    plan = plan_apply(circuit_of("4x3", [{"axes": [1], "kind": "diagonal"}]), 5)
    assert plan.flops == 5 * 12


def test_slices_are_free() -> None:
    plan = plan_apply(circuit_of("4x3", [{"axes": [1], "kind": "slice", "to": [2]}]), 5)
    assert plan.flops == 0


# Laws


def recount(plan: Plan) -> int:
    """Count a plan's FLOPs again from its leaves, and check that every leg is summed when nothing else holds it."""
    live = {place: frozenset(leaf.legs) for place, leaf in enumerate(plan.leaves)}
    total = 0
    for number, step in enumerate(plan.steps):
        operands = [live.pop(tensor) for tensor in step.inputs]
        union = frozenset().union(*operands)
        if step.op == "contract":
            summed = union - step.legs
            assert step.legs <= union
            assert summed.isdisjoint(plan.output)
            assert all(summed.isdisjoint(legs) for legs in live.values())
            assert all(leg in left and leg in right for left, right in [operands] for leg in summed)
            flops = math.prod(plan.sizes[leg] for leg in union) * (2 if summed else 1)
            assert step.flops == flops
            total += flops
        else:
            # A gate of angles that is applied by its structure says itself what that takes.
            assert step.op in ("reshape", "tie", "call")
            assert step.op == "call" or step.flops == 0
            total += step.flops
        live[len(plan.leaves) + number] = step.legs
    assert len(live) == 1
    assert next(iter(live.values())) == frozenset(plan.output)
    assert len(set(plan.output)) == len(plan.output)
    return total


@pytest.mark.parametrize("seed", SEEDS)
def test_cost_is_the_recount_of_the_steps(seed: int) -> None:
    circuit = compiled(seed).circuit
    for plan in (compiled(seed).apply.plan, compiled(seed).operator.plan, plan_apply(circuit, 64)):
        assert recount(plan) == plan.flops


@pytest.mark.parametrize("optimizer", ["auto", "dp", "greedy", "branch-1", "branch-2"])
@pytest.mark.parametrize("seed", range(20))
def test_no_optimizer_does_worse_than_gate_by_gate(seed: int, optimizer: str) -> None:
    """Small rotations are absorbed first, which takes less time and more FLOPs: it is of what is left then."""
    circuit = compiled(seed).circuit
    if any(gate.kind == "pauli" for gate in circuit.gates):
        return  # Of these test_pauli_plans says what they cost.
    for tokens in (1, 300, None):
        absorbed = absorb_rotations(drop_unit_axes(circuit), tokens or circuit.in_size)
        plan, bound = (
            plan_operator(one, optimizer) if tokens is None else plan_apply(one, tokens, optimizer)
            for one in (circuit, absorbed)
        )
        assert plan.flops <= bound.sequential_flops
        assert absorbed is not circuit or plan.sequential_flops == bound.sequential_flops
        assert recount(plan) == plan.flops


@pytest.mark.parametrize("name", LARGE)
def test_circuits_past_dp_do_not_cost_more_than_gate_by_gate(name: str) -> None:
    circuit = build_circuit(load_spec(LARGE[name]))
    for plan in (plan_apply(circuit, 1), plan_apply(circuit, 2048), plan_operator(circuit)):
        assert recount(plan) == plan.flops <= plan.sequential_flops


def test_a_larger_batch_never_costs_less() -> None:
    circuit = circuit_of("4x3x2x2", ["all_pairs"])
    costs = [plan_apply(circuit, tokens).flops for tokens in (1, 2, 3, 8, 64, 1000)]
    assert costs == sorted(costs)


def every_order(tensors: list[Legs], output: Legs, sizes: tuple[int, ...]) -> int:
    """Return the fewest FLOPs of all orders of pairwise contraction."""
    if len(tensors) == 1:
        return 0
    best = None
    for left, right in itertools.combinations(range(len(tensors)), 2):
        others = [tensor for place, tensor in enumerate(tensors) if place not in (left, right)]
        union = tensors[left] | tensors[right]
        kept = frozenset(leg for leg in union if leg in output or any(leg in other for other in others))
        flops = math.prod(sizes[leg] for leg in union) * (2 if kept != union else 1)
        flops += every_order([*others, kept], output, sizes)
        best = flops if best is None else min(best, flops)
    assert best is not None
    return best


@pytest.mark.parametrize(
    ("layout", "gates"),
    [
        ("4x3x2", ["all_pairs"]),
        ("2x3x5", [[0, 1], [0, 1], [1, 2], [2]]),
        ("6x2x2", [[0], [0, 1], [0, 2], [2, 1]]),
        ("2x2x2x2", ["brick", [0, 3]]),
        ("5x4", [[0], {"axes": [0, 1], "to": [2, 3]}, [1]]),
    ],
)
@pytest.mark.parametrize("tokens", [1, 16])
def test_dp_finds_the_cheapest_of_all_orders(layout: str, gates: list[Any], tokens: int) -> None:
    circuit = circuit_of(layout, gates)
    for plan in (plan_apply(circuit, tokens), plan_operator(circuit)):
        tensors = [frozenset(leaf.legs) for leaf in plan.leaves]
        assert plan.flops <= every_order(tensors, frozenset(plan.output), plan.sizes)


# Which optimizer


def test_the_optimizer_that_found_the_order_is_named() -> None:
    small = file_of("4x3x2x2", ["all_pairs"])
    assert compile_circuit(small).report.operator.optimizer == "dp"
    for optimizer in ("greedy", "branch-1", "branch-2"):
        report = compile_circuit({**small, "plan": {"optimizer": optimizer}}).report
        for found in (report.apply.optimizer, report.operator.optimizer):
            assert set(found.removeprefix("blocks+").split("+")) <= {optimizer, "sequential"}


def test_past_dp_windows_and_greedy_take_over() -> None:
    circuit = build_circuit(load_spec(LARGE["all pairs on 7 axes"]))
    for plan in (plan_apply(circuit, 2048), plan_operator(circuit)):
        assert set(plan.optimizer.removeprefix("blocks+").split("+")) <= {"windows", "greedy", "dp", "sequential"}
        assert plan.optimizer != "dp"


def test_greedy_alone_is_far_from_gate_by_gate_on_200_gates() -> None:
    """Why the cheapest of several is taken: greedy multiplies gates with gates until the state is met last."""
    circuit = build_circuit(load_spec(LARGE["200 gates on 12 axes"]))
    tensors = [frozenset(gate.rows + gate.columns) for gate in circuit.gates]
    output = frozenset(circuit.outputs + circuit.inputs)
    sizes = tuple(leg.size for leg in circuit.legs)
    orders = dict(find_orders(tensors, output, sizes, "auto"))
    assert set(orders) == {"windows", "greedy", "sequential"}
    costs = {name: order_flops(tensors, output, order, sizes) for name, order in orders.items()}
    assert costs["greedy"] > 100 * costs["sequential"]
    assert costs["windows"] <= costs["sequential"]
    best = cheapest(list(orders.items()), tensors, output, sizes)
    assert order_flops(tensors, output, best[1], sizes) == min(costs.values())


def test_a_demanding_optimizer_gives_way_on_many_tensors() -> None:
    gates = [{"pattern": "brick", "repeat": 8}]
    plan = plan_apply(circuit_of([2] * 12, gates, plan={"optimizer": "branch-2"}), 1, "branch-2")
    assert BRANCH_TENSORS["branch-2"] < 88
    assert "branch" not in plan.optimizer


def test_orders_are_whole() -> None:
    tensors = [frozenset(legs) for legs in ((0, 1), (1, 2), (2, 3))]
    made = results(tensors, frozenset((0, 3)), sequential_order(3))
    assert made[-1] == {0, 3}
    assert made[3] == {0, 2}


# Determinism

SCRIPT = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from random_circuits import random_file, file_of
from quanta_compiler.driver import compile_circuit
files = [random_file(seed) for seed in range(10)]
files += [file_of([2] * 12, [{"pattern": "brick", "repeat": 6}]), file_of([2] * 7, ["all_pairs"])]
files.append(file_of("8x8x8", ["all_pairs"]))
for file in files:
    compiled = compile_circuit(file)
    text = compiled.source + compiled.report.to_json()
    print(file["name"], compiled.apply.plan.optimizer, hashlib.sha256(text.encode()).hexdigest())
"""


def test_source_and_report_are_the_same_bytes_under_any_hash_seed() -> None:
    tests = Path(__file__).parents[1]

    def run(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tests.parent)}
        command = [sys.executable, "-c", SCRIPT, str(tests)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    first = run("1")
    assert first == run("4242")
    assert len(first.splitlines()) == 13
