"""The contraction graph as data for a page, read off the legs: networkx would take longer to import than all the rest.

The nodes and edges are those of `ir.graph.contraction_graph`, which a test compares.
"""

from itertools import pairwise
from typing import Any

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.columns import INPUT, OUTPUT, gate_node, in_columns, leg_ways
from quanta_compiler.ir.parameters import matrix_shape


def graph_data(circuit: Circuit) -> dict[str, list[dict[str, Any]]]:
    """Return `nodes` (`id`, `name`, `kind`, `shape`, `column`, of gates `parameter`, `words`) and `edges` between them.

    `words` are the kind with its options.

    An edge is a stretch of an axis, with its `axis` and `size`, from the node (`source`) that makes or passes it to the
    next one (`target`) that passes or contracts it.
    """
    ordered, end = in_columns(circuit)
    gates = [
        {
            "id": gate_node(gate),
            "name": gate.name,
            "kind": gate.kind,
            "words": gate.matrix.in_words(),
            "parameter": gate.parameter,
            "shape": matrix_shape(circuit, gate),
            "column": column,
        }
        for column, gate in ordered
    ]
    nodes = [_end(circuit, INPUT, circuit.inputs, -1), *gates, _end(circuit, OUTPUT, circuit.outputs, end)]
    edges = [
        {"source": source, "target": target, "axis": leg.axis, "size": leg.size}
        for leg, stops in zip(circuit.legs, leg_ways(circuit, [gate for _, gate in ordered]), strict=True)
        for (source, _), (target, _) in pairwise(stops)
    ]
    return {"nodes": nodes, "edges": edges}


def _end(circuit: Circuit, name: str, legs: tuple[int, ...], column: int) -> dict[str, Any]:
    shape = [circuit.legs[leg].size for leg in legs]
    return {"id": name, "name": name, "kind": name, "shape": shape, "column": column}
