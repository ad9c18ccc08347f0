"""The functions that programs call for `pauli` gates: what they consist of, and that equal ones are one."""

from __future__ import annotations

import pytest
from random_circuits import file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.lowering.functions import applying, making
from quanta_compiler.lowering.program import Call, Function, Maker, Turn
from quanta_compiler.planner.pauli import plan_blocks, plan_pauli


@pytest.mark.parametrize("transpose", [False, True])
def test_a_sum_calls_each_half_twice_with_blocks_of_its_own(transpose: bool) -> None:
    function = applying(plan_pauli(12, 1, None, 5, transpose=transpose))
    names = [type(operation).__name__ for operation in function.program.operations]
    assert names == ["Load", "Split", "Call", "Split", "Call", "Turn", "Turn", "Call", "Call", "Join"]
    calls = [operation for operation in function.program.operations if isinstance(operation, Call)]
    assert [call.function.size for call in calls] == [8, 4, 8, 4]
    # Behind cosines and sines; the transpose begins with what is applied last.
    assert [call.first for call in calls] == ([4, 5, 2, 3] if transpose else [2, 3, 4, 5])
    turns = [operation for operation in function.program.operations if isinstance(operation, Turn)]
    assert [(turn.side, turn.pairs, turn.back) for turn in turns] == [(0, 4, transpose), (1, 4, transpose)]
    assert function.blocks == making(plan_blocks(12, 1, None, 1)).blocks == 6


def test_a_half_of_one_number_is_only_turned() -> None:
    function = applying(plan_pauli(9, 1, None, 5, transpose=False))
    calls = [operation for operation in function.program.operations if isinstance(operation, Call)]
    assert [call.function.size for call in calls] == [8, 8]


def test_what_is_called_stands_in_front_and_once() -> None:
    """14 = 8 + (4 + 2), and 6 = 4 + 2 is called by it with the same function."""
    program = compile_circuit(file_of("2x14", [{"axes": [1], "kind": "pauli"}]), tokens=2).apply
    functions = [one for one in program.functions if isinstance(one, Function)]
    assert [one.name for one in functions] == ["pauli_8", "pauli_4", "pauli_2", "pauli_6", "pauli_14"]
    makers = [one for one in program.functions if isinstance(one, Maker)]
    assert [(one.name, one.stack) for one in makers] == [
        ("blocks_8", 2),
        ("blocks_4", 4),
        ("blocks_2", 4),
        ("blocks_6", 2),
        ("blocks_14", 1),
    ]
    assert applying(plan_pauli(14, 1, None, 4, transpose=False)) == functions[-1]


def test_functions_for_other_numbers_of_vectors_are_others() -> None:
    plans = [plan_pauli(size, 1, None, count, transpose=False) for size, count in ((8, 3), (8, 4), (8, 3))]
    first, second, third = map(applying, plans)
    assert first != second
    assert first == third
