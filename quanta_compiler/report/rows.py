"""The rows of a circuit diagram: which wire runs where."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from quanta_compiler.ir.circuit import Circuit


@dataclass(slots=True, eq=False)
class AxisWire:
    """An axis from where it begins to where it is gone, whatever its sizes: one horizontal line of the diagram.

    Gates are positions in `circuit.gates`.
    """

    axis: str
    legs: list[int] = field(default_factory=list)
    makers: list[int | None] = field(default_factory=list)
    """What makes each leg; None: it is one of the layout."""
    end: int | None = None
    """The gate that ends it; None for an axis of the output."""
    row: int = -1


@dataclass(slots=True, eq=False)
class _Row:
    """A line of the picture; several wires may use it, one after the other."""

    busy_until: int
    """The column in which the last of its wires ends."""


def _trace_wires(circuit: Circuit) -> list[AxisWire]:
    """Return the axes of a circuit as wires, not yet placed: a leg that a gate makes goes on under its axis's name."""
    wires = [AxisWire(circuit.legs[leg].axis, [leg], [None]) for leg in circuit.inputs]
    holder = {wire.legs[0]: wire for wire in wires}
    for index, gate in enumerate(circuit.gates):
        ending = {circuit.legs[leg].axis: holder[leg] for leg in gate.columns if leg not in gate.rows}
        for leg in gate.rows:
            if leg in gate.columns:
                continue
            axis = circuit.legs[leg].axis
            if axis in ending:
                wire = ending.pop(axis)
            else:
                wire = AxisWire(axis)
                wires.append(wire)
            wire.legs.append(leg)
            wire.makers.append(index)
            holder[leg] = wire
        for wire in ending.values():
            wire.end = index
    return wires


def place_wires(circuit: Circuit, columns: Sequence[int]) -> list[AxisWire]:
    """Return the wires of a circuit with their rows, top to bottom and left to right.

    Axes of the layout keep their order. What a gate makes in place of all that it contracts takes over those rows; an
    axis made beside surviving ones goes below all where it lasts to the output, and otherwise next to its maker, on the
    side of the gate that contracts it, in a row that is free there or a new one.
    """
    wires = _trace_wires(circuit)
    wire_of = {leg: wire for wire in wires for leg in wire.legs}
    forever = max(columns, default=-1) + 1

    def ends(wire: AxisWire) -> int:
        return forever if wire.end is None else columns[wire.end]

    row_of = {wire: _Row(ends(wire)) for wire in wires if wire.makers[0] is None}
    rows = list(row_of.values())
    for index in sorted(range(len(circuit.gates)), key=lambda gate: (columns[gate], circuit.gates[gate].position)):
        gate = circuit.gates[index]
        touched = [wire_of[leg] for leg in gate.columns]
        kept = [row_of[wire] for wire in touched if wire.end != index]
        left = [] if kept else [row_of[wire] for wire in touched]
        near = kept or left[:1] or [row_of[wire_of[leg]] for leg in gate.per] or rows[-1:]
        for leg in gate.rows:
            wire = wire_of[leg]
            if wire.makers[0] != index:
                continue
            if left:
                row = left.pop(0)
            elif wire.end is None and kept:
                row = _free_row(rows, len(rows), -1, columns[index])
            else:
                eater = () if wire.end is None else circuit.gates[wire.end].columns
                others = [row_of[wire_of[other]] for other in eater if wire_of[other] in row_of]
                row = _row_beside(rows, near, others, columns[index])
            row.busy_until = ends(wire)
            row_of[wire] = row
            near = kept or [*near, row]
    for wire in wires:
        wire.row = rows.index(row_of[wire])
    return sorted(wires, key=lambda wire: (wire.row, -1 if wire.makers[0] is None else columns[wire.makers[0]]))


def _row_beside(rows: list[_Row], near: list[_Row], towards: list[_Row], column: int) -> _Row:
    """Return a row next to `near`: above where all of `towards` lies above, else below."""
    top, bottom = (function(rows.index(row) for row in near) for function in (min, max))
    if towards and all(rows.index(row) < top for row in towards):
        return _free_row(rows, top, top - 1, column)
    return _free_row(rows, bottom + 1, bottom + 1, column)


def _free_row(rows: list[_Row], position: int, candidate: int, column: int) -> _Row:
    """Return the row at `candidate` where it is free from `column` on, else a new one at `position`."""
    if -len(rows) <= candidate < len(rows) and rows[candidate].busy_until < column:
        return rows[candidate]
    rows.insert(position, _Row(-1))
    return rows[position]
