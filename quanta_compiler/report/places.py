"""Where rows and slots of a circuit diagram lie on the page, in pixels."""

from __future__ import annotations

from dataclasses import dataclass

from quanta_compiler.kinds.looks import Outline
from quanta_compiler.report.diagram import Box, Diagram

PITCH = 48  # between rows
HALF = 18  # of the height of a box on one row
DOT = 4.5  # the radius of a dot
PAD = 8  # between the text of a box and its sides
GAP = 22  # between slots at least
MARGIN = 24
TOP = 110  # of the first row
NAME_SIZE, NOTE_SIZE, LABEL_SIZE, TITLE_SIZE = 13, 10, 11, 16
LEADING, SYMBOL = 17, 24  # of the legend: from line to line, and the room of what its text explains
TURN = 72  # the width in which wires change places before a permuted output


def text_width(text: str, size: float) -> float:
    """Return at most how wide a text gets, by the widest of the fonts in use."""
    wide, narrow = (
        sum(character in "mwMW@%" for character in text),
        sum(character in "ijl.,:;|'= " for character in text),
    )
    capital = sum(character.isupper() and character not in "MW" for character in text)
    return size * (0.98 * wide + 0.4 * narrow + 0.72 * capital + 0.63 * (len(text) - wide - narrow - capital))


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows and slots lie, in pixels."""

    start: float
    """Where the wires begin."""
    centres: tuple[float, ...]
    widths: tuple[float, ...]
    after: tuple[float, ...]
    """Where the next slot begins."""
    turn: float
    """Where the wires of the output begin to change places."""
    end: float
    width: float
    legend: tuple[float, ...]
    """The baselines of the legend."""
    height: float

    @classmethod
    def measure(cls, diagram: Diagram) -> Places:
        """Give every slot the width of its widest box, and the gap after it that of its widest label."""
        slots = range(len(diagram.slots))
        widths = [max(_box_width(box) for box in diagram.boxes if box.slot == slot) for slot in slots]
        labels = [
            max(
                (
                    text_width(part.label, LABEL_SIZE)
                    for wire in diagram.wires
                    for part in diagram.labels(wire)
                    if part.slot == slot
                ),
                default=0,
            )
            for slot in (-1, *slots)
        ]
        gaps = [max(GAP, label + 20) for label in labels]
        gaps[0] += 2
        last = max((text_width(wire.label_at(wire.end), LABEL_SIZE) for wire in diagram.wires), default=0) + 14
        permuted = TURN if diagram.is_permuted else 0
        ends = text_width(diagram.input_note, LABEL_SIZE) + text_width(diagram.output_note, LABEL_SIZE) + 110
        titles = max(text_width(diagram.name, TITLE_SIZE), text_width(diagram.summary, LABEL_SIZE)) * 0.95
        legend = max((SYMBOL + text_width(line, LABEL_SIZE) for _, line in diagram.legend), default=0)
        drawn = sum(widths) + sum(gaps) + permuted + last
        spare = max(0.0, max(ends, titles, legend) - drawn) / (len(widths) + 1)
        start = MARGIN + 4.0
        position = start
        centres: list[float] = []
        after: list[float] = []
        for gap, width in zip(gaps, [*widths, 0.0], strict=True):
            position += gap + spare
            after.append(round(position, 1))
            centres.append(round(position + width / 2, 1))
            position += width
        end = round(position + permuted + last, 1)
        foot = row_y(max(0, diagram.rows - 1)) + HALF + 4
        baselines = tuple(foot + 12.0 + LEADING * (line + 1) for line in range(len(diagram.legend)))
        return cls(
            start,
            tuple(centres[:-1]),
            tuple(widths),
            tuple(after[1:]),
            round(position, 1),
            end,
            end + start,
            baselines,
            max([foot, *baselines]) + MARGIN,
        )

    def x(self, slot: int) -> float:
        """Return the middle of a slot; -1 is the input, one past the last the output."""
        if slot < 0:
            return self.start
        return self.centres[slot] if slot < len(self.centres) else self.end

    def label_x(self, slot: int) -> float:
        """Return where the label of a stretch that begins at a slot begins."""
        return self.start + 9 if slot < 0 else self.centres[slot] + self.widths[slot] / 2 + 6


def row_y(row: float) -> float:
    """Return the height of the wire of a row."""
    return TOP + PITCH * row


def _box_width(box: Box) -> float:
    if not box.segments:
        return 2 * DOT
    texts = [text_width(line, size) for line, size in box_lines(box)]
    slanted = 8 if box.look.outline in (Outline.WAIST, Outline.TAPERED) else 0
    return round(max(36.0, max(texts) + 2 * PAD + slanted), 1)


def box_lines(box: Box) -> list[tuple[str, int]]:
    """Return the lines of text in a box, which covers a segment, with their sizes: on one row there is room for two."""
    top, bottom = box.label_segment
    notes = box.notes if bottom > top else (" ".join(box.notes),)
    return [(box.name, NAME_SIZE), *((note, NOTE_SIZE) for note in notes if note)]
