"""The circuit diagram as text for a terminal: three lines to a row, in as many bands as its width asks for."""

import textwrap
from collections.abc import Sequence
from itertools import pairwise

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.kinds.looks import Outline
from quanta_compiler.report.diagram import Box, Diagram, Wire, draw

_ASCII = str.maketrans("─│┌┐└┘├┤┬┴╭╮╰╯┄┆╔╗╚╝═║╢╟╧╤●»", "-|++++++++..''~:####=#####*>")
_ASCII_WORDS = {"×": "x", "→": "->", "·": "|", "ᵀ": "^T", "…": "...", "\N{REPLACEMENT CHARACTER}": "?"}

_GAP = 2  # between slots at least


def render_text(circuit: Circuit, *, width: int = 100, ascii_only: bool = False) -> str:
    """Return the diagram of a circuit as lines of at most `width` characters, if the widest gate and the labels allow.

    There it goes on in another band below. `ascii_only` is for terminals that lack box-drawing characters.
    """
    diagram = draw(circuit)
    painter = _Painter(diagram, ascii_only)
    bands = [painter.band(slots) for slots in painter.cut(width)]
    head = [diagram.name, diagram.summary, f"{diagram.input_note}; {diagram.output_note}"]
    foot = []
    dotted = {box.kind for box in diagram.boxes if box.look.outline is Outline.DOTS}
    if diagram.shared_columns():
        foot.append("╰──╯ one column: these gates can act at once")
    if any(box.dots and box.segments for box in diagram.boxes):
        foot.append("●─ a matrix for each index of this axis")
    foot += [f"●─● {line}" if kind in dotted else line for kind, line in diagram.legend]
    if diagram.is_permuted:
        foot.append("output order: " + ", ".join(painter.end_label(diagram.wires[wire]) for wire in diagram.output))
    around = [
        [line for text in texts for line in textwrap.wrap(painter.plain(text), max(width, 20), break_on_hyphens=False)]
        for texts in (head, foot)
    ]
    blocks = [around[0], *bands, *([around[1]] if foot else [])]
    text = "\n\n".join("\n".join(block) for block in blocks) + "\n"
    return text.translate(_ASCII) if ascii_only else text


class _Painter:
    """Draws bands of a diagram, each on a grid of characters of its own."""

    def __init__(self, diagram: Diagram, ascii_only: bool) -> None:
        self.diagram = diagram
        self.ascii_only = ascii_only
        slots = range(len(diagram.slots))
        self.texts = {box: self._texts(box) for box in diagram.boxes}
        self.widths = [
            max(max(map(len, self.texts[box]), default=-3) + 4 for box in diagram.boxes if box.slot == slot)
            for slot in slots
        ]
        labels = [(part.slot, self.plain(part.label)) for wire in diagram.wires for part in diagram.labels(wire)]
        self.gaps = [max([_GAP, *(len(label) + 2 for own, label in labels if own == slot)]) for slot in slots]
        self.right = max([1, *(len(self.end_label(diagram.wires[wire])) for wire in diagram.output)]) + 1

    def plain(self, text: str) -> str:
        """Return a text as it will be drawn, so that its length is known beforehand."""
        if not self.ascii_only:
            return text
        for character, word in _ASCII_WORDS.items():
            text = text.replace(character, word)
        return text if text.translate(_ASCII).isascii() else text.encode("ascii", "backslashreplace").decode()

    def end_label(self, wire: Wire) -> str:
        return self.plain(wire.label_at(wire.end))

    def left_label(self, wire: Wire, slot: int) -> str:
        """Return the label of a wire before a slot, nothing where the wire is not there."""
        return self.plain(wire.label_at(slot)) if wire.begin < slot <= wire.end else ""

    def _texts(self, box: Box) -> list[str]:
        """Return the lines of text of a box: one where it covers one row, else one a note; a `cz` has none."""
        if not box.segments:
            return []
        top, bottom = box.label_segment
        texts = [self.plain(text) for text in (box.name, *box.notes)]
        return texts if bottom > top else [" ".join(texts)]

    def left(self, slot: int) -> int:
        """Return the width of the labels of a band that begins with a slot."""
        return max(len(self.left_label(wire, slot)) for wire in self.diagram.wires) + 1

    def cut(self, width: int) -> list[range]:
        """Return the slots of each band: as many as fit, whole columns where one fits by itself, one slot at least."""
        column = self.diagram.slots
        bands: list[range] = []
        start = 0
        while start < len(self.widths):
            end = start + 1
            used = self.left(start) + _GAP + self.widths[start] + self.gaps[start] + self.right
            while end < len(self.widths) and used + self.widths[end] + self.gaps[end] <= width:
                used += self.widths[end] + self.gaps[end]
                end += 1
            if end < len(column) and column[end - 1] == column[end] != column[start]:
                end = column.index(column[end])
            bands.append(range(start, end))
            start = end
        return bands or [range(0)]

    def band(self, slots: range) -> list[str]:
        left = self.left(slots.start)
        starts: dict[int, int] = {}
        end = left + _GAP
        for slot in slots:
            starts[slot] = end
            end += self.widths[slot] + self.gaps[slot]
        grid = [[" "] * (end + self.right) for _ in range(3 * self.diagram.rows)]
        for wire in self.diagram.wires:
            self._wire(grid, wire, slots, starts, (left, end))
        for box in self.diagram.boxes:
            if box.slot in starts:
                self._box(grid, box, starts[box.slot])
        return _squeeze(["".join(line).rstrip() for line in grid]) + self._brackets(slots, starts)

    def _brackets(self, slots: range, starts: dict[int, int]) -> list[str]:
        """Return a line that ties together the slots of one column, if a column of the band has several.

        Where the column goes on in another band, the line is open on that side.
        """
        line = ""
        for column in self.diagram.shared_columns():
            inside = [slot for slot in column if slot in slots]
            if inside:
                start, end = starts[inside[0]], starts[inside[-1]] + self.widths[inside[-1]]
                left = "╰" if inside[0] == column[0] else "─"
                right = "╯" if inside[-1] == column[-1] else "─"
                line = line.ljust(start) + left + "─" * (end - start - 2) + right
        return [line] if line else []

    def _wire(
        self, grid: list[list[str]], wire: Wire, slots: range, starts: dict[int, int], sides: tuple[int, int]
    ) -> None:
        line = 3 * wire.row + 1
        first, last = sides
        if wire.begin < slots.start:
            if wire.end < slots.start:
                return
            _put(grid, line, 0, self.left_label(wire, slots.start))
        elif wire.begin in starts:
            first = starts[wire.begin]
        else:
            return
        if wire.end in starts:
            last = starts[wire.end]
        elif slots.stop < len(self.widths):
            _put(grid, line, last, "»")
        else:
            _put(grid, line, last + 1, self.end_label(wire))
        _put(grid, line, first, "─" * (last - first))
        for part in self.diagram.labels(wire):
            if part.slot in starts:
                _put(grid, line - 1, starts[part.slot] + self.widths[part.slot] + 1, self.plain(part.label))

    def _box(self, grid: list[list[str]], box: Box, start: int) -> None:
        width = self.widths[box.slot]
        centre = start + (width - 1) // 2
        top, bottom = box.span
        for line in range(3 * top + 1, 3 * bottom + 2):
            if line % 3 != 1 or line // 3 not in box.crossed:
                grid[line][centre] = "│"
        for row in box.dots:
            grid[3 * row + 1][centre] = "●"
        for segment in box.segments:
            self._frame(grid, box, segment, (start, centre, start + width - 1))
        if not box.segments:
            return
        top, bottom = box.label_segment
        texts = self.texts[box]
        line = 3 * top + 1 + (3 * (bottom - top) + 1 - len(texts)) // 2
        for offset, text in enumerate(texts):
            _put(grid, line + offset, start + (width - len(text)) // 2, text)

    def _frame(self, grid: list[list[str]], box: Box, segment: tuple[int, int], places: tuple[int, int, int]) -> None:
        corner, edge, corner_right, side, foot, foot_right, enter, leave, up, down = list(box.look.frame)
        start, centre, end = places
        top, bottom = 3 * segment[0], 3 * segment[1] + 2
        _put(grid, top, start, corner + edge * (end - start - 1) + corner_right)
        _put(grid, bottom, start, foot + edge * (end - start - 1) + foot_right)
        for line in range(top + 1, bottom):
            _put(grid, line, start, side + " " * (end - start - 1) + side)
        for wire in self.diagram.wires:
            if not segment[0] <= wire.row <= segment[1]:
                continue
            if wire.begin < box.slot <= wire.end:
                grid[3 * wire.row + 1][start] = enter
            if wire.begin <= box.slot < wire.end:
                grid[3 * wire.row + 1][end] = leave
        if box.span[0] < segment[0]:
            grid[top][centre] = up
        if box.span[1] > segment[1]:
            grid[bottom][centre] = down


def _put(grid: list[list[str]], line: int, column: int, text: str) -> None:
    grid[line][column : column + len(text)] = text


def _squeeze(lines: Sequence[str]) -> list[str]:
    """Drop blank lines at the ends, and one of two equal lines between wires."""
    kept = [line for line, after in pairwise([*lines, "end"]) if line != after or any(map(str.isalnum, line))]
    while kept and not kept[0]:
        kept.pop(0)
    while kept and not kept[-1]:
        kept.pop()
    return kept
