"""The contraction graph as networkx: gates and boundary are nodes, stretches of axes are edges.

Importing networkx takes longer than most commands, so import this module only where a graph is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import networkx as nx

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.columns import INPUT, OUTPUT, gate_node, in_columns, leg_ways
from quanta_compiler.ir.parameters import matrix_shape, stored_tensors
from quanta_compiler.ir.reach import gates_to_full, wires_not_turned
from quanta_compiler.kinds.kind import Form


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
    gates, end = in_columns(circuit)
    graph.add_node(INPUT, kind=INPUT, shape=_sizes(circuit, circuit.inputs), column=-1, rows=circuit.inputs)
    for column, gate in gates:
        _add_gate(graph, circuit, gate, column)
    graph.add_node(OUTPUT, kind=OUTPUT, shape=_sizes(circuit, circuit.outputs), column=end, columns=circuit.outputs)
    for leg, stops in enumerate(leg_ways(circuit, [gate for _, gate in gates])):
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
