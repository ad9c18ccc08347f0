"""What a circuit diagram shows and where, in rows and slots; `svg` and `text_diagram` only choose the units.

Gates of one column of the graph can act at once. Where their spans cross, as those of (0, 2) and (1, 3) do, they are
drawn side by side in several *slots* of that column, so that boxes never overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.columns import gate_columns
from quanta_compiler.ir.parameters import matrix_shape, stored_tensors
from quanta_compiler.kinds import KINDS
from quanta_compiler.kinds.looks import Look, Outline
from quanta_compiler.report.rows import AxisWire, place_wires
from quanta_compiler.text.words import plural


@dataclass(frozen=True, slots=True)
class Box:
    """A gate as drawn in one slot."""

    name: str
    kind: str
    look: Look
    frozen: bool
    slot: int
    segments: tuple[tuple[int, int], ...]
    """Runs of rows, first and last, that the box covers: the axes that the gate contracts or makes; of a `cz` none."""
    dots: tuple[int, ...]
    """Rows of the `per` axes, or of the two axes of a `cz`, which is drawn as two dots and a line."""
    crossed: tuple[int, ...]
    """Rows between its ends whose wires the gate does not touch."""
    notes: tuple[str, ...]
    """What the box says below its name."""
    growth: int
    """1 where the matrix has more rows than columns, -1 where it has fewer, else 0."""
    tooltip: str

    @property
    def span(self) -> tuple[int, int]:
        """Return the first and the last row of anything that is drawn for the gate."""
        rows = [*self.dots, *(row for segment in self.segments for row in segment)]
        return min(rows), max(rows)

    @property
    def label_segment(self) -> tuple[int, int]:
        """Return the segment that carries the text: the tallest, the first of several. There is one."""
        return max(self.segments, key=lambda segment: (segment[1] - segment[0], -segment[0]))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a wire with one size, labelled where it begins."""

    slot: int
    """The slot of the gate that makes it; -1 at the input."""
    label: str


@dataclass(frozen=True, slots=True)
class Wire:
    """An axis, drawn as a line from one slot to another (-1: the input, the number of slots: the output)."""

    axis: str
    row: int
    begin: int
    end: int
    stretches: tuple[Stretch, ...]

    def crosses(self, slot: int) -> bool:
        """Return whether the wire runs through all of a slot."""
        return self.begin < slot < self.end

    def label_at(self, slot: int) -> str:
        """Return the label of the stretch that enters a slot."""
        return [stretch.label for stretch in self.stretches if stretch.slot < slot][-1]


@dataclass(frozen=True, slots=True)
class Diagram:
    """A circuit laid out in rows (axes) and slots (gates)."""

    name: str
    summary: str
    input_note: str
    output_note: str
    rows: int
    slots: tuple[int, ...]
    """The column of each slot."""
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    output: tuple[int, ...]
    """Positions in `wires`, in the order of the output."""
    legend: tuple[tuple[str, str], ...]
    """What is to be explained below the picture: a kind, or nothing, and a line of text each."""

    @property
    def output_rows(self) -> tuple[int, ...]:
        """Return the rows of the output axes, in the order of the output."""
        return tuple(self.wires[wire].row for wire in self.output)

    @property
    def is_permuted(self) -> bool:
        """Return whether the output's order is not that of the rows."""
        return list(self.output_rows) != sorted(self.output_rows)

    def shared_columns(self) -> list[list[int]]:
        """Return the slots of each column that has several."""
        columns: dict[int, list[int]] = {}
        for slot, column in enumerate(self.slots):
            columns.setdefault(column, []).append(slot)
        return [slots for slots in columns.values() if len(slots) > 1]

    def labels(self, wire: Wire) -> tuple[Stretch, ...]:
        """Return the stretches of a wire to label where they begin; one beside the label at the output is not."""
        beside = () if self.is_permuted or wire.end < len(self.slots) else (wire.end - 1,)
        return tuple(stretch for stretch in wire.stretches if stretch.slot not in beside or stretch.slot < 0)


def draw(circuit: Circuit) -> Diagram:
    """Lay out the diagram of a circuit."""
    columns = gate_columns(circuit)
    axis_wires = place_wires(circuit, columns)
    row_of = {leg: wire.row for wire in axis_wires for leg in wire.legs}
    spans = [_span([row_of[leg] for leg in gate.columns + gate.rows + gate.per]) for gate in circuit.gates]
    slot_of, slots = _assign_slots(circuit, columns, spans)
    wires = tuple(_wire(circuit, wire, slot_of, len(slots)) for wire in axis_wires)
    boxes = [_box(circuit, gate, slot_of[index], row_of, wires) for index, gate in enumerate(circuit.gates)]
    last = {wire.legs[-1]: index for index, wire in enumerate(axis_wires)}
    return Diagram(
        name=printable(circuit.name),
        summary=_summary(circuit, max(columns, default=-1) + 1),
        input_note=_boundary("input", circuit.in_features, circuit.in_size),
        output_note=_boundary("output", circuit.out_size, circuit.out_features),
        rows=max(row_of.values(), default=-1) + 1,
        slots=slots,
        boxes=tuple(sorted(boxes, key=lambda box: (box.slot, box.span))),
        wires=wires,
        output=tuple(last[leg] for leg in circuit.outputs),
        legend=_legend(circuit.gates),
    )


def printable(text: str, limit: int = 64) -> str:
    """Return a text from a circuit file fit for a picture: nothing that XML or a terminal could choke on, not long."""
    clean = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _span(rows: Sequence[int]) -> tuple[int, int]:
    return min(rows), max(rows)


def _assign_slots(
    circuit: Circuit, columns: Sequence[int], spans: Sequence[tuple[int, int]]
) -> tuple[list[int], tuple[int, ...]]:
    """Return the slot of each gate and the column of each slot: the first slot of its column that has room."""
    slot_of = [0] * len(columns)
    slots: list[int] = []
    for column in range(max(columns, default=-1) + 1):
        members = [index for index, own in enumerate(columns) if own == column]
        filled: list[int] = []  # the last row in use, slot by slot
        for index in sorted(members, key=lambda member: (spans[member], circuit.gates[member].position)):
            top, bottom = spans[index]
            slot = next((slot for slot, used in enumerate(filled) if used < top), len(filled))
            filled[slot : slot + 1] = [bottom]
            slot_of[index] = len(slots) + slot
        slots.extend([column] * len(filled))
    return slot_of, tuple(slots)


def _wire(circuit: Circuit, wire: AxisWire, slot_of: Sequence[int], slots: int) -> Wire:
    makers = [-1 if gate is None else slot_of[gate] for gate in wire.makers]
    sizes = [circuit.legs[leg].size for leg in wire.legs]
    axis = printable(wire.axis, 16)
    stretches = tuple(
        Stretch(slot, f"{axis}: {size}")
        for index, (slot, size) in enumerate(zip(makers, sizes, strict=True))
        if index == 0 or sizes[index - 1] != size
    )
    return Wire(axis, wire.row, makers[0], slots if wire.end is None else slot_of[wire.end], stretches)


def _box(circuit: Circuit, gate: Gate, slot: int, row_of: dict[int, int], wires: Sequence[Wire]) -> Box:
    look = gate.matrix.look
    dotted, boxed = (gate.columns, ()) if look.outline is Outline.DOTS else (gate.per, gate.columns + gate.rows)
    touched = sorted({row_of[leg] for leg in boxed})
    dots = tuple(sorted(row_of[leg] for leg in dotted))
    top, bottom = _span([*touched, *dots])
    crossing = {wire.row for wire in wires if wire.crosses(slot)}
    crossed = tuple(row for row in range(top, bottom + 1) if row in crossing and row not in touched and row not in dots)
    segments: list[tuple[int, int]] = []
    for row in touched:
        # Rows that are empty here are covered as well: there is nothing to go around.
        joins = segments and not any(between in crossed + dots for between in range(segments[-1][1] + 1, row))
        segments[-1:] = [(segments[-1][0], row)] if joins else [*segments[-1:], (row, row)]
    rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
    return Box(
        name=printable(gate.name, 16),
        kind=gate.kind,
        look=look,
        frozen=gate.frozen,
        slot=slot,
        segments=tuple(segments),
        dots=dots,
        crossed=crossed,
        notes=_notes(gate),
        growth=(rows > columns) - (rows < columns),
        tooltip=_tooltip(circuit, gate),
    )


def _notes(gate: Gate) -> tuple[str, ...]:
    shared = f"= {printable(gate.parameter, 16)}{'ᵀ' if gate.transpose else ''}" if _is_shared(gate) else ""
    own = [f"{len(gate.parts)} gates"] if gate.parts else [printable(note, 16) for note in gate.matrix.notes()]
    across = f"across {gate.across}" if gate.across else ""
    return tuple(note for note in (*own, shared, across, "frozen" if gate.frozen else "") if note)


def _parameters(circuit: Circuit, gate: Gate) -> int:
    return sum(stored.numbers for part in gate.parts or (gate,) for stored in stored_tensors(circuit, part))


def _is_shared(gate: Gate) -> bool:
    return gate.parameter != gate.name and not gate.parts


def _sizes(circuit: Circuit, legs: Sequence[int]) -> str:
    return "×".join(str(circuit.legs[leg].size) for leg in legs) or "1"


def _axes(circuit: Circuit, legs: Sequence[int]) -> str:
    return ", ".join(printable(f"{circuit.legs[leg].axis}: {circuit.legs[leg].size}") for leg in legs)


def _tooltip(circuit: Circuit, gate: Gate) -> str:
    kind = f"{printable(gate.kind)} gate{gate.matrix.options_in_words()}"
    lines = [f"{printable(gate.name)}: {kind} on {_axes(circuit, gate.columns)}"]
    if [circuit.legs[leg] for leg in gate.columns] != [circuit.legs[leg] for leg in gate.rows]:
        lines.append(f"becomes {_axes(circuit, gate.rows)}")
    if gate.per:
        lines.append(f"one matrix per index of {_axes(circuit, gate.per)}")
    shape = "×".join(map(str, matrix_shape(circuit, gate)))
    shared = f", shared with {printable(gate.parameter)}{' (transposed)' if gate.transpose else ''}"
    parameters = plural(_parameters(circuit, gate), "frozen parameter" if gate.frozen else "parameter")
    return "\n".join([*lines, f"matrix {shape}" + (shared if _is_shared(gate) else f", {parameters}")])


def _summary(circuit: Circuit, columns: int) -> str:
    sides = _sizes(circuit, circuit.inputs), _sizes(circuit, circuit.outputs)
    parameters = sum(_parameters(circuit, gate) for gate in circuit.gates)
    size = sides[0] if sides[0] == sides[1] else " → ".join(sides)
    gates = f"{plural(len(circuit.gates), 'gate')} in {plural(columns, 'column')}"
    return f"{size} · {gates} · {plural(parameters, 'parameter')}"


def _boundary(side: str, before: int, after: int) -> str:
    """Return what happens to a vector of `before` numbers where `after` are wanted."""
    if before == after:
        return f"{side} {before}"
    return f"{side} {before} → {after}, {'zero-padded' if before < after else 'truncated'}"


def _legend(gates: Sequence[Gate]) -> tuple[tuple[str, str], ...]:
    """Return what a picture of these gates has to explain, as pairs of a kind (or nothing) and a line."""
    drawn = {gate.kind: gate.matrix.look.legend for gate in gates}
    order = dict.fromkeys((*KINDS, *drawn))
    lines = tuple((name, line) for name in order if (line := drawn.get(name)) is not None)
    kept = {key.legend: None for gate in gates for key in gate.matrix.given_options() if key.legend is not None}
    return (*lines, *(("", line) for line in kept))
