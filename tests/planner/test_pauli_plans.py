"""`pauli` gates in a plan: applied by their structure or made a matrix, and what either costs."""

from __future__ import annotations

import math

import pytest
from random_circuits import file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.lowering.functions import applying, making
from quanta_compiler.planner.pauli import plan_blocks, plan_pauli
from quanta_compiler.planner.plan import PauliPart, PauliPlan, Plan


def pauli(columns: int, rows: int | None = None, tokens: int = 2048, **keys: object) -> CompiledCircuit:
    to = {} if rows is None else {"to": [rows]}
    return compile_circuit(file_of(columns, [{"axes": [0], "kind": "pauli", **to, **keys}]), tokens=tokens)


def applied(plan: Plan) -> list[PauliPlan]:
    return [step.pauli for step in plan.steps if step.pauli is not None]


def largest(plan: Plan) -> int:
    """Return the most numbers of a tensor that the batch has no part in."""
    legs = [leaf.legs for leaf in plan.leaves] + [tuple(step.legs) for step in plan.steps]
    return max(math.prod(plan.sizes[leg] for leg in tensor) for tensor in legs if plan.batch not in tensor)


@pytest.mark.parametrize("tokens", [1, 64, 2048])
def test_no_square_matrix_of_4096_is_made(tokens: int) -> None:
    circuit = pauli(4096, tokens=tokens)
    (plan,) = applied(circuit.apply.plan)
    assert plan.count == tokens
    (part,) = plan.parts
    assert part.plan is not None
    assert largest(part.plan) <= 64 * 64
    assert largest(circuit.apply.plan) == 1  # beside the batch there are the angles, which have no legs


@pytest.mark.parametrize(("wires", "layers"), [(6, 1), (9, 1), (12, 1), (14, 1), (12, 2), (12, 4), (10, 8)])
def test_a_column_costs_as_much_as_its_layers_and_the_logarithm_of_its_size_ask(wires: int, layers: int) -> None:
    """O(L n log n) a column: with blocks of 64, 128 FLOPs a number for every block."""
    size = 2**wires
    plan = plan_pauli(size, layers, None, 256, transpose=False)
    per_number = plan.flops / (size * plan.count)
    assert per_number <= 128 * (wires / 6 + 1) * layers
    turned_back = plan_pauli(size, layers, None, 256, transpose=True)
    assert turned_back.flops == plan.flops


@pytest.mark.parametrize("size", [768, 259, 1023, 3000])
def test_a_column_of_a_sum_costs_its_halves_twice_and_a_rotation_between(size: int) -> None:
    """Quantum-PEFT, eq. (4): the rotation turns as many pairs as the second half has features, with 6 FLOPs each."""
    plan = plan_pauli(size, 1, None, 256, transpose=False)

    def bound(n: int) -> int:
        first = 1 << (n.bit_length() - 1)
        if first == n:
            wires = first.bit_length() - 1
            return 128 * n * (wires // 6 + 1)
        return 2 * (bound(first) + bound(n - first)) + 6 * (n - first)

    assert plan.flops <= bound(size) * plan.count
    assert plan_pauli(size, 1, None, 256, transpose=True).flops == plan.flops


def test_a_tall_matrix_is_made_where_its_columns_are_fewer_than_the_tokens() -> None:
    assert applied(pauli(8, 4096, tokens=2048).apply.plan) == []
    assert applied(pauli(8, 4096, tokens=4).apply.plan) != []
    (leaf,) = [leaf for leaf in pauli(4096, 8).apply.plan.leaves if leaf.pauli is not None]
    assert leaf.pauli is not None
    assert (leaf.pauli.count, leaf.pauli.transpose) == (8, True)


def test_a_gate_per_axis_is_always_a_matrix() -> None:
    gates = [{"axes": [1], "kind": "pauli", "per": [0]}]
    circuit = compile_circuit(file_of("4x1024", gates), tokens=1)
    assert applied(circuit.apply.plan) == []


def test_the_rotation_is_planned_for_the_vectors_that_there_are() -> None:
    """In an operator an axis that no gate contracts is not there yet: 768 x 4 has 768 vectors, not 3,072."""
    circuit = compile_circuit(file_of("768x4", [{"axes": [0], "kind": "pauli"}]))
    (plan,) = applied(circuit.operator.plan)
    assert plan.count == 768


def test_an_operator_is_contracted_from_the_blocks_of_a_large_two_design() -> None:
    circuit = compile_circuit(file_of("512x4", [{"axes": [0], "kind": "pauli"}]))
    assert applied(circuit.operator.plan) == []
    blocks = [leaf.gate.block for leaf in circuit.operator.plan.leaves if leaf.gate is not None]
    assert sorted(block for block in blocks if block is not None) == [0, 1]


def test_comments_name_bits_in_a_row_together() -> None:
    circuit = compile_circuit(file_of("512x4", [{"axes": [0], "kind": "pauli"}]))
    plan = circuit.operator.plan
    legs = {label: leg for leg, label in enumerate(plan.labels)}
    bits = tuple(legs[f"0.{bit}'"] for bit in (3, 4, 5, 8, 0))
    assert plan.in_words((*bits, legs["1'"])) == "0.3-5':8 0.8':2 0.0':2 1':4"
    assert "`axis.0-3:16` are bits" in circuit.source
    apply = circuit.apply.plan
    assert apply.batch is not None
    assert apply.in_words((apply.batch, apply.output[1], apply.output[2])) == "n 0:512 1:4"


def test_a_small_matrix_leaves_an_operator_to_be_sliced() -> None:
    circuit = compile_circuit(file_of("16x8x8", [{"pattern": "all_pairs", "kind": "pauli"}]))
    assert applied(circuit.operator.plan) == []
    assert circuit.report.operator.slices > 1


def test_gates_that_are_alike_share_what_makes_their_blocks() -> None:
    gates = [
        {"axes": [0], "kind": "pauli", "to": [4], "name": "V"},
        {"axes": [0], "kind": "pauli", "to": [12], "name": "U"},
        {"axes": [0], "kind": "pauli", "layers": 2},
    ]
    circuit = compile_circuit(file_of(12, gates))
    assert circuit.source.count("def _blocks_12(") == 1
    assert circuit.source.count("def _blocks_12_2(") == 1
    assert 'Circuit._blocks_12(torch.stack([gates["V"], gates["U"]]))' in circuit.source
    assert "def _pauli_12_transposed(" in circuit.source
    # 12 = 8 + 4: both halves are applied twice, so they have two gates for each of the stack.
    assert [(part.size, part.stack) for part in plan_blocks(12, 1, None, 2)] == [(8, 4), (4, 4)]
    # 14 = 8 + (4 + 2): the halves of a half are applied four times.
    assert [(part.size, part.stack) for part in plan_blocks(14, 1, None, 2)] == [(8, 4), (4, 8), (2, 8)]


def test_sizes_without_angles_are_nothing_to_apply() -> None:
    plan = plan_pauli(1, 1, None, 10, transpose=False)
    assert (plan.flops, plan.parts) == (0, (PauliPart(1),))
    assert applying(plan).is_identity
    assert making(plan_blocks(1, 1, None, 1)).blocks == 0
