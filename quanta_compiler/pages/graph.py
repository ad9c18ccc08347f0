"""The contraction graph as data for a page, read off the legs: networkx would take longer to import than all the rest.

The nodes and edges are those of `ir.graph.contraction_graph`, which a test compares.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.columns import gate_columns, passing_legs
from quanta_compiler.ir.parameters import matrix_shape

INPUT, OUTPUT = "input", "output"
"""The nodes at the ends; those of gates are called `gate:<name>`."""


def graph_data(circuit: Circuit) -> dict[str, list[dict[str, Any]]]:
    """Return `nodes` (`id`, `name`, `kind`, `shape`, `column`, of gates `parameter`, `words`) and `edges` between them.

    `words` are the kind with its options.

    An edge is a stretch of an axis, with its `axis` and `size`, from the node (`source`) that makes or passes it to the
    next one (`target`) that passes or contracts it.
    """
    columns = gate_columns(circuit)
    end = max(columns, default=-1) + 1
    order = sorted(range(len(circuit.gates)), key=lambda place: (columns[place], circuit.gates[place].position))
    gates = [
        {
            "id": _id(circuit.gates[place]),
            "name": circuit.gates[place].name,
            "kind": circuit.gates[place].kind,
            "words": circuit.gates[place].matrix.in_words(),
            "parameter": circuit.gates[place].parameter,
            "shape": matrix_shape(circuit, circuit.gates[place]),
            "column": columns[place],
        }
        for place in order
    ]
    nodes = [_end(circuit, INPUT, circuit.inputs, -1), *gates, _end(circuit, OUTPUT, circuit.outputs, end)]
    edges = [
        {"source": source, "target": target, "axis": leg.axis, "size": leg.size}
        for leg, stops in zip(circuit.legs, _stops(circuit, [circuit.gates[place] for place in order]), strict=True)
        for source, target in pairwise(stops)
    ]
    return {"nodes": nodes, "edges": edges}


def _id(gate: Gate) -> str:
    return f"gate:{gate.name}"


def _end(circuit: Circuit, name: str, legs: tuple[int, ...], column: int) -> dict[str, Any]:
    shape = [circuit.legs[leg].size for leg in legs]
    return {"id": name, "name": name, "kind": name, "shape": shape, "column": column}


def _stops(circuit: Circuit, gates: list[Gate]) -> list[list[str]]:
    """Return for each leg the nodes on its way, in order."""
    stops: list[list[str]] = [[INPUT] if leg in circuit.inputs else [] for leg in range(len(circuit.legs))]
    for gate in gates:
        for leg in dict.fromkeys((*passing_legs(gate), *gate.columns, *gate.rows)):
            stops[leg].append(_id(gate))
    for leg in circuit.outputs:
        stops[leg].append(OUTPUT)
    return stops
