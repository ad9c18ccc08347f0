"""The circuit diagram as SVG: one self-contained file that reads well on light and dark paper."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.kinds import DEFAULT, KINDS
from quanta_compiler.kinds.looks import HATCHED, PLAIN, Outline
from quanta_compiler.report.diagram import Box, Diagram, draw
from quanta_compiler.report.palette import DARK, FONTS, LIGHT, ON_DARK

PITCH = 48  # between rows
HALF = 18  # of the height of a box on one row
DOT = 4.5  # the radius of a dot
PAD = 8  # between the text of a box and its sides
GAP = 22  # between slots at least
MARGIN = 24
START = 28.0  # of the wires
TOP = 110  # of the first row
NAME_SIZE, NOTE_SIZE, LABEL_SIZE, TITLE_SIZE = 13, 10, 11, 16
LEADING, SYMBOL = 17, 24  # of the legend: from line to line, and the room of what its text explains
TURN = 72  # the width in which wires change places before a permuted output

# Light colours stand in attributes, which every renderer understands; the style sheet only holds the dark ones.
INK, MUTED, WIRE = LIGHT["ink"], LIGHT["muted"], LIGHT["wire"]
_ROUNDING = {Outline.SOFT: 11, Outline.PILL: HALF}
"""How round the corners of a box are; 4 of one that is not listed."""


def render_svg(circuit: Circuit) -> str:
    """Return the diagram of a circuit as an SVG document; the same circuit gives the same text."""
    diagram = draw(circuit)
    places = _measure(diagram)
    parts = [
        *_head(diagram, places),
        *_bands(diagram, places),
        *_wires(diagram, places),
        *_boxes(diagram, places),
        *_ends(diagram, places),
        *_legend(diagram, places),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text_width(text: str, size: float = LABEL_SIZE) -> float:
    """Return at most how wide a text gets, by the widest of the fonts in use."""
    wide = sum(character in "mwMW@%" for character in text)
    narrow = sum(character in "ijl.,:;|'= " for character in text)
    capital = sum(character.isupper() and character not in "MW" for character in text)
    return size * (0.98 * wide + 0.4 * narrow + 0.72 * capital + 0.63 * (len(text) - wide - narrow - capital))


@dataclass(frozen=True, slots=True)
class _Places:
    """Where rows and slots lie, in pixels."""

    centres: tuple[float, ...]
    widths: tuple[float, ...]
    turn: float
    """Where the wires of the output begin to change places."""
    end: float
    legend: tuple[float, ...]
    """The baselines of the legend."""
    height: float

    def x(self, slot: int) -> float:
        """Return the middle of a slot; -1 is the input, one past the last the output."""
        return START if slot < 0 else (*self.centres, self.end)[slot]

    def label_x(self, slot: int) -> float:
        """Return where the label of a stretch that begins at a slot begins."""
        return START + 9 if slot < 0 else self.centres[slot] + self.widths[slot] / 2 + 6


def _measure(diagram: Diagram) -> _Places:
    """Give every slot the width of its widest box, and the gap after it that of its widest label."""
    slots = range(len(diagram.slots))
    widths = [max(_box_width(box) for box in diagram.boxes if box.slot == slot) for slot in slots]
    labels = [(part.slot, _text_width(part.label)) for wire in diagram.wires for part in diagram.labels(wire)]
    gaps = [max([GAP, *(width + 20 for own, width in labels if own == slot)]) for slot in (-1, *slots)]
    gaps[0] += 2
    last = max((_text_width(wire.label_at(wire.end)) for wire in diagram.wires), default=0) + 14
    permuted = TURN if diagram.is_permuted else 0
    ends = _text_width(diagram.input_note) + _text_width(diagram.output_note) + 110
    titles = max(_text_width(diagram.name, TITLE_SIZE), _text_width(diagram.summary)) * 0.95
    legend = max((SYMBOL + _text_width(line) for _, line in diagram.legend), default=0)
    drawn = sum(widths) + sum(gaps) + permuted + last
    spare = max(0.0, max(ends, titles, legend) - drawn) / (len(widths) + 1)
    position = START
    centres: list[float] = []
    for gap, width in zip(gaps, widths, strict=False):
        position += gap + spare
        centres.append(round(position + width / 2, 1))
        position += width
    position += gaps[-1] + spare
    foot = _row_y(max(0, diagram.rows - 1)) + HALF + 4
    baselines = tuple(foot + 12.0 + LEADING * (line + 1) for line in range(len(diagram.legend)))
    return _Places(
        centres=tuple(centres),
        widths=tuple(widths),
        turn=round(position, 1),
        end=round(position + permuted + last, 1),
        legend=baselines,
        height=max([foot, *baselines]) + MARGIN,
    )


def _row_y(row: int) -> int:
    return TOP + PITCH * row


def _box_width(box: Box) -> float:
    if not box.segments:
        return 2 * DOT
    texts = [_text_width(line, size) for line, size in _box_lines(box)]
    slanted = 8 if box.look.outline in (Outline.WAIST, Outline.TAPERED) else 0
    return round(max(36.0, max(texts) + 2 * PAD + slanted), 1)


def _box_lines(box: Box) -> list[tuple[str, int]]:
    """Return the lines of text in a box, which covers a segment, with their sizes: on one row there is room for two."""
    top, bottom = box.label_segment
    notes = box.notes if bottom > top else (" ".join(box.notes),)
    return [(box.name, NAME_SIZE), *((note, NOTE_SIZE) for note in notes if note)]


def _n(value: float) -> str:
    return f"{round(value, 1):g}"


def _text(x: float, y: float, text: str, style: tuple[float, str], extra: str = "") -> str:
    size, colour = style
    name = {INK: "ink", MUTED: "muted"}[colour]
    return (
        f'<text class="{name}" x="{_n(x)}" y="{_n(y)}" font-size="{size}" fill="{colour}"{extra}>{escape(text)}</text>'
    )


_LABEL = LABEL_SIZE, MUTED
_END, _MIDDLE, _BOLD = ' text-anchor="end"', ' text-anchor="middle"', ' font-weight="600"'


def _head(diagram: Diagram, places: _Places) -> Iterator[str]:
    width, height = _n(places.end + START), _n(places.height)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="quanta-circuit" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{FONTS}">'
    )
    yield f"<title>{escape(diagram.name)}</title>"
    yield f"<desc>{escape(_description(diagram))}</desc>"
    yield f"<style>{ON_DARK} {{\n{_dark_style(diagram)}\n}}</style>"
    yield (
        '<defs><pattern id="quanta-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path class="hatch" d="M0 0V6" '
        f'stroke="{HATCHED.stroke}" stroke-opacity="0.35"/></pattern></defs>'
    )
    yield f'<rect class="paper" width="{width}" height="{height}" fill="{LIGHT["paper"]}"/>'
    yield _text(MARGIN, 34, diagram.name, (TITLE_SIZE, INK), _BOLD)
    yield _text(MARGIN, 52, diagram.summary, _LABEL)


def _dark_style(diagram: Diagram) -> str:
    drawn = {_class(box): box.look for box in diagram.boxes}
    looks = {kind: drawn[kind] for kind in (*KINDS, *drawn) if kind in drawn}
    rules = {
        ".paper": f"fill: {DARK['paper']}",
        ".band": f"fill: {DARK['band']}",
        ".wire": f"stroke: {DARK['wire']}",
        ".end": f"fill: {DARK['wire']}",
        ".hatch": f"stroke: {HATCHED.dark_stroke}",
        **{f".{kind}": f"fill: {look.dark_fill}; stroke: {look.dark_stroke}" for kind, look in looks.items()},
        **{f".{kind} circle": f"fill: {look.dark_stroke}" for kind, look in looks.items()},
        ".ink": f"fill: {DARK['ink']}",
        ".muted": f"fill: {DARK['muted']}",
    }
    return "\n".join(f".quanta-circuit {selector} {{ {rule} }}" for selector, rule in rules.items())


def _description(diagram: Diagram) -> str:
    """Return the circuit in words, for those who do not see it; long circuits are cut short."""
    shown = 20
    gates = [box.tooltip.replace("\n", ", ") for box in diagram.boxes[:shown]]
    more = [f"and {len(diagram.boxes) - shown} more"] if len(diagram.boxes) > shown else []
    return f"Tensor circuit, {diagram.summary}, from left to right. " + "; ".join([*gates, *more]) + "."


def _bands(diagram: Diagram, places: _Places) -> Iterator[str]:
    """Shade the columns that needed several slots: what stands in one shade can act at once."""
    for slots in diagram.shared_columns():
        left = places.centres[slots[0]] - places.widths[slots[0]] / 2 - 8
        right = places.centres[slots[-1]] + places.widths[slots[-1]] / 2 + 8
        top, bottom = _row_y(0) - HALF - 8, _row_y(diagram.rows - 1) + HALF + 8
        yield (
            f'<rect class="band" x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" height="{_n(bottom - top)}" '
            f'rx="8" fill="{LIGHT["band"]}"/>'
        )


def _wires(diagram: Diagram, places: _Places) -> Iterator[str]:
    yield f'<g class="wire" fill="none" stroke="{WIRE}" stroke-width="1.5">'
    lands = dict(zip(diagram.output, sorted(diagram.output_rows), strict=True))
    for index, wire in enumerate(diagram.wires):
        y = _row_y(wire.row)
        way = f"M{_n(places.x(wire.begin))} {_n(y)}"
        if index in lands and lands[index] != wire.row:
            half, target = places.turn + TURN / 2, _row_y(lands[index])
            way += (
                f"H{_n(places.turn)}C{_n(half)} {_n(y)} {_n(half)} {_n(target)} {_n(places.turn + TURN)} {_n(target)}"
            )
        yield f'<path d="{way}H{_n(places.x(wire.end))}"/>'
    yield "</g>"
    for index, wire in enumerate(diagram.wires):
        for stretch in diagram.labels(wire):
            yield _text(places.label_x(stretch.slot), _row_y(wire.row) - 6, stretch.label, _LABEL)
        if index in lands:
            y = _row_y(lands[index]) - 6
            yield _text(places.end - 9, y, wire.label_at(wire.end), _LABEL, _END)


def _ends(diagram: Diagram, places: _Places) -> Iterator[str]:
    inputs = [wire.row for wire in diagram.wires if wire.begin < 0]
    sides = [
        (START, START - 5, inputs, diagram.input_note, ""),
        (places.end, places.end + 5, diagram.output_rows, diagram.output_note, _END),
    ]
    for x, edge, rows, note, anchor in sides:
        top, bottom = _row_y(min(rows, default=0)) - HALF, _row_y(max(rows, default=0)) + HALF
        yield (
            f'<rect class="end" x="{_n(min(x, edge))}" y="{_n(top)}" width="5" height="{_n(bottom - top)}" rx="2" '
            f'fill="{WIRE}"/>'
        )
        yield _text(edge, TOP - HALF - 12, note, (LABEL_SIZE, INK), anchor)


def _legend(diagram: Diagram, places: _Places) -> Iterator[str]:
    """Say below the picture what its kinds do, each beside a small box of its colours, or beside two joined dots."""
    for (kind, line), y in zip(diagram.legend, places.legend, strict=True):
        if kind:
            look = next(box.look for box in diagram.boxes if box.kind == kind)
            yield f'<g class="{kind}" fill="{look.fill}" stroke="{look.stroke}" stroke-width="1.4">'
            left, right, middle = START, START + SYMBOL - 8, y - 4
            if look.outline is Outline.DOTS:
                yield f'<path d="M{_n(left + 3)} {_n(middle)}H{_n(right - 3)}" fill="none" stroke-width="2"/>'
                for x in (left + 3, right - 3):
                    yield f'<circle cx="{_n(x)}" cy="{_n(middle)}" r="3" fill="{look.stroke}" stroke="none"/>'
            else:
                yield _rectangle((left, middle - 5, right, middle + 5), 3.5, "")
            yield "</g>"
        yield _text(START + SYMBOL, y, line, _LABEL)


def _boxes(diagram: Diagram, places: _Places) -> Iterator[str]:
    for box in diagram.boxes:
        kind, look = _class(box), box.look
        dashes = ' stroke-dasharray="5 3"' if box.frozen else ""
        yield f'<g class="{kind}" fill="{look.fill}" stroke="{look.stroke}" stroke-width="1.4">'
        yield f"<title>{escape(box.tooltip)}</title>"
        x, half = places.centres[box.slot], places.widths[box.slot] / 2
        yield from _link(box, x)
        for row in box.dots:
            yield f'<circle cx="{_n(x)}" cy="{_n(_row_y(row))}" r="{_n(DOT)}" fill="{look.stroke}" stroke="none"/>'
        for top, bottom in box.segments:
            corners = x - half, _row_y(top) - HALF, x + half, _row_y(bottom) + HALF
            yield from _shape(look.outline, box.growth, corners, dashes)
        if box.segments:
            yield from _box_text(box, x)
        yield "</g>"


def _class(box: Box) -> str:
    return DEFAULT.name if box.look == PLAIN else box.kind


def _link(box: Box, x: float) -> Iterator[str]:
    """Join the parts of a gate by a line that stops short of every wire that the gate does not touch."""
    top, bottom = box.span
    if top == bottom:
        return
    stops = [_row_y(top), *(_row_y(row) + side for row in box.crossed for side in (-DOT, DOT)), _row_y(bottom)]
    way = "".join(f"M{_n(x)} {_n(start)}V{_n(end)}" for start, end in zip(stops[::2], stops[1::2], strict=True))
    yield f'<path d="{way}" fill="none" stroke-width="2"/>'


def _shape(outline: Outline, growth: int, corners: tuple[float, float, float, float], extra: str) -> Iterator[str]:
    left, top, right, bottom = corners
    if outline is Outline.WAIST:
        middle = _n((top + bottom) / 2)
        yield (
            f'<path d="M{_n(left)} {_n(top)}H{_n(right)}Q{_n(right - 12)} {middle} {_n(right)} {_n(bottom)}'
            f'H{_n(left)}Q{_n(left + 12)} {middle} {_n(left)} {_n(top)}Z"{extra}/>'
        )
        return
    if outline is Outline.TAPERED:
        before, after = (6 if growth > 0 else 0), (6 if growth < 0 else 0)
        way = (
            f"M{_n(left)} {_n(top + before)}L{_n(right)} {_n(top + after)}V{_n(bottom - after)}"
            f"L{_n(left)} {_n(bottom - before)}Z"
        )
        yield f'<path d="{way}"/><path d="{way}" fill="url(#quanta-hatch)" stroke="none"/>'
        return
    yield _rectangle(corners, _ROUNDING.get(outline, 4), extra)
    if outline is Outline.TWICE:
        yield _rectangle((left + 3, top + 3, right - 3, bottom - 3), 2, ' fill="none" stroke-width="0.8"')


def _rectangle(corners: tuple[float, float, float, float], rounding: float, extra: str) -> str:
    left, top, right, bottom = corners
    size = f'width="{_n(right - left)}" height="{_n(bottom - top)}"'
    return f'<rect x="{_n(left)}" y="{_n(top)}" {size} rx="{_n(rounding)}"{extra}/>'


def _box_text(box: Box, x: float) -> Iterator[str]:
    top, bottom = box.label_segment
    lines = _box_lines(box)
    leading = {NAME_SIZE: 14.0}
    baseline = (_row_y(top) + _row_y(bottom)) / 2 - sum(leading.get(size, 12.0) for _, size in lines) / 2
    for text, size in lines:
        baseline += leading.get(size, 12.0)
        weight = _BOLD if size == NAME_SIZE else ""
        yield _text(x, baseline - 0.22 * size - 0.5, text, (size, INK), f'{_MIDDLE}{weight} stroke="none"')
