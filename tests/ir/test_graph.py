from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import networkx as nx
import pytest
import torch
from connectivity import connectivity
from drawn_circuits import circuit_of, named_circuit, pair, random_circuit

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.columns import gate_columns
from quanta_compiler.ir.graph import contraction_graph
from quanta_compiler.ir.reach import gates_to_full
from quanta_compiler.oracle.reference import circuit_operator

SEEDS = range(40)


def edges(circuit: Circuit) -> list[tuple[str, str, str, int, str]]:
    graph = contraction_graph(circuit)
    return [(u, v, data["axis"], data["size"], data["role"]) for u, v, data in graph.edges(data=True)]


def test_a_gate_sits_between_its_axes_and_an_untouched_axis_goes_straight() -> None:
    assert edges(circuit_of({"a": 4, "b": 8}, [pair("a", to={"a": 3})])) == [
        ("input", "gate:g0", "a", 4, "contracted"),
        ("input", "output", "b", 8, "output"),
        ("gate:g0", "output", "a", 3, "output"),
    ]


def test_per_and_diagonal_axes_go_in_and_out_again_on_one_leg() -> None:
    circuit = circuit_of({"a": 4, "b": 8}, [pair("b", per=["a"], name="L"), pair("a", kind="diagonal", name="D")])
    graph = contraction_graph(circuit)
    assert sorted((u, v, data["leg"], data["role"]) for u, v, data in graph.edges(data=True)) == [
        ("gate:D", "output", 0, "output"),
        ("gate:L", "gate:D", 0, "diagonal"),
        ("gate:L", "output", 2, "output"),
        ("input", "gate:L", 0, "per"),
        ("input", "gate:L", 1, "contracted"),
    ]


def test_node_attributes() -> None:
    graph = contraction_graph(named_circuit("tensor-train"))
    assert graph.nodes["input"] == {"kind": "input", "shape": (16, 8, 8, 4), "column": -1, "rows": (0, 1, 2, 3)}
    assert graph.nodes["output"]["shape"] == (16, 8, 8, 4)
    assert graph.nodes["output"]["column"] == 4
    assert graph.nodes["gate:g1"] == {
        "name": "g1",
        "kind": "dense",
        "shape": (32, 32),
        "column": 1,
        "parameters": 1024,
        "frozen": False,
        "columns": (5, 1),
        "rows": (6, 7),
        "per": (),
        "axes": ("r1", "b"),
        "to": ("b", "r2"),
        "per_axes": (),
        "reshapes": False,
        "still_wires": (),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_every_leg_is_a_way_through_the_graph(seed: int) -> None:
    circuit = random_circuit(seed, kinds=("dense", "diagonal", "lowrank"))
    graph = contraction_graph(circuit)
    assert nx.is_directed_acyclic_graph(graph)
    for leg, data in enumerate(circuit.legs):
        way = [(u, v, attributes) for u, v, key, attributes in graph.edges(keys=True, data=True) if key == leg]
        assert nx.is_directed_acyclic_graph(nx.DiGraph([(u, v) for u, v, _ in way]))
        assert len({u for u, _, _ in way}) == len({v for _, v, _ in way}) == len(way), "a leg does not fork"
        assert all((attributes["axis"], attributes["size"]) == (data.axis, data.size) for _, _, attributes in way)
    assert graph.in_degree("output") == len(circuit.outputs)
    assert graph.out_degree("input") == len(circuit.inputs)


def commute(circuit: Circuit, first: Gate, second: Gate) -> bool:
    """Two gates commute where no axis that they share is changed by either."""

    def axes(gate: Gate) -> tuple[set[str], set[str]]:
        touched = {circuit.legs[leg].axis for leg in (*gate.columns, *gate.rows)}
        read = {circuit.legs[leg].axis for leg in gate.per}
        return (read | touched, set()) if gate.kind == "diagonal" else (read, touched)

    (reads, writes), (other_reads, other_writes) = axes(first), axes(second)
    return not (writes & (other_reads | other_writes) or other_writes & reads)


@pytest.mark.parametrize("seed", SEEDS)
def test_columns_are_the_longest_path_layers_of_gates_that_do_not_commute(seed: int) -> None:
    circuit = random_circuit(seed, kinds=("dense", "diagonal"), axes=6, gates=14)
    order: nx.DiGraph[str] = nx.DiGraph()
    order.add_nodes_from(gate.name for gate in circuit.gates)
    order.add_edges_from(
        (first.name, second.name)
        for first, second in itertools.combinations(circuit.gates, 2)
        if not commute(circuit, first, second)
    )
    layers = {name: layer for layer, names in enumerate(nx.topological_generations(order)) for name in names}
    assert gate_columns(circuit) == tuple(layers[gate.name] for gate in circuit.gates)
    graph = contraction_graph(circuit)
    assert {gate.name: graph.nodes[f"gate:{gate.name}"]["column"] for gate in circuit.gates} == layers


@pytest.mark.parametrize("seed", SEEDS)
def test_columns_and_graph_do_not_depend_on_the_order_of_commuting_gates(seed: int) -> None:
    circuit = random_circuit(seed, kinds=("dense", "diagonal"), axes=6, gates=14)
    columns = dict(zip((gate.name for gate in circuit.gates), gate_columns(circuit), strict=True))
    shuffled = list(circuit.gates)
    random.Random(seed).shuffle(shuffled)
    other = replace(circuit, gates=tuple(sorted(shuffled, key=lambda gate: columns[gate.name])))
    assert gate_columns(other) == tuple(columns[gate.name] for gate in other.gates)
    assert nx.utils.graphs_equal(contraction_graph(other), contraction_graph(circuit))
    assert edges(other) == edges(circuit)


def test_gates_that_only_read_an_axis_stand_in_one_column() -> None:
    circuit = circuit_of([2, 2, 2], [pair(1, per=[0]), pair(2, per=[0]), pair(0, kind="diagonal"), pair(0)])
    assert gate_columns(circuit) == (0, 0, 0, 1)


FULL: list[tuple[str, Any, list[Any], int | None]] = [
    ("all pairs", "4x3x2x2", ["all_pairs"], 3),
    ("kron", "4x3x2", ["each"], 3),
    ("monarch", {"a": 4, "b": 4}, [pair("b", per=["a"]), pair("a", per=["b"])], 2),
    ("block diagonal", {"a": 4, "b": 4}, [pair("b", per=["a"])], None),
    ("diagonal", 4, [pair(0, kind="diagonal")], None),
    ("an untouched axis", "4x3x2", [[0, 2]], None),
    ("an untouched axis of size 1", "4x1x2", [[0, 2]], 1),
    ("a removed axis", {"a": 4, "b": 3}, [pair("a", "b", to={"a": 2})], 1),
    ("LoRA", {"x": 6}, [pair("x", to={"r": 2}), pair("r", to={"y": 6})], 1),
    ("a slice moves what it does not mix", 8, [pair(0, kind="slice", to={"b": 2, "c": 4}), pair("b")], None),
    ("a slice and both its parts", 8, [pair(0, kind="slice", to={"b": 2, "c": 4}), pair("b"), pair("c")], 3),
    ("a slice after a gate", 8, [[0], pair(0, kind="slice", to={"b": 2, "c": 4})], 1),
]


@pytest.mark.parametrize(("layout", "gates", "count"), [case[1:] for case in FULL], ids=[case[0] for case in FULL])
def test_full_after_so_many_gates(layout: Any, gates: list[Any], count: int | None) -> None:
    circuit = circuit_of(layout, gates)
    assert gates_to_full(circuit) == count
    assert connectivity(contraction_graph(circuit)).is_full == (count is not None)
    assert bool((operator(circuit) != 0).all()) == (count is not None)


def test_what_depends_and_what_is_tied() -> None:
    seen = connectivity(contraction_graph(circuit_of({"a": 2, "b": 2, "c": 2}, [pair("b", per=["a"])])))
    assert seen.depends == {"a": ("a",), "b": ("a", "b"), "c": ("c",)}
    assert seen.tied == {"a": ("a",), "b": (), "c": ("c",)}


def test_a_kronecker_product_is_full_though_no_axis_meets_another() -> None:
    seen = connectivity(contraction_graph(named_circuit("kron")))
    assert seen.depends == {"0": ("0",), "1": ("1",), "2": ("2",)}
    assert seen.is_full


def test_made_axes_depend_on_what_made_them() -> None:
    seen = connectivity(contraction_graph(named_circuit("tensor-train")))
    assert seen.depends == {"a": ("a",), "b": ("a", "b"), "c": ("a", "b", "c"), "d": ("a", "b", "c", "d")}
    assert seen.is_full


@pytest.mark.parametrize(
    ("before", "after", "tied"),
    [
        ({"a": 2, "b": 4}, {"c": 2, "d": 4}, {"c": ("a",), "d": ("b",)}),
        ({"a": 2, "b": 8}, {"c": 4, "d": 4}, {"c": ("a", "b"), "d": ("b",)}),
        ({"a": 3, "b": 4}, {"c": 4, "d": 3}, {"c": ("a", "b"), "d": ("a", "b")}),
        ({"a": 2, "b": 8}, {"c": 4}, {"c": ("b",)}),
        ({"a": 2, "b": 2}, {"c": 3, "d": 2}, {"c": ("a",), "d": ("b",)}),
        ({"a": 2, "b": 1}, {"c": 1, "d": 2}, {"c": (), "d": ("a",)}),
    ],
    ids=str,
)
def test_a_slice_ties_digit_by_digit(
    before: dict[str, int], after: dict[str, int], tied: dict[str, tuple[str, ...]]
) -> None:
    circuit = circuit_of(before, [pair(*before, kind="slice", to=after)])
    assert connectivity(contraction_graph(circuit)).tied == tied


def matrices(circuit: Circuit, seed: int = 0, *, stochastic: bool = False) -> dict[str, torch.Tensor]:
    """Return positive gates, so that nothing cancels; stochastic ones have columns that sum to 1."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        values = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
        return values / values.sum(-2, keepdim=True) if stochastic else values

    tensors: dict[str, torch.Tensor] = {}
    for gate in circuit.gates:
        per = [circuit.legs[leg].size for leg in gate.per]
        rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
        if gate.kind == "dense":
            tensors[gate.name] = draw(*per, rows, columns)
        if gate.kind == "diagonal":
            tensors[gate.name] = draw(*per, rows, 1)[..., 0]
        if gate.kind == "lowrank":
            rank = gate.matrix.data()["rank"]
            tensors[f"{gate.name}.B"], tensors[f"{gate.name}.A"] = (
                draw(*per, rows, rank),
                draw(*per, rank, columns),
            )
    return tensors


def operator(circuit: Circuit, **keys: Any) -> torch.Tensor:
    """Return the operator as a tensor: [*output axes, *input axes]."""
    sizes = [circuit.legs[leg].size for leg in (*circuit.outputs, *circuit.inputs)]
    return circuit_operator(circuit, matrices(circuit, **keys)).reshape(sizes)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_operator_is_zero_exactly_where_a_tied_axis_differs(seed: int) -> None:
    circuit = random_circuit(seed, kinds=("dense", "dense", "diagonal", "lowrank"), gates=seed % 6 + 1)
    seen = connectivity(contraction_graph(circuit))
    inputs = [circuit.legs[leg].axis for leg in circuit.inputs]
    full_operator = operator(circuit, seed=seed)
    expected = torch.ones_like(full_operator, dtype=torch.bool)
    for place, leg in enumerate(circuit.outputs):
        for name in seen.tied[circuit.legs[leg].axis]:
            shape = [1] * full_operator.dim()
            shape[place] = shape[len(circuit.outputs) + inputs.index(name)] = circuit.legs[leg].size
            expected &= torch.eye(circuit.legs[leg].size, dtype=torch.bool).reshape(shape)
    assert torch.equal(full_operator != 0, expected)
    assert seen.is_full == bool(expected.all())
    count = gates_to_full(circuit)
    assert (count is not None) == seen.is_full
    assert count is None or count <= len(circuit.gates)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_output_axis_depends_on_what_its_distribution_varies_with(seed: int) -> None:
    circuit = random_circuit(seed, kinds=("dense", "lowrank"), gates=seed % 6 + 1)
    seen = connectivity(contraction_graph(circuit))
    joint = operator(circuit, seed=seed, stochastic=True)
    outputs = len(circuit.outputs)
    for place, leg in enumerate(circuit.outputs):
        others = [other for other in range(outputs) if other != place]
        marginal = joint.sum(others) if others else joint  # [output axis, *input axes]
        varying = tuple(
            circuit.legs[source].axis
            for axis, source in enumerate(circuit.inputs, start=1)
            if float((marginal.amax(axis) - marginal.amin(axis)).max()) > 1e-9
        )
        assert seen.depends[circuit.legs[leg].axis] == varying
