"""The contraction graph as networkx: gates and boundary are nodes, stretches of axes are edges.

Importing networkx takes longer than most commands, so import this module only where a graph is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import networkx as nx

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.columns import gate_columns, passing_legs
from quanta_compiler.ir.parameters import matrix_shape, stored_tensors
from quanta_compiler.ir.reach import gates_to_full, wires_not_turned
from quanta_compiler.kinds.kind import Form
from quanta_compiler.kinds.two_design import is_power_of_two

INPUT = "input"
OUTPUT = "output"


def gate_node(gate: Gate) -> str:
    """Return the name of a gate's node."""
    return f"gate:{gate.name}"


def contraction_graph(circuit: Circuit) -> nx.MultiDiGraph[str]:
    """Return the circuit as a graph: nodes `input`, `output` and `gate:<name>`; one edge per stretch of an axis.

    A leg runs from where it is made (`input`, or the gate of whose rows it is one) through the gates that it passes
    unchanged to where it ends (the gate that contracts it, or `output`); every step of that way is an edge with

    - `axis`, `size`, `leg`: the axis's name and size, and the position in `circuit.legs`, which is the edge's key;
    - `role`: what the leg is to the node it enters: `contracted`, `per`, `diagonal` or `output`. An edge with
      role `per` or `diagonal` goes on as an edge of the same leg out of the gate. An axis that no gate touches is one
      edge from `input` to `output`.

    Gates that pass the same leg commute; they are threaded in order of column, then of the file, so the graph does not
    depend on the order of commuting gates.

    Node attributes: `kind` (`input` and `output` for the boundary), `shape` (of the matrix, `[*per, rows, columns]`;
    of the state at the boundary), `column` (of the diagram; -1 for the input, the number of columns for the output) and
    for gates `name`, `parameters` (numbers in the state dict), `frozen`, `columns`, `rows` and `per` (legs), `axes`,
    `to` and `per_axes` (names), `reshapes` (whether its matrix only moves indices) and `still_wires` (the bits of its
    index that stay as they are, whatever trains).

    Graph attributes: `name`, `in_features`, `out_features` and `connected` (whether every output can depend on every
    input, as `reach.gates_to_full` defines it).
    """
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(
        name=circuit.name,
        in_features=circuit.in_features,
        out_features=circuit.out_features,
        connected=gates_to_full(circuit) is not None,
    )
    columns = gate_columns(circuit)
    graph.add_node(INPUT, kind=INPUT, shape=_sizes(circuit, circuit.inputs), column=-1, rows=circuit.inputs)
    order = sorted(range(len(circuit.gates)), key=lambda index: (columns[index], circuit.gates[index].position))
    for index in order:
        _add_gate(graph, circuit, circuit.gates[index], columns[index])
    end = max(columns, default=-1) + 1
    graph.add_node(OUTPUT, kind=OUTPUT, shape=_sizes(circuit, circuit.outputs), column=end, columns=circuit.outputs)

    gates = [circuit.gates[index] for index in order]
    for leg, stops in enumerate(_ways(circuit, gates)):
        for (source, _), (target, role) in pairwise(stops):
            axis = circuit.legs[leg]
            graph.add_edge(source, target, key=leg, leg=leg, axis=axis.axis, size=axis.size, role=role)
    return graph


def _sizes(circuit: Circuit, legs: Sequence[int]) -> tuple[int, ...]:
    return tuple(circuit.legs[leg].size for leg in legs)


def _add_gate(graph: nx.MultiDiGraph[str], circuit: Circuit, gate: Gate, column: int) -> None:
    graph.add_node(
        gate_node(gate),
        name=gate.name,
        kind=gate.kind,
        shape=matrix_shape(circuit, gate),
        column=column,
        parameters=sum(stored.numbers for part in gate.parts or (gate,) for stored in stored_tensors(circuit, part)),
        frozen=gate.frozen,
        columns=gate.columns,
        rows=gate.rows,
        per=gate.per,
        axes=tuple(circuit.legs[leg].axis for leg in gate.columns),
        to=tuple(circuit.legs[leg].axis for leg in gate.rows),
        per_axes=tuple(circuit.legs[leg].axis for leg in gate.per),
        reshapes=gate.form is Form.RESHAPE,
        still_wires=wires_not_turned(circuit, gate),
    )


def _ways(circuit: Circuit, gates: Sequence[Gate]) -> list[list[tuple[str, str]]]:
    """Return for each leg the nodes that it visits in order, each with what the leg is to it."""
    ways: list[list[tuple[str, str]]] = [[] for _ in circuit.legs]
    for leg in circuit.inputs:
        ways[leg].append((INPUT, "made"))
    for gate in gates:
        node, passing = gate_node(gate), passing_legs(gate)
        for leg in passing:
            ways[leg].append((node, "per" if leg in gate.per else "diagonal"))
        for leg in gate.columns:
            if leg not in passing:
                ways[leg].append((node, "contracted"))
        for leg in gate.rows:
            if leg not in passing:
                ways[leg].append((node, "made"))
    for leg in circuit.outputs:
        ways[leg].append((OUTPUT, "output"))
    return ways


@dataclass(frozen=True, slots=True)
class Connectivity:
    """Which output axes can depend on which input axes; both views name the input axes in the order of the layout."""

    depends: dict[str, tuple[str, ...]]
    """For each output axis the input axes that it can depend on, by wires alone.

    A gate lets all that it creates depend on all that it contracts and on its `per` axes; a `per` or diagonal axis
    itself goes through unaffected. In other words: were every matrix a table of transition probabilities, these are the
    input axes that the distribution of that output axis could depend on.
    """
    tied: dict[str, tuple[str, ...]]
    """For each output axis the input axes that it is tied to: no gate that can mix stands between the two.

    The operator is then zero wherever the output index does not agree with the input index. A `slice` moves indices
    without mixing and ties like a wire, and so do the wires of a `pauli` gate that no angle turns, where its size is a
    power of two; an axis of size 1 has nothing to tie.
    Where either regroups axes, an axis counts as tied as a whole even if only a part of its index is; `is_full` is
    exact, and knows of the boundary.
    """
    is_full: bool
    """Whether every entry of the operator is nonzero for generic matrices, boundary and slices included.

    That is `reach.gates_to_full`, which follows indices: it knows where an axis is tied in part. A Kronecker product is
    full, though its axes never meet; a block-diagonal circuit is not.
    """


def connectivity(graph: nx.MultiDiGraph[str]) -> Connectivity:
    """Return which output axes depend on, and which are tied to, which input axes of a contraction graph."""
    legs = {leg: data for _, _, leg, data in graph.edges(keys=True, data=True)}
    sizes: dict[int, int] = {leg: data["size"] for leg, data in legs.items()}
    inputs: tuple[int, ...] = graph.nodes[INPUT]["rows"]
    depends: dict[int, set[int]] = {leg: {leg} for leg in inputs}
    tied: dict[int, set[int]] = {leg: {leg} for leg in inputs if sizes[leg] > 1}
    for node in nx.topological_sort(graph):
        data = graph.nodes[node]
        if node in (INPUT, OUTPUT):
            continue
        sources = _overlaps(data["columns"], data["rows"], sizes) if data["reshapes"] else {}
        ties = _still_ties(data, sizes) if data["still_wires"] else sources
        for row in data["rows"]:
            if row in data["columns"]:
                continue  # a diagonal gate changes nothing about its legs
            depends[row] = set().union(*(depends[leg] for leg in (*sources.get(row, data["columns"]), *data["per"])))
            tied[row] = set().union(*(tied.get(leg, set()) for leg in ties.get(row, ())))
    outputs: tuple[int, ...] = graph.nodes[OUTPUT]["columns"]

    def named(reach: dict[int, set[int]]) -> dict[str, tuple[str, ...]]:
        return {
            legs[leg]["axis"]: tuple(legs[source]["axis"] for source in inputs if source in reach.get(leg, ()))
            for leg in outputs
        }

    return Connectivity(named(depends), named(tied), graph.graph["connected"])


def _still_ties(data: Mapping[str, Any], sizes: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
    """Return for each row leg of a gate the column legs that the bits which stay as they are tie it to.

    A gate whose size is no power of two ties nothing: its two halves meet, whatever stays still within them.
    """
    rows, columns = data["rows"], data["columns"]
    size = max(math.prod(sizes[leg] for leg in side) for side in (rows, columns))
    if not is_power_of_two(size):
        return {}
    # Wires get numbers that no leg has: the column legs are read as wires, and these as row legs.
    wires = range(-size.bit_length() + 1, 0)
    both = {**sizes, **dict.fromkeys(wires, 2)}
    read, written = _overlaps(columns, wires, both), _overlaps(wires, rows, both)
    still = {wires[wire] for wire in data["still_wires"]}
    return {
        row: tuple(leg for leg in columns if any(leg in read[wire] for wire in written[row] if wire in still))
        for row in rows
    }


def _overlaps(columns: Sequence[int], rows: Sequence[int], sizes: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
    """Return for each row leg of a `slice` the column legs that its index can be computed from.

    Both sides are digits of one flat index, so a leg stands for the strides from that of the leg after it up to its
    own; legs whose ranges overlap depend on each other. That is exact where each stride divides the next. Where one
    does not (4x3 read as 3x4), every digit between two strides that both sides share depends on all others there.
    """
    before, after = _strides(columns, sizes), _strides(rows, sizes)
    ranges = {**before, **after}
    cuts = sorted({stride for span in ranges.values() for stride in span})
    shared = sorted({low for low, _ in before.values()} & {low for low, _ in after.values()})
    for low, high in pairwise([*shared, *cuts[-1:]]):
        inner = [cut for cut in cuts if low <= cut <= high]
        if any(second % first for first, second in pairwise(inner)):
            within = [leg for leg, span in ranges.items() if low <= span[0] < span[1] <= high]
            ranges.update(dict.fromkeys(within, (low, high)))
    return {
        row: tuple(leg for leg in columns if max(ranges[leg][0], ranges[row][0]) < min(ranges[leg][1], ranges[row][1]))
        for row in rows
    }


def _strides(legs: Sequence[int], sizes: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Return for each leg its stride in the flat index of `legs`, and that of the next digit before it."""
    spans: dict[int, tuple[int, int]] = {}
    stride = 1
    for leg in reversed(legs):
        spans[leg] = (stride, stride * sizes[leg])
        stride *= sizes[leg]
    return spans
