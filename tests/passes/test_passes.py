"""Passes: what they draw, that the operator stays what it was, and that a second run changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from circuit_invariants import verify
from compiled_circuits import compiled, scaled_module
from plain_patterns import written_out
from random_circuits import commuting_file, error, file_of, random_file, shuffled

from quanta_compiler.driver import compile_circuit
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.oracle.reference import circuit_operator
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.drop_unit_axes import drop_unit_axes
from quanta_compiler.passes.merge_blocks import merge_blocks
from quanta_compiler.planner.planner import plan_apply
from quanta_compiler.spec import load_spec

SEEDS = [*range(45), 65, 90]


def merged(circuit: Circuit) -> Circuit:
    return merge_blocks(circuit, 2048)


def merged_small(circuit: Circuit) -> Circuit:
    return merge_blocks(circuit, 3)


def all_of_them(circuit: Circuit) -> Circuit:
    return merge_blocks(canonical_order(drop_unit_axes(circuit)), 64)


PASSES: list[Callable[[Circuit], Circuit]] = [canonical_order, drop_unit_axes, merged, merged_small, all_of_them]


def circuit_of(layout: Any, gates: list[Any], **keys: Any) -> Circuit:
    return build_circuit(load_spec(file_of(layout, gates, **keys)))


def drawn(circuit: Circuit) -> list[str]:
    """Draw gates as `name:columns>rows`, a leg by its axis, blocks by the gates that they hold."""

    def axes(legs: tuple[int, ...]) -> str:
        return "".join(circuit.legs[leg].axis for leg in legs)

    def one(gate: Gate) -> str:
        per = f"/{axes(gate.per)}" if gate.per else ""
        return f"{gate.name}:{axes(gate.columns)}>{axes(gate.rows)}{per}"

    return [one(gate) for gate in circuit.gates]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("change", PASSES, ids=lambda change: change.__name__)
def test_operator_is_unchanged(change: Callable[[Circuit], Circuit], seed: int) -> None:
    compiled_one = compiled(seed)
    module = scaled_module(compiled_one)
    tensors = {key.removeprefix("gates."): value for key, value in module.state_dict().items()}
    changed = change(compiled_one.circuit)
    verify(changed)
    assert error(circuit_operator(changed, tensors), circuit_operator(compiled_one.circuit, tensors)) < 1e-12


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("change", PASSES[:4], ids=lambda change: change.__name__)
def test_a_second_run_changes_nothing(change: Callable[[Circuit], Circuit], seed: int) -> None:
    once = change(compiled(seed).circuit)
    assert change(once) == once


# canonical_order


def test_commuting_gates_come_by_level_and_axis() -> None:
    gates = [pair("cd"), pair("ab"), pair("bc"), pair("ad")]
    assert drawn(canonical_order(circuit_of(dict.fromkeys("abcd", 2), gates))) == [
        *("ab:ab>ab", "cd:cd>cd"),
        *("ad:ad>ad", "bc:bc>bc"),
    ]


def test_diagonals_commute_with_each_other_but_not_with_what_contracts_their_axes() -> None:
    gates = [
        {"axes": ["b"], "kind": "diagonal", "name": "one"},
        {"axes": ["a", "b"], "kind": "diagonal", "name": "two"},
        pair("b"),
        {"axes": ["a"], "kind": "diagonal", "name": "three"},
    ]
    assert drawn(canonical_order(circuit_of({"a": 2, "b": 3}, gates))) == [
        *("three:a>a", "two:ab>ab", "one:b>b"),
        "b:b>b",
    ]


def test_slices_of_a_level_come_after_its_matrices() -> None:
    gates = [{"axes": ["a"], "kind": "slice", "to": {"a": 1}, "name": "cut"}, pair("b")]
    assert drawn(canonical_order(circuit_of({"a": 2, "b": 3}, gates))) == ["b:b>b", "cut:a>a"]


def pair(axes: str, **keys: Any) -> dict[str, Any]:
    return {"axes": list(axes), "name": axes, **keys}


@pytest.mark.parametrize("seed", range(20))
def test_files_that_differ_in_the_order_of_commuting_gates_give_one_circuit_and_one_plan(seed: int) -> None:
    draw = random.Random(seed)
    file = commuting_file(draw)
    circuits = [build_circuit(load_spec(one)) for one in (file, shuffled(file, draw), shuffled(file, draw))]
    ordered = [nameless(canonical_order(circuit)) for circuit in circuits]
    assert ordered[0] == ordered[1] == ordered[2]
    plans = [plan_apply(circuit, 16) for circuit in circuits]
    assert plans[0].flops == plans[1].flops == plans[2].flops
    assert [(step.inputs, step.legs) for step in plans[0].steps] == [
        (step.inputs, step.legs) for step in plans[1].steps
    ]


def nameless(circuit: Circuit) -> Circuit:
    """Return a circuit without the places in the file."""
    return replace(circuit, gates=tuple(replace(gate, position=0) for gate in circuit.gates))


# drop_unit_axes


def test_axes_of_size_1_leave_gates_and_boundaries() -> None:
    circuit = circuit_of({"a": 1, "b": 3, "c": 1}, [pair("ab"), pair("ac"), {**pair("b"), "per": ["c"]}])
    changed = drop_unit_axes(circuit)
    assert drawn(changed) == ["ab:b>b", "ac:>", "b:b>b"]
    assert [changed.legs[leg].axis for leg in changed.inputs + changed.outputs] == ["b", "b"]


# merge_blocks


def names(circuit: Circuit) -> list[str]:
    return [gate.name for gate in circuit.gates]


def test_gates_on_the_same_axes_become_one_block_from_a_batch_of_eight() -> None:
    """The first of design.md: (0,1) (0,1) (2,3) on 16x8x8x4.

    Apart: 2 * 2 * 128 * n * 4096; together 2 * 128^3 once and 2 * 128 * n * 4096: the second is no more from n = 4.
    """
    circuit = circuit_of("16x8x8x4", [[0, 1], [0, 1], [2, 3]])
    assert names(merge_blocks(circuit, 8)) == ["g0+g1", "g2"]
    assert names(merge_blocks(circuit, 4)) == ["g0+g1", "g2"]  # as many, in fewer kernels
    assert names(merge_blocks(circuit, 3)) == ["g0", "g1", "g2"]


def test_a_gate_on_a_subset_is_absorbed_past_one_that_commutes() -> None:
    circuit = circuit_of("8x8x8", [[0, 1], [2], [1]])
    changed = merge_blocks(circuit, 2048)
    assert drawn(changed) == ["g0+g2:01>01", "g1:2>2"]
    assert [part.name for part in changed.gates[0].parts] == ["g0", "g2"]


def test_nothing_merges_past_a_gate_that_it_does_not_commute_with() -> None:
    circuit = circuit_of("16x16x16", [[0, 1], [1, 2], [0, 1]])
    assert names(merge_blocks(circuit, 1 << 20)) == ["g0", "g1", "g2"]


def test_slices_are_never_merged() -> None:
    gates = [[0], {"axes": [0], "kind": "slice", "to": [4]}, [0]]
    assert names(merge_blocks(circuit_of("4x4", gates), 1 << 20)) == ["g0", "g1", "g2"]


def test_blocks_hold_the_trained_gates_of_the_file() -> None:
    circuit = circuit_of("8x8x8", [[0, 1], [2], {"axes": [0], "share": "g1", "transpose": True}])
    changed = merge_blocks(circuit, 2048)
    assert changed.gates_in_file_order() == circuit.gates
    file = written_out(random_file(0))
    assert [gate.name for gate in merged(compiled(0).circuit).gates_in_file_order()] == [
        gate.get("name", f"g{place}") for place, gate in enumerate(file["gates"])
    ]


def test_merged_plan_runs_the_composition_of_parameters() -> None:
    circuit = compile_circuit(file_of([2] * 6, [{"pattern": "brick", "repeat": 20}]))
    assert circuit.apply.plan.optimizer.startswith("blocks+")
    module = scaled_module(circuit)
    module(torch.randn(2, 64, dtype=torch.float64)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
