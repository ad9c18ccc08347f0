"""Orthogonal gates in circuit files: how many numbers they store, what they are written out to, what is warned of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from quanta_compiler.kinds import KINDS
from quanta_compiler.kinds.angles import lie_numbers
from quanta_compiler.kinds.maps import MAPS
from quanta_compiler.kinds.orthogonal import Orthogonal
from quanta_compiler.kinds.pauli import Pauli
from quanta_compiler.kinds.two_design import cosine_sine_angles, pauli_angles, two_design, widest_column
from quanta_compiler.spec import load_spec, to_dict
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec, Init
from quanta_compiler.spec.patterns import PATTERNS

DOCS = Path(__file__).parents[2] / "docs"


def load(layout: Any, *gates: Any, **more: Any) -> CircuitSpec:
    return load_spec({"version": 1, "name": "a", "layout": layout, "gates": list(gates), **more})


def numbers(spec: CircuitSpec) -> list[int]:
    return [gate.numbers for gate in spec.gates]


def turn(gate: GateSpec) -> str:
    return f"{gate.kind} {' '.join(axis.name for axis in gate.axes)}"


# By hand: p(2^q) = (2L + 1) q - 2L, p(1) = 0, and p(n1 + n2) = 2 p(n1) + 2 p(n2) + n2.
ANGLES = [
    (1, 1, 0),
    (2, 5, 1),
    (4, 0, 2),
    (4, 1, 4),
    (32, 1, 13),
    (32, 2, 21),
    (4096, 1, 34),
    (3, 1, 2 * 1 + 0 + 1),
    (12, 1, 2 * 7 + 2 * 4 + 4),
    (768, 1, 2 * 25 + 2 * 22 + 256),
    (259, 1, 2 * 22 + 2 * 3 + 3),
]


@pytest.mark.parametrize(("size", "layers", "expected"), ANGLES)
def test_angles_of_pauli_gates(size: int, layers: int, expected: int) -> None:
    assert pauli_angles(size, layers) == expected
    gate = {"axes": [0], "kind": "pauli", "layers": layers}
    assert numbers(load(size, gate, {**gate, "to": [1]})) == [expected, expected]


@pytest.mark.parametrize("kept", [None, 1, 2, 3, 9])
def test_angles_are_counted_without_listing_them(kept: int | None) -> None:
    for wires in range(7):
        for layers in range(4):
            listed = sum(turn.kind == "ry" for turn in two_design(wires, layers, kept))
            assert pauli_angles(2**wires, layers, kept) == listed


def test_angles_that_turn_pairs() -> None:
    assert [cosine_sine_angles(size) for size in (1, 64, 3, 12, 768, 259, 7)] == [0, 0, 1, 4, 256, 3 + 2 * 1, 3 + 2]
    # 7 = 4 + 3: three pairs, and of each of two 3 x 3 matrices one; with K' = 2 two pairs.
    assert cosine_sine_angles(7, 2) == 2 + 2
    assert pauli_angles(7, 1, 1) == 2 * 2 + 2 * 3 + 1
    assert [widest_column(size) for size in (1, 2, 768, 1024, 7, 1025)] == [0, 1, 256, 10, 3, 10]


def test_numbers_of_orthogonal_gates() -> None:
    # The entries below the diagonal, column by column: 5 + 4 + 3 + 2 + 1.
    assert [lie_numbers(6, columns) for columns in (1, 2, 3, 6)] == [5, 9, 12, 15]
    gate: dict[str, Any] = {"axes": [1], "kind": "orthogonal"}
    wide, tall = {**gate, "to": [2]}, {**gate, "to": [6], "per": [0], "map": "cayley"}
    assert numbers(load("3x6", gate, {**gate, "rank_parameters": 1}, wide, tall)) == [15, 5, 9, 27]
    assert numbers(load("2x2", {"axes": [0], "kind": "ry", "per": [1]}, {"axes": [0, 1], "kind": "cz"})) == [2, 0]


def test_what_a_gate_stores_is_limited_and_not_its_matrix() -> None:
    gate = {"axes": [0], "kind": "pauli", "layers": 2}
    spec = load(65536, gate, {"axes": [0], "kind": "orthogonal", "rank_parameters": 2})
    assert numbers(spec) == [5 * 16 - 4, 65535 + 65534]
    assert len(load([2] * 24, *[{"axes": list(range(24)), "kind": "pauli", "layers": 1024}] * 2000).gates) == 2000


def test_two_design() -> None:
    spec = load("2x2x2x2x2", "two_design")
    assert " | ".join(map(turn, spec.gates)) == (
        "ry 0 | ry 1 | ry 2 | ry 3 | ry 4"
        " | cz 0 1 | cz 2 3 | ry 0 | ry 1 | ry 2 | ry 3"
        " | cz 1 2 | cz 3 4 | ry 1 | ry 2 | ry 3 | ry 4"
    )
    assert sum(numbers(spec)) == 13
    assert spec == load("2x2x2x2x2", {"pattern": "two_design", "layers": 1})


def test_two_design_on_some_axes() -> None:
    request = {"pattern": "two_design", "axes": [3, 1], "layers": 2, "repeat": 2, "init": "normal", "frozen": True}
    spec = load("3x2x5x2", request)
    once = ["ry 1", "ry 3", "cz 1 3", "ry 1", "ry 3", "cz 1 3", "ry 1", "ry 3"]
    assert [turn(gate) for gate in spec.gates] == once + once
    drawn = {gate.kind: (gate.init, gate.frozen) for gate in spec.gates}
    assert drawn == {"ry": (Init("normal", 0.02), True), "cz": (None, False)}
    assert [turn(gate) for gate in load("2x3", {"pattern": "two_design", "axes": [0]}).gates] == ["ry 0"]
    assert [turn(gate) for gate in load("2x2", {"pattern": "two_design", "layers": 0}).gates] == ["ry 0", "ry 1"]


def test_two_design_on_axes_of_other_sizes_than_2() -> None:
    """66 + 28 + 28 numbers, then for each layer those of axes 0, 1 and of axes 1, 2 again."""
    spec = load("12x8x8", {"pattern": "two_design", "layers": 2})
    layer = ["cz 0 1", "orthogonal 0", "orthogonal 1", "cz 1 2", "orthogonal 1", "orthogonal 2"]
    assert [turn(gate) for gate in spec.gates] == ["orthogonal 0", "orthogonal 1", "orthogonal 2", *layer, *layer]
    assert {gate.matrix for gate in spec.gates if gate.kind == "orthogonal"} == {Orthogonal()}
    assert sum(numbers(spec)) == 66 + 28 + 28 + 2 * (66 + 28 + 28 + 28)
    spec = load("2x3x1", "two_design")
    assert [turn(gate) for gate in spec.gates[:3]] == ["ry 0", "orthogonal 1", "orthogonal 2"]
    assert numbers(spec) == [1, 3, 0, 0, 1, 3, 0, 3, 0]
    # The sizes are those that gates have made before.
    spec = load("4x2", {"axes": [0], "to": [2]}, "two_design")
    assert [turn(gate) for gate in spec.gates[1:3]] == ["ry 0", "ry 1"]


@pytest.mark.parametrize("layers", range(4))
def test_two_design_counts_what_it_lists(layers: int) -> None:
    pattern = PATTERNS["two_design"]
    listed = [len(list(pattern.gates([2] * n, layers=layers))) for n in range(1, 9)]
    assert [pattern.count(n, layers=layers) for n in range(1, 9)] == listed


def test_patterns_of_orthogonal_gates() -> None:
    spec = load(
        "4x2x2",
        {"pattern": "chain", "kind": "orthogonal", "map": "cayley", "rank_parameters": 2, "to": {0: 2}},
        {"pattern": "chain", "kind": "pauli", "layers": 3, "per": "rest", "frozen": True},
        {"pattern": "ring", "kind": "cz"},
        {"pattern": "each", "kind": "ry", "init": "normal"},
    )
    chain, last = spec.gates[0], spec.gates[3]
    assert chain.matrix == Orthogonal("cayley", 2)
    assert [axis.size for axis in chain.to] == [2, 2]
    assert (last.matrix, last.frozen, len(last.per)) == (Pauli(3), True, 1)
    assert [gate.kind for gate in spec.gates[4:]] == ["cz"] * 3 + ["ry"] * 3


def test_defaults_are_written_out() -> None:
    spec = load(4, {"axes": [0], "kind": "orthogonal"}, {"axes": [0], "kind": "pauli"}, {"axes": [0], "share": "g1"})
    assert to_dict(spec)["gates"] == [
        {"name": "g0", "axes": [0], "kind": "orthogonal", "map": "exp", "init": "zeros"},
        {"name": "g1", "axes": [0], "kind": "pauli", "layers": 1, "init": "zeros"},
        {"name": "g2", "axes": [0], "share": "g1"},
    ]


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        (None, Init("zeros")),
        ("orthogonal", Init("zeros")),
        ("normal", Init("normal", 0.02)),
        ({"scheme": "normal", "std": 2}, Init("normal", 2.0)),
    ],
)
def test_the_circuit_draws_angles_only_by_schemes_for_angles(init: Any, expected: Init) -> None:
    more = {} if init is None else {"init": init}
    spec = load("2x2", "two_design", {"axes": [0], "kind": "orthogonal", "init": "zeros"}, **more)
    assert {gate.init for gate in spec.gates if gate.kind == "ry"} == {expected}
    assert [gate.init for gate in spec.gates if gate.kind != "ry"] == [None, Init("zeros")]


def test_shared_angles() -> None:
    tall = {"axes": [0], "to": [8], "kind": "pauli", "layers": 2, "rank_parameters": 1, "frozen": True, "name": "u"}
    spec = load("2x2", tall, {"axes": [0], "to": {"x": 2, "y": 1}, "share": "u", "transpose": True})
    owner, shared = spec.gates
    assert shared.matrix == owner.matrix == Pauli(2, 1)
    assert (shared.init, shared.frozen) == (None, False)
    # The shape of the matrix counts, not that of the axes.
    load("2x2", {"axes": [0], "kind": "ry"}, {"axes": [1], "to": {"x": 1, "y": 2}, "share": "g0"})


def test_angles_of_zero_are_no_zeros() -> None:
    assert not load("2x2", {"pattern": "two_design", "init": "zeros"}, {"axes": [0, 1], "init": "zeros"}).warnings


def test_sizes_that_are_no_power_of_two_are_warned_of() -> None:
    gate = {"axes": [0], "kind": "pauli", "to": [2]}
    (warning,) = load(768, gate).warnings
    assert warning.path == "gates[0].axes"
    assert warning.message == (
        "256 of the 350 angles of gate 'g0' turn pairs of 768 = 512 + 256: "
        "this part grows with the size, not with its logarithm"
    )
    assert warning.hint == "a size of 1024 takes 28 angles; pad to it, or act on axes whose sizes are powers of two"
    (warning,) = load(259, {**gate, "rank_parameters": 1}).warnings
    assert warning.message.startswith("3 of the 13 angles of gate 'g0' turn pairs of 259 = 256 + 2 + 1")
    assert load(3, gate).warnings[0].message.startswith("1 of the 3 angles of gate 'g0' turns a pair of 3 = 2 + 1")
    spec = load("6x2x2", {"pattern": "all_pairs", "kind": "pauli", "repeat": 3})
    assert [warning.path for warning in spec.warnings] == ["gates[0]"]
    assert not load(1024, gate).warnings


def test_the_documentation_lists_what_there_is_and_counts_right() -> None:
    gates, patterns = ((DOCS / page).read_text(encoding="utf-8") for page in ("gates.md", "patterns.md"))
    assert set(re.findall(r"^\| `(\w+)`", gates, re.MULTILINE)) == {
        *(*KINDS, *MAPS, "init", "zeros", "normal"),
        *("across", "layers", "targets", "all"),
    }
    assert re.findall(r"^\| \[`(\w+)`\]", patterns, re.MULTILINE) == list(PATTERNS)
    *_, example = re.findall(r"```yaml\n(.*?)```", gates, re.DOTALL)
    assert numbers(load_spec(example))[:8] == [28, 5 + 4, 22, 21, 1, 0, 5, 3]
