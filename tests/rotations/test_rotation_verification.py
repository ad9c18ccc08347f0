"""`quanta verify` on rotations: angles worth comparing, and the memory of matrices that are cut from squares."""

from __future__ import annotations

import pytest
import torch
from random_circuits import file_of
from rotation_circuits import rotation_circuit

from quanta_compiler.driver import compile_circuit
from quanta_compiler.oracle.verification import draw_gates, required_bytes, verify


@pytest.mark.parametrize("name", ["ry", "shared", "low-rank", "beside-dense", "pauli-wide-11-few"])
def test_modules_agree_with_the_reference(name: str) -> None:
    found = verify(rotation_circuit(name))
    assert found.passed
    assert found.forward_error > 0


@pytest.mark.parametrize("name", ["exp", "cayley-wide", "pauli-7", "two_design", "per"])
def test_what_is_drawn_is_far_from_the_identity_and_turns_by_less_than_once(name: str) -> None:
    compiled = rotation_circuit(name)
    drawn = draw_gates(compiled.module(), compiled.circuit, torch.Generator().manual_seed(0))
    for numbers in drawn.values():
        assert float(numbers.abs().mean()) > 0.05
        assert float(numbers.abs().max()) < 6.3


@pytest.mark.parametrize("keys", [{"kind": "orthogonal"}, {"kind": "orthogonal", "map": "cayley"}], ids=str)
def test_what_a_square_of_the_larger_side_takes_is_counted(keys: dict[str, str]) -> None:
    wide = compile_circuit(file_of(1024, [{"axes": [0], "to": [2], **keys}]))
    assert required_bytes(wide.circuit, 0) > 8 * 8 * 1024**2
