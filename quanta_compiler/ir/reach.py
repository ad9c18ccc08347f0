"""After how many gates every output can depend on every input, without the graph of networkx, which loads slowly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from quanta_compiler.ir.circuit import Circuit


def gates_to_full(circuit: Circuit) -> int | None:
    """Return after how many leading gates nothing is tied to the input any more, or None.

    That is `Connectivity.is_full` in `graph`.

    Ties are only ever lost, so the circuit stays full from there on.
    """
    sizes = {leg: data.size for leg, data in enumerate(circuit.legs)}
    tied = {leg for leg in circuit.inputs if sizes[leg] > 1}
    for count, gate in enumerate(circuit.gates):
        if not tied:
            return count
        made = {row for row in gate.rows if row not in gate.columns}
        sources = overlaps(gate.columns, gate.rows, sizes) if gate.kind == "slice" else {}
        moved = {row for row in made if not tied.isdisjoint(sources.get(row, ()))}
        tied = (tied - (set(gate.columns) - set(gate.rows))) | moved
    return None if tied else len(circuit.gates)


def overlaps(columns: Sequence[int], rows: Sequence[int], sizes: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
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
