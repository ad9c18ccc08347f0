"""Which circuits begin as the identity: the spec's word against the operator of a module as it is drawn."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from random_circuits import file_of

from quanta_compiler import compile_circuit, load_spec

IDENTITY: dict[str, Any] = {"init": "identity"}
CIRCUITS: dict[str, tuple[dict[str, Any], str | None]] = {
    "dense": (file_of("4x3x2", ["all_pairs"], **IDENTITY), None),
    "padded": (file_of("5x5", ["all_pairs"], in_features=24, out_features=24, **IDENTITY), None),
    "per": (file_of("4x6", [{"axes": [0], "per": [1]}], **IDENTITY), None),
    "a share of a share": (
        file_of("4x4", [{"axes": [0]}, {"axes": [1], "share": "g0"}, {"axes": [0], "share": "g1"}], **IDENTITY),
        None,
    ),
    "even layers": (file_of("8x3", [{"axes": [0], "kind": "pauli", "layers": 2}]), None),
    "odd layers": (file_of("8x3", [{"axes": [0], "kind": "pauli"}]), "as something else"),
    "small": (file_of("3x8", [{"axes": [0], "kind": "pauli"}]), None),
    "drawn": (file_of("4x3", ["all_pairs"]), "begins by `init: kaiming_uniform`"),
    "cut": (file_of("4x3", ["all_pairs"], in_features=24, out_features=24, **IDENTITY), "fewer than 24 numbers"),
    "no square": (file_of("4x6", [{"axes": [1], "to": [4]}], **IDENTITY), "no square circuit"),
    "exchanged": (file_of("4x4", ["all_pairs"], output=[1, 0], **IDENTITY), "another order"),
    "signs": (file_of("2x2", [{"axes": [0, 1], "kind": "cz"}]), "its kind 'cz' fixes"),
}


def is_identity(file: Any) -> bool:
    module: Any = compile_circuit(file).module(dtype=torch.float64, backend="torch")
    operator = module.operator()
    return operator.shape[0] == operator.shape[1] and torch.equal(operator, torch.eye(len(operator)).double())


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_word_is_the_operator_s(name: str) -> None:
    file, reason = CIRCUITS[name]
    said = load_spec(file).off_identity
    assert said is None if reason is None else reason in str(said)
    assert is_identity(file) == (reason is None)


KINDS: list[dict[str, Any]] = [
    *({"kind": kind, "init": "identity"} for kind in ("dense", "diagonal")),
    *({"kind": "orthogonal", "map": name} for name in ("exp", "cayley", "taylor", "neumann", "householder", "givens")),
    *({"kind": "pauli", "layers": layers} for layers in (1, 2)),
    {"kind": "givens"},
]


@pytest.mark.parametrize("seed", range(40))
def test_random_circuits_are_the_identity_where_that_is_said(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randint(2, 5) for _ in range(3)]
    gates = [{"axes": draw.sample(range(3), draw.choice((1, 2))), **draw.choice(KINDS)} for _ in range(4)]
    file = file_of(sizes, gates, in_features=(width := math.prod(sizes) - draw.randint(0, 1)), out_features=width)
    spec = load_spec(file)
    # Only the sign of an odd number of layers can be undone by another gate.
    odd = any(gate.matrix.data().get("layers") == 1 and gate.shape[-1] >= 4 for gate in spec.gates)
    assert (spec.off_identity is None) == (not odd)
    if spec.off_identity is None:
        assert is_identity(file)
