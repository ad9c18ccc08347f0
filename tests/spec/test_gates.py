"""Patterns, axes that come and go, shared parameters: the resolved gates against hand-made lists."""

from __future__ import annotations

from typing import Any

import pytest

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.kinds.constant import Constant
from quanta_compiler.kinds.lowrank import Lowrank
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec, Init
from quanta_compiler.spec.names import TORCH_NAMES, gate_name_problem
from quanta_compiler.spec.patterns import PATTERNS, options_of


def load(layout: Any, *gates: Any, **more: Any) -> CircuitSpec:
    return load_spec({"version": 1, "name": "a", "layout": layout, "gates": list(gates), **more})


def axes(gate: GateSpec) -> str:
    return " ".join(axis.name for axis in gate.axes)


def sizes(gate: GateSpec) -> str:
    before, after = (" ".join(f"{axis.name}={axis.size}" for axis in group) for group in (gate.axes, gate.to))
    return f"{before} -> {after}"


@pytest.mark.parametrize(
    ("pattern", "layout", "expected"),
    [
        ("all_pairs", "2x2x2x2", ["2 3", "1 3", "0 3", "1 2", "0 2", "0 1"]),
        ("all_pairs", "2x2", ["0 1"]),
        ("each", "2x2x2", ["0", "1", "2"]),
        ("each", "2", ["0"]),
        ("chain", "2x2x2x2", ["0 1", "1 2", "2 3"]),
        ("ring", "2x2x2x2", ["0 1", "1 2", "2 3", "0 3"]),
        ("ring", "2x2", ["0 1"]),
        ("brick", "2x2x2x2x2", ["0 1", "2 3", "1 2", "3 4"]),
        ("brick", "2x2x2x2", ["0 1", "2 3", "1 2"]),
        ("brick", "2x2", ["0 1"]),
    ],
)
def test_patterns(pattern: str, layout: str, expected: list[str]) -> None:
    spec = load(layout, pattern)
    assert [axes(gate) for gate in spec.gates] == expected
    assert [gate.name for gate in spec.gates] == [f"g{index}" for index in range(len(expected))]


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_count_what_they_list(name: str) -> None:
    for n in range(1, 12):
        gates = list(PATTERNS[name].gates([2] * n, **options_of(name, {})))
        assert len(gates) == PATTERNS[name].count(n, **options_of(name, {}))
        assert (len(gates) > 0) == (n >= PATTERNS[name].fewest_axes)
        assert all(list(axes) == sorted(set(axes)) and max(axes) < n for axes, _ in gates)


def test_pattern_options() -> None:
    spec = load(
        {"a": 2, "b": 3, "c": 4},
        {
            "pattern": "chain",
            "axes": ["c", "a"],
            "repeat": 2,
            "kind": "lowrank",
            "rank": 2,
            "per": "rest",
            "frozen": True,
        },
        "each",
        init="zeros",
    )
    assert [axes(gate) for gate in spec.gates] == ["a c", "a c", "a", "b", "c"]
    first = spec.gates[0]
    assert (first.matrix, first.frozen, first.init) == (Lowrank(2), True, Init("zeros"))
    assert [axis.name for axis in first.per] == ["b"]


def test_rectangular_patterns_shrink_early_and_grow_late() -> None:
    spec = load("8x4x2", {"pattern": "all_pairs", "repeat": 2, "to": {0: 2, -1: 5, 1: 4}})
    assert [sizes(gate) for gate in spec.gates] == [
        "1=4 2=2 -> 1=4 2=2",
        "0=8 2=2 -> 0=2 2=2",
        "0=2 1=4 -> 0=2 1=4",
        "1=4 2=2 -> 1=4 2=2",
        "0=2 2=2 -> 0=2 2=5",
        "0=2 1=4 -> 0=2 1=4",
    ]
    assert [axis.size for axis in spec.output] == [2, 4, 5]


def test_axes_come_and_go() -> None:
    spec = load(
        {"a": 4, "b": 6, "c": 5},
        {"axes": ["c", "a"], "to": {"n": 3, "a": 2}},
        {"axes": ["b"], "to": {"m": 2, "b": 7}, "per": "rest"},
        {"axes": ["n"], "to": {"c": 9}},
        {"axes": ["c", 0], "to": [8, 3]},
    )
    assert [sizes(gate) for gate in spec.gates] == [
        "c=5 a=4 -> n=3 a=2",
        "b=6 -> m=2 b=7",
        "n=3 -> c=9",
        "c=9 a=2 -> c=8 a=3",
    ]
    assert [axis.name for axis in spec.gates[1].per] == ["a", "n"]
    assert [(axis.name, axis.size) for axis in spec.output] == [("a", 3), ("b", 7), ("m", 2), ("c", 8)]
    assert spec.out_features == 3 * 7 * 2 * 8


def test_a_name_that_is_created_again_is_no_longer_the_axis_of_the_layout() -> None:
    with pytest.raises(SpecError, match="gate 'g2' acts on axis 0, which gate 'g0' removed"):
        load({"a": 4}, {"axes": ["a"], "to": {"b": 4}}, {"axes": ["b"], "to": {"a": 4}}, [0])
    with pytest.raises(SpecError, match="a new axis needs a name"):
        load("4x4", {"axes": [0], "to": {"b": 4}}, {"axes": ["b"], "to": {0: 4}})


def test_all_axes_may_go() -> None:
    spec = load("4x4", {"axes": [0, 1], "to": {}})
    assert (spec.output, spec.out_features) == ((), 1)


def test_positions_and_digit_strings_are_one() -> None:
    assert load("2x3", ["0", -1]) == load("2x3", [0, 1]) == load([2, 3], ["-2", "1"])
    with pytest.raises(SpecError, match="listed twice"):
        load("2x3", {"axes": [0, 1], "to": {0: 4, "0": 4}})


def test_shared_parameters() -> None:
    spec = load(
        "4x4x6",
        {"axes": [0], "to": [3], "name": "down", "kind": "lowrank", "rank": 2, "frozen": True},
        {"axes": [0], "to": [4], "share": "down", "transpose": True},
        {"axes": [1], "to": {"x": 3}, "share": "down"},
        {"axes": ["x"], "to": {"y": 2, "z": 2}, "share": "g1"},
        {"axes": [2], "per": [0], "name": "block"},
        {"axes": [2], "per": [0], "share": "block"},
        [0],
        {"axes": ["y", "z"], "share": "g6"},
    )
    assert [(gate.matrix, gate.share) for gate in spec.gates[:4]] == [
        (Lowrank(2), None),
        (Lowrank(2), "down"),
        (Lowrank(2), "down"),
        (Lowrank(2), "g1"),
    ]
    assert all(gate.init is None and not gate.frozen for gate in spec.gates if gate.share)


def test_shared_gates_that_do_not_fit() -> None:
    with pytest.raises(SpecError, match=r"shape \[4, 6, 6\], but 'g0' has \[6, 6\]"):
        load("4x6", [1], {"axes": [1], "per": [0], "share": "g0"})
    with pytest.raises(SpecError, match="but the transpose of 'g0' has"):
        load(
            "4x6",
            {"axes": [0], "to": [3]},
            {"axes": [0], "to": [4], "share": "g0"},
            {"axes": [0], "to": [3], "share": "g0", "transpose": True},
        )
    with pytest.raises(SpecError, match="is diagonal and cannot change its axes"):
        load("4x6", {"axes": [0], "kind": "diagonal"}, {"axes": [0], "to": {"b": 4}, "share": "g0"})


def test_kinds() -> None:
    spec = load(
        {"a": 2, "b": 3},
        {"axes": ["a"], "to": [1], "kind": "constant", "value": [[1, 2.5]]},
        {"axes": ["a", "b"], "to": {"c": 3}, "kind": "slice"},
        {"axes": ["c"], "kind": "diagonal", "to": [3], "init": {"scheme": "normal", "std": 1}},
        {"axes": ["c"], "init": "normal"},
    )
    assert spec.gates[0].matrix == Constant(((1.0, 2.5),))
    assert [gate.init for gate in spec.gates] == [None, None, Init("normal", 1.0), Init("normal", 0.02)]


def test_a_rank_beyond_the_matrix_is_a_warning() -> None:
    spec = load("4x4", {"pattern": "each", "kind": "lowrank", "rank": 5})
    assert [warning.path for warning in spec.warnings] == ["gates[0]", "gates[0]"]


@pytest.mark.parametrize("kind", ["slice", "constant"])
@pytest.mark.parametrize("key", ["per", "init", "frozen", "rank"])
def test_keys_that_fixed_gates_do_not_take(kind: str, key: str) -> None:
    gate = {"axes": [0], "kind": kind, key: {"per": "rest", "init": "zeros", "frozen": True, "rank": 1}[key]}
    if kind == "constant":
        gate["value"] = [[1, 0], [0, 1]]
    with pytest.raises(SpecError, match=f"'{key}' does not go with a gate of kind `{kind}`") as caught:
        load("2x2", gate)
    assert len(caught.value.diagnostics) == 1


def test_limits() -> None:
    with pytest.raises(SpecError, match="the matrix of gate 'g0' has 281474976710656 numbers"):
        load("4096x4096", [0, 1])
    load("4096x4096", {"axes": [0, 1], "kind": "diagonal"}, {"axes": [0, 1], "kind": "lowrank", "rank": 8})
    with pytest.raises(SpecError, match=r"the circuit has \d+ parameters"):
        load("16384", *[[0]] * 65)
    assert len(load("2x2", {"pattern": "chain", "repeat": 10_000}).gates) == 10_000
    with pytest.raises(SpecError, match="a circuit is limited to 10,000"):
        load("2x2", [0, 1], {"pattern": "chain", "repeat": 10_000})


def test_twelve_axes_and_two_hundred_gates() -> None:
    spec = load([2] * 12, *[[i % 12, (i * 7 + 1) % 12] for i in range(200) if i % 12 != (i * 7 + 1) % 12])
    assert len(spec.gates) > 150


def test_refused_names_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    names: set[str] = set()
    for container in (torch.nn.Module(), torch.nn.ParameterDict(), torch.nn.ModuleDict()):
        names |= set(dir(container))
    assert not {name for name in names if gate_name_problem(name) is None}
    # What is refused without need: names that only other torch versions have, or only once transformers is loaded.
    assert {name for name in TORCH_NAMES if name not in names} <= {
        "smart_apply",
        "T_destination",
        "ipu",
        "mtia",
        "xpu",
        "set_submodule",
    }


@pytest.mark.parametrize(
    ("gates", "named"),
    [
        ([{"pattern": "all_pairs", "init": "zeros"}], "'g0' and 'g1' (and 1 more)"),
        (
            [{"axes": [0], "init": "zeros"}, [1], {"axes": [0], "kind": "lowrank", "rank": 1, "init": "zeros"}],
            "'g0' and 'g2'",
        ),
        ([{"axes": [0], "init": "zeros"}, {"axes": [0], "share": "g0"}], "'g0' and 'g1'"),
    ],
)
def test_two_factors_of_zeros_are_warned_of(gates: list[Any], named: str) -> None:
    spec = load_spec({"version": 1, "name": "zeros", "layout": "4x3x2", "gates": gates})
    assert [warning.message for warning in spec.warnings if "zero" in warning.message] == [
        f"gates {named} start at zero: every gradient is zero then, and the circuit never trains"
    ]


def test_one_factor_of_zeros_is_as_it_should_be() -> None:
    gates = [[0], {"axes": [1], "init": "zeros"}, [0, 1]]
    assert not load_spec({"version": 1, "name": "zero", "layout": "4x3", "gates": gates}).warnings
