"""Rank bounds and the gain at initialization: by hand, and measured."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from compiled_circuits import compiled, scaled_module
from random_circuits import file_of

from quanta_compiler.driver import compile_circuit

SEEDS = [*range(48), 65, 224]


def test_rank_bounds_of_theorem_6_2_by_hand() -> None:
    """Square gates: the sum of the gates' ranks, each times the other axes, less (gates - 1) times the width."""
    full = compile_circuit(file_of("4x4", [[0, 1], [0, 1]])).report.rank
    assert (full.lower, full.upper) == (16, 16)
    gates = [{"axes": [0], "kind": "lowrank", "rank": 3}, {"axes": [1], "kind": "lowrank", "rank": 2}, [0, 1]]
    low = compile_circuit(file_of("4x4", gates)).report.rank
    assert (low.lower, low.upper) == (3 * 4 + 2 * 4 + 16 - 2 * 16, 8)
    lora = compile_circuit(file_of({"x": 20}, [{"axes": ["x"], "to": {"r": 3}}, {"axes": ["r"], "to": {"y": 30}}]))
    assert (lora.report.rank.lower, lora.report.rank.upper) == (3, 3)
    padded = compile_circuit(file_of("4x4", [[0, 1]], in_features=10, out_features=12)).report.rank
    assert (padded.lower, padded.upper) == (10 + 16 + 12 - 32, 10)
    none = compile_circuit(file_of("4x4", [{"axes": [0, 1], "kind": "lowrank", "rank": 2}] * 2)).report.rank
    assert (none.lower, none.upper) == (0, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_rank_of_random_instances_lies_within_the_bounds(seed: int) -> None:
    circuit = compiled(seed)
    kinds = [gate.kind for gate in circuit.spec.gates]
    matrix = scaled_module(circuit).operator().detach()  # type: ignore[operator]
    singular = torch.linalg.svdvals(matrix)
    rank = int((singular > 1e-11 * singular[0]).sum()) if float(singular[0]) > 0 else 0
    assert rank <= circuit.report.rank.upper
    assert 0 <= circuit.report.rank.lower <= circuit.report.rank.upper
    # Constants may have any rank, shares may cancel: only gates of generic values promise the lower bound.
    if "constant" not in kinds and len(kinds) < 10:
        assert rank >= circuit.report.rank.lower


def test_six_kaiming_gates_shrink_by_three_to_the_third() -> None:
    assert math.isclose(compile_circuit(file_of("4x4x2x2", ["all_pairs"])).report.init_gain, 3**-3, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("gates", "gain"),
    [
        ([{"axes": [0, 1], "init": "orthogonal"}], 1.0),
        ([{"axes": [0, 1], "init": "identity"}], 1.0),
        ([{"axes": [0, 1], "init": "zeros"}], 0.0),
        ([{"axes": [0, 1], "init": {"scheme": "normal", "std": 0.5}}], 0.5 * 24**0.5),
        ([{"axes": [0, 1], "init": "normal"}], 0.02 * 24**0.5),
        ([{"axes": [0, 1], "init": "xavier_uniform", "to": [2, 3]}], (2 * 24 / 30) ** 0.5),
        ([{"axes": [0], "init": "orthogonal", "to": [2]}], 1.0),
        ([{"axes": [0], "init": "orthogonal", "to": [8]}], 0.5**0.5),
        ([{"axes": [0], "kind": "diagonal", "init": "identity"}], 1.0),
        ([{"axes": [0], "kind": "diagonal"}], 3**-0.5),
        ([{"axes": [0, 1], "kind": "lowrank", "rank": 5}], 1 / 3),
        ([{"axes": [0, 1], "kind": "lowrank", "rank": 5, "init": "zeros"}], 0.0),
        ([{"axes": [0], "kind": "constant", "value": [[1, 0, 0, 0], [0, 2, 0, 0]], "to": [2]}], 2.5**0.5),
        # The transpose contracts 3 numbers where its owner contracts 4.
        (
            [
                {"axes": [0], "to": [3], "init": {"scheme": "normal", "std": 0.5}},
                {"axes": [0], "share": "g0", "transpose": True, "to": [4]},
            ],
            (4 * 0.25 * 3 * 0.25) ** 0.5,
        ),
        ([{"axes": [0], "kind": "slice", "to": [2]}], 1.0),
        ([{"axes": [0], "kind": "slice", "to": [8]}], 0.5**0.5),
    ],
)
def test_gain_by_hand(gates: list[Any], gain: float) -> None:
    assert math.isclose(compile_circuit(file_of("4x6", gates)).report.init_gain, gain, rel_tol=1e-12)


def test_padding_spreads_the_gain() -> None:
    report = compile_circuit(file_of("4x6", [{"axes": [0, 1], "init": "orthogonal"}], in_features=6)).report
    assert math.isclose(report.init_gain, 0.5, rel_tol=1e-12)
    report = compile_circuit(file_of("4x6", [{"axes": [0, 1], "init": "orthogonal"}], out_features=96)).report
    assert math.isclose(report.init_gain, 0.5, rel_tol=1e-12)


def independent(seed: int) -> dict[str, Any]:
    """Return a circuit whose entries are drawn independently, wide enough for the variance formula to be seen."""
    draw = random.Random(seed)
    sizes = [draw.choice((4, 5, 6)) for _ in range(3)]
    schemes = ("kaiming_uniform", "xavier_uniform", "orthogonal", {"scheme": "normal", "std": 0.3})
    gates: list[dict[str, Any]] = []
    for _ in range(draw.randint(1, 5)):
        kind = draw.choice(("dense", "dense", "lowrank", "diagonal"))
        axes = draw.sample(range(3), draw.choice((1, 2)))
        gate: dict[str, Any] = {
            "axes": axes,
            "kind": kind,
            "init": draw.choice(schemes[:3] if kind == "dense" else (schemes[0], schemes[3])),
        }
        if kind == "lowrank":
            gate["rank"] = draw.randint(2, 4)
        if kind == "dense" and draw.random() < 0.3:
            gate["per"] = "rest"
        if kind == "dense" and draw.random() < 0.4:
            gate["to"] = [draw.choice((4, 6, 8)) for _ in axes]
        gates.append(gate)
    return file_of(sizes, gates)


@pytest.mark.parametrize("seed", range(8))
def test_gain_is_the_one_that_is_measured(seed: int) -> None:
    circuit = compile_circuit(independent(seed))
    squares = []
    module = circuit.module(backend="torch")
    x = torch.randn(16, circuit.spec.in_features, generator=torch.Generator().manual_seed(seed))
    for draw in range(400):
        module.reset_parameters(torch.Generator().manual_seed(draw))  # type: ignore[operator]
        with torch.no_grad():
            squares.append(float(module(x).square().mean() / x.square().mean()))
    measured = math.sqrt(sum(squares) / len(squares))
    assert circuit.report.init_gain == pytest.approx(measured, rel=0.12)


def test_the_gain_stays_a_number_however_large_the_constants() -> None:
    """A hundred gates of 1e30 overflow any float on the way; the report must still be JSON."""
    gate = {"axes": [0], "kind": "constant", "value": [[1e30, 0], [0, 1e30]]}
    report = compile_circuit({"version": 1, "name": "large", "layout": 2, "gates": [gate] * 100}).report
    assert 1e300 < report.init_gain < math.inf
    zero = {"axes": [0], "kind": "constant", "value": [[0, 0], [0, 0]]}
    assert compile_circuit({"version": 1, "name": "zero", "layout": 2, "gates": [gate, zero]}).report.init_gain == 0
