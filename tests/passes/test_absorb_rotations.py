"""Runs of RY and CZ become blocks: what they draw, that the operator stays what it was, and that a second run changes
nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from circuit_invariants import verify
from random_circuits import error, file_of
from rotation_circuits import CIRCUITS

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.ir.two_design import two_design_circuit
from quanta_compiler.kinds.kind import Merging
from quanta_compiler.oracle.reference import circuit_operator
from quanta_compiler.passes.absorb_rotations import LARGEST, MEMORY_FLOPS, absorb_rotations
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.merge_blocks import Policy, merge_blocks
from quanta_compiler.spec import load_spec


def circuit_of(layout: Any, gates: list[Any]) -> Circuit:
    return build_circuit(load_spec(file_of(layout, gates)))


def drawn(circuit: Circuit) -> list[str]:
    """Draw gates as the axes that they contract and how many gates they hold."""
    return [
        "".join(circuit.legs[leg].axis for leg in gate.columns) + f":{len(gate.parts) or 1}" for gate in circuit.gates
    ]


def test_twelve_wires_become_two_blocks_of_64_and_what_joins_them() -> None:
    """Wires 0 to 5 and 6 to 11 by themselves; only the last CZ on (5, 6) and the two RY behind it are left."""
    layout = dict.fromkeys("abcdefghijkl", 2)
    absorbed = absorb_rotations(circuit_of(layout, ["two_design"]), 1024)
    assert drawn(absorbed) == ["abcdef:21", "ghijkl:21", "fg:3"]


def test_a_single_vector_is_not_worth_a_block() -> None:
    circuit = circuit_of(dict.fromkeys("abcdef", 2), ["two_design"])
    assert len(absorb_rotations(circuit, 1).gates) > len(absorb_rotations(circuit, 1024).gates)


@pytest.mark.parametrize(("wires", "layers"), [(9, 1), (12, 1), (12, 2), (14, 3)])
def test_a_memory_three_times_as_slow_makes_the_same_blocks(wires: int, layers: int) -> None:
    circuit = canonical_order(two_design_circuit(wires, layers, None, transpose=False))
    slower = Policy(Merging.ANGLES, LARGEST, 3 * MEMORY_FLOPS)
    assert merge_blocks(circuit, 1024, slower).gates == absorb_rotations(circuit, 1024).gates


def test_dense_gates_stay_by_themselves() -> None:
    gates = [{"axes": [0], "kind": "ry"}, [0, 1], {"axes": [0], "kind": "ry"}, {"axes": [1], "kind": "ry"}]
    assert drawn(absorb_rotations(circuit_of("2x2", gates), 1 << 20)) == ["0:1", "01:1", "01:2"]
    plain = circuit_of("4x4", [[0, 1], [1]])
    assert absorb_rotations(plain, 1 << 20) is plain


@pytest.mark.parametrize("name", CIRCUITS)
@pytest.mark.parametrize("tokens", [1, 1024])
def test_the_operator_stays_and_a_second_run_changes_nothing(name: str, tokens: int) -> None:
    circuit = build_circuit(load_spec(CIRCUITS[name]))
    absorbed = absorb_rotations(circuit, tokens)
    verify(absorbed)
    generator = torch.Generator().manual_seed(3)
    stored = {one.key: torch.randn(one.shape, generator=generator).double() for one in all_stored(circuit)}
    assert error(circuit_operator(absorbed, stored), circuit_operator(circuit, stored)) < 1e-13
    again = absorb_rotations(absorbed, tokens)
    assert [gate.parts for gate in canonical_order(again).gates] == [
        gate.parts for gate in canonical_order(absorbed).gates
    ]


def test_blocks_are_renamed_with_what_they_hold() -> None:
    """A pass that numbers the legs anew must not forget those of a block's gates."""
    circuit = absorb_rotations(circuit_of("2x2x2x2", [{"pattern": "two_design", "layers": 2}]), 1024)
    tensors = {f"g{place}": torch.full((1,), 0.1 * (place + 1), dtype=torch.float64) for place in range(60)}
    expected = circuit_operator(circuit, tensors)
    assert error(circuit_operator(canonical_order(circuit), tensors), expected) < 1e-13
