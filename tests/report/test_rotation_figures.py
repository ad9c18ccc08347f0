"""Figures of circuits of rotations: FLOPs of their structure, rank bounds, gain, and what they store."""

from __future__ import annotations

import math
import random
import re
from typing import Any

import numpy as np
import pytest
from drawn_circuits import circuit_of, pair
from plain_oracle import plain_operator
from plain_rotations import Array
from random_circuits import file_of

from quanta_compiler import load_spec
from quanta_compiler.driver import compile_circuit
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.kinds.two_design import pauli_flops
from quanta_compiler.report.figures import gate_reports, init_gain, parameter_report, rank_bounds
from quanta_compiler.report.terminal import report_tables
from quanta_compiler.text.quantities import amount_text


@pytest.mark.parametrize(
    ("size", "layers", "kept", "flops"),
    [
        (1, 1, None, 0),
        (2, 5, None, 4 * 2),
        (4, 1, None, 4 * 4 * 4 + 4),
        (32, 1, None, 32 * (4 * 13 + 4)),
        (32, 3, None, 32 * (4 * 29 + 12)),
        # Two of the five wires, then of four, and again of four.
        (32, 1, 2, 32 * (4 * 6 + 4)),
        (3, 1, None, 2 * 8 + 6),
        # 6 = 4 + 2: each applied twice, and two pairs between; with K' 1 one angle a column, and one pair.
        (6, 1, None, 2 * 68 + 2 * 8 + 6 * 2),
        (6, 1, 1, 2 * (4 * 4 * 2 + 4) + 2 * 8 + 6),
        (259, 1, None, 2 * 256 * (4 * 22 + 7) + 2 * (2 * 8 + 6) + 6 * 3),
    ],
)
def test_flops_of_the_structure_by_hand(size: int, layers: int, kept: int | None, flops: int) -> None:
    assert pauli_flops(size, layers, kept) == flops


def test_flops_gate_by_gate() -> None:
    gates = [
        pair("a", kind="ry"),
        pair("a", "b", kind="cz"),
        pair("b", kind="orthogonal", to={"b": 3}),
        pair("b", kind="orthogonal", map="cayley", rank_parameters=1),
        pair("b", kind="pauli", to={"c": 4}),
        pair("c", kind="pauli", to={"c": 6}, rank_parameters=1),
    ]
    reports = gate_reports(circuit_of({"a": 2, "b": 4}, gates))
    assert [report.flops_per_token for report in reports] == [
        4 * 8,
        8,
        2 * 2 * 4 * 3,
        2 * 2 * 3 * 3,
        2 * pauli_flops(4, 1),
        2 * pauli_flops(6, 1, 1),
    ]
    assert [report.parameters for report in reports] == [1, 0, 3 + 2 + 1, 2, 4, 2 * 2 + 2 * 1 + 1]


def test_parameters_of_what_is_frozen_and_shared() -> None:
    gates = [pair("a", kind="pauli", frozen=True), pair("b", kind="pauli"), pair("b", share="g1", transpose=True)]
    report = parameter_report(circuit_of({"a": 8, "b": 4}, gates))
    assert (report.trainable, report.frozen) == (4, 7)


def rotations_file(seed: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Return a circuit of rotations and small gates on two axes, rectangular in places, padded or truncated."""
    draw = random.Random(seed)
    present = {"a": draw.choice((2, 3, 4, 5)), "b": draw.choice((2, 4))}
    layout, gates = dict(present), list[dict[str, Any]]()
    for _ in range(draw.randint(1, 4)):
        axis = draw.choice("ab")
        gate = pair(axis, kind=draw.choice(kinds))
        if gate["kind"] == "cz":
            gate["axes"] = ["a", "b"]
        elif draw.random() < 0.6:
            present[axis] = draw.choice((2, 3, 4, 6))
            gate["to"] = {axis: present[axis]}
        if gate["kind"] in ("pauli", "orthogonal"):
            gate["init"] = {"scheme": "normal", "std": 1.0}
            if draw.random() < 0.3:
                gate["rank_parameters"] = 1
        gates.append(gate)
    width = math.prod(present.values())
    return file_of(layout, gates, out_features=max(1, width + draw.choice((-2, 0, 0, 3))))


def instance(file: dict[str, Any], draw: np.random.Generator) -> Array:
    circuit = build_circuit(load_spec(file))
    return plain_operator(file, {f"gates.{one.key}": draw.normal(0, 1, one.shape) for one in all_stored(circuit)})


@pytest.mark.parametrize("seed", range(30))
def test_rank_of_random_instances_lies_within_the_bounds(seed: int) -> None:
    file = rotations_file(seed, ("pauli", "pauli", "orthogonal", "dense", "cz"))
    rank = np.linalg.matrix_rank(instance(file, np.random.default_rng(seed)), tol=1e-10)
    bounds = rank_bounds(build_circuit(load_spec(file)))
    assert bounds.lower <= rank <= bounds.upper


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (6, 6), (3, 8), (8, 3), (5, 2)])
@pytest.mark.parametrize("init", ["zeros", "normal"])
@pytest.mark.parametrize("kind", ["orthogonal", "pauli"])
def test_gain_of_an_orthogonal_matrix_is_what_its_shape_keeps(kind: str, init: str, rows: int, columns: int) -> None:
    """Of random inputs the mean square of the output is that of all entries, times the columns."""
    file = file_of({"a": columns}, [pair("a", kind=kind, to={"a": rows}, init=init)])
    matrix = instance(file, np.random.default_rng(0))
    gain = init_gain(build_circuit(load_spec(file)))
    assert gain == pytest.approx(math.sqrt((matrix**2).sum() / rows), rel=1e-12)
    assert gain == pytest.approx(math.sqrt(min(rows, columns) / rows), rel=1e-12)


def test_gain_of_turned_and_signed_axes_and_of_a_transpose() -> None:
    gates = [
        pair("a", kind="ry", init="normal"),
        pair("a", "b", kind="cz"),
        pair("b", kind="orthogonal", to={"b": 2}, name="wide"),
    ]
    assert init_gain(circuit_of({"a": 2, "b": 8}, gates)) == 1
    back = pair("b", share="wide", transpose=True, to={"b": 8})
    assert init_gain(circuit_of({"a": 2, "b": 8}, [*gates, back])) == pytest.approx(0.5, rel=1e-12)


def test_small_steps_in_a_row_are_told_in_one_line() -> None:
    """What makes the matrices of rotations is dozens of steps on a few numbers; the JSON has each of them."""
    gates = [{"axes": [0], "to": [8], "kind": "pauli"}, {"axes": [0], "to": [768], "kind": "pauli"}]
    report = compile_circuit(file_of(768, gates)).report
    *_, apply, operator = report_tables(report)
    assert len(apply.rows) < len(report.apply.steps) / 2
    assert any("small steps" in cell for row in apply.rows + operator.rows for cell in row)
    named = [[int(one) for one in re.findall("[0-9]+", row[0])] for row in apply.rows]
    shown = [sum(step.flops for step in report.apply.steps[one[0] - 1 : one[-1]]) for one in named]
    assert [row[-1] for row in apply.rows] == list(map(amount_text, shown))
    # Every result has its line or is between the two that a line names, so that every operand can be found.
    assert [place for one in named for place in range(one[0], one[-1] + 1)] == [*range(1, len(report.apply.steps) + 1)]
    assert [f"{one[-1] - one[0] + 1} small steps" for one in named if len(one) > 1] == [
        row[1] for row in apply.rows if "small" in row[1]
    ]
