"""Warnings of circuits that can hardly be meant, and none of those that can."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from random_circuits import file_of, scale_gates

from quanta_compiler import compile_circuit
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec import load_spec, to_dict

LOWRANK: dict[str, Any] = {"axes": [0, 1], "kind": "lowrank", "rank": 3}
ORTHOGONAL: dict[str, Any] = {"axes": [0, 1], "kind": "orthogonal"}
DIAGONAL: dict[str, Any] = {"axes": [0, 1], "kind": "diagonal"}
SUSPECT = ("with nothing between", "every output depends on")


def suspicions(source: Any) -> list[str]:
    return [each.message for each in load_spec(source).warnings if any(part in each.message for part in SUSPECT)]


@pytest.mark.parametrize(
    ("layout", "gates", "enough", "trained"),
    [
        ("6x5x2", [[0, 1], [1, 0], [1, 2]], "900", "1,800"),
        # Something between that touches neither axis changes nothing.
        ("6x5x2", [[0, 1], [2], [0, 1]], "900", "1,800"),
        ("6x5x2", [ORTHOGONAL, [0, 1], [1, 2]], "900", "1,335"),
        ("6x5x2", [ORTHOGONAL, ORTHOGONAL, [1, 2]], "435", "870"),
        ("6x5x2", [DIAGONAL, DIAGONAL, [1, 2], [0, 2]], "30", "60"),
        ("6x5x2", [LOWRANK, [0, 1], [1, 2]], "180", "1,080"),
        ("6x5x2", [{**LOWRANK, "rank": 7}, LOWRANK, [1, 2]], "180", "600"),
        ("6x5x2", [{"axes": [0], "per": [1]}, {"axes": [0], "per": [1]}, [1, 2]], "180", "360"),
        ("8x2", [{"axes": [0], "to": [16]}, {"axes": [0], "to": [8]}, [0, 1]], "64", "256"),
        ("6x5", [{"pattern": "all_pairs", "repeat": 2}], "900", "1,800"),
    ],
    ids=str,
)
def test_gates_that_are_one_matrix(layout: str, gates: list[Any], enough: str, trained: str) -> None:
    (message,) = suspicions(file_of(layout, gates))
    assert message.endswith(f"they are one matrix, for which {enough} numbers are enough, and train {trained}")


@pytest.mark.parametrize(
    "gates",
    [
        [[0, 1], [1, 2], [0, 1]],
        # The first reads axis 2 as an index of its matrices, or the second does.
        [{"axes": [0, 1], "per": [2]}, [0, 1], [1, 2]],
        [[0, 1], {"axes": [2], "per": [0]}, [0, 1]],
        # A bottleneck: a product of rank 4.
        [{"axes": [0], "to": [4]}, {"axes": [0], "to": [6]}, [1, 2]],
        # A product of two low ranks or of an orthogonal and a diagonal matrix is none of the same kind.
        [ORTHOGONAL, DIAGONAL, ORTHOGONAL, [1, 2]],
        [dict(ORTHOGONAL, rank_parameters=2), dict(ORTHOGONAL, rank_parameters=2), [1, 2]],
        # A magnitude for every output, and the middle of a factorization: chosen, and cheap.
        [[0, 1], DIAGONAL, [1, 2]],
        [LOWRANK, DIAGONAL, [1, 2]],
        # What does not train is there for a reason, and a shared parameter is not free.
        [{"axes": [0, 1], "frozen": True}, [0, 1], [1, 2]],
        [{"axes": [0, 1], "name": "w"}, {"axes": [0, 1], "share": "w", "transpose": True}, [1, 2]],
        ["all_pairs"],
        [{"pattern": "all_pairs", "repeat": 3}],
        [{"pattern": "brick", "repeat": 3}],
        ["each", "chain"],
    ],
    ids=str,
)
def test_gates_that_are_more_than_one_matrix(gates: list[Any]) -> None:
    assert suspicions(file_of("6x5x2", gates)) == []


def test_a_warning_names_the_gates_and_their_place() -> None:
    text = "version: 1\nname: a\nlayout: {row: 4, col: 6}\ngates:\n" + "  - [row, col]\n" * 4
    (warning,) = load_spec(text).warnings
    assert warning.render() == (
        "<string>:6:5: warning: gates 'g0' and 'g1' act on axes row (size 4) and col (size 6) with nothing between "
        "(likewise 2 more pairs): they are one matrix, for which 576 numbers are enough, and train 1,152\n"
        "      - [row, col]\n"
        "        ^~~~~~~~~~\n"
        "  hint: leave one of the two out, or put a gate on other axes between them"
    )


@pytest.mark.parametrize(
    ("layout", "gates", "message"),
    [
        ("6x5x2", [[0, 2]], "no gate acts on axis 1 (size 5): every output depends on at most 12 of 60 inputs"),
        (
            {"a": 3, "b": 4, "c": 2, "d": 1},
            [["b"], ["b", "d"]],
            "no gate acts on axes a (size 3) and c (size 2): every output depends on at most 4 of 24 inputs",
        ),
        (
            "6x5x2",
            [{"axes": [0, 2], "per": [1]}],
            "no gate mixes along axis 1 (size 5): every output depends on at most 12 of 60 inputs",
        ),
        (
            "6x5x2",
            [[0, 2], {"axes": [1], "kind": "diagonal"}],
            "no gate mixes along axis 1 (size 5): every output depends on at most 12 of 60 inputs",
        ),
    ],
    ids=str,
)
def test_axes_that_nothing_mixes(layout: Any, gates: list[Any], message: str) -> None:
    assert suspicions(file_of(layout, gates)) == [message]


def test_circuits_that_only_scale_are_meant() -> None:
    assert suspicions(file_of("6x5x2", [DIAGONAL])) == []


@pytest.mark.parametrize("seed", range(40))
def test_the_operator_has_the_zeros_that_are_told(seed: int) -> None:
    """For random circuits of gates on few of the axes: where nothing is told, no entry of the operator is zero."""
    draw = random.Random(seed)
    axes = draw.choice(([3, 2, 4], [2, 3, 2, 2]))
    gates: list[Any] = []
    for _ in range(draw.randint(1, 4)):
        chosen = draw.sample(range(len(axes)), draw.randint(1, 2))
        others = [axis for axis in range(len(axes)) if axis not in chosen]
        per = draw.sample(others, 1) if draw.random() < 0.4 else []
        gates.append({"axes": chosen, "per": per, "kind": draw.choice(("dense", "dense", "diagonal", "lowrank"))})
        if gates[-1]["kind"] == "lowrank":
            gates[-1]["rank"] = 2
    if all(gate["kind"] == "diagonal" for gate in gates):
        gates.append([0])
    file = file_of(axes, gates)
    module: Any = scale_gates(compile_circuit(load_spec(file)).module(backend="torch", dtype=torch.float64))
    seen = {int(row.count_nonzero()) for row in module.operator().detach()}
    told = [message for message in suspicions(file) if "depends on" in message]
    (count,) = seen
    width = module.in_features
    if count == width:
        assert told == []
    else:
        assert told[0].endswith(f"every output depends on at most {count} of {width} inputs")


EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_meant(path: Path) -> None:
    assert suspicions(path) == []
    assert suspicions(to_dict(load_spec(path))) == []


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(64, 64), (96, 40), (23, 1)])
def test_presets_are_meant(preset: str, shape: tuple[int, int]) -> None:
    options: dict[str, Any] = {"rank": 1} if "rank" in PRESETS[preset].options() else {}
    spec = load_spec(
        {"version": 1, "name": "a", "preset": preset, **options}, in_features=shape[0], out_features=shape[1]
    )
    assert suspicions(to_dict(spec)) == []
    assert not [each for each in spec.warnings if any(part in each.message for part in SUSPECT)]


def test_adapters_tell_it_too() -> None:
    template = file_of({"auto": 3}, [[0, 1], [0, 1]])
    told = [warning.message for warning in load_spec(template, in_features=96).warnings]
    assert len(told) == 2
    assert told[1].startswith("no gate acts on axis 2 (size 4): every output depends on at most 24 of 96 inputs")
