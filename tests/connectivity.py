"""Which axes depend on which, and which are tied, by the contraction graph alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import networkx as nx

from quanta_compiler.ir.columns import INPUT, OUTPUT
from quanta_compiler.kinds.two_design import is_power_of_two


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
