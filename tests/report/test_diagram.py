from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_circuits import NAMED, circuit_of, named_circuit, pair
from hostile_names import hostile_kind
from random_circuits import random_file

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit, Leg
from quanta_compiler.report.diagram import Box, Diagram, draw
from quanta_compiler.report.svg import render_svg
from quanta_compiler.report.text_diagram import render_text
from quanta_compiler.spec import load_spec

SEEDS = range(30)
SVG = "{http://www.w3.org/2000/svg}"


def some_circuit(seed: int) -> Circuit:
    return build_circuit(load_spec(random_file(seed)))


@pytest.mark.parametrize("name", NAMED)
def test_pictures_of_named_circuits(name: str, golden: Callable[[str, str], None]) -> None:
    circuit = named_circuit(name)
    golden(f"diagrams/{name}.svg", render_svg(circuit))
    golden(f"diagrams/{name}.txt", render_text(circuit, width=80) + "\n" + render_text(circuit, ascii_only=True))


def box(diagram: Diagram, name: str) -> Box:
    return next(box for box in diagram.boxes if box.name == name)


def test_gates_whose_spans_cross_stand_side_by_side_in_one_column() -> None:
    diagram = draw(circuit_of([2, 2, 2, 2], [[0, 2], [1, 3], [0, 1]]))
    assert diagram.slots == (0, 0, 1)
    assert [(box.name, box.slot, box.segments, box.crossed) for box in diagram.boxes] == [
        ("g0", 0, ((0, 0), (2, 2)), (1,)),
        ("g1", 1, ((1, 1), (3, 3)), (2,)),
        ("g2", 2, ((0, 1),), ()),
    ]


def test_gates_one_below_the_other_share_a_slot() -> None:
    assert draw(named_circuit("brick-8")).slots == (0, 1)


def test_per_axes_are_dots() -> None:
    diagram = draw(circuit_of([2, 2, 2], [pair(0, 2, per=[1])]))
    assert (diagram.boxes[0].segments, diagram.boxes[0].dots, diagram.boxes[0].crossed) == (((0, 0), (2, 2)), (1,), ())


def rows_of(circuit: Circuit) -> list[tuple[str, int, int, int]]:
    return [(wire.axis, wire.row, wire.begin, wire.end) for wire in draw(circuit).wires]


def test_an_axis_in_place_of_another_takes_its_row() -> None:
    assert rows_of(named_circuit("lora")) == [("x", 0, -1, 0), ("r", 0, 0, 1), ("y", 0, 1, 2)]


def test_bonds_of_a_tensor_train_run_between_the_axes_that_they_join() -> None:
    rows = {axis: row for axis, row, _, _ in rows_of(named_circuit("tensor-train"))}
    assert sorted(rows, key=rows.__getitem__) == ["a", "r1", "b", "r2", "c", "r3", "d"]


def test_bonds_go_up_where_the_train_goes_up() -> None:
    gates = [pair("c", to={"r": 2, "c": 2}), pair("b", "r", to={"s": 2, "b": 2}), pair("a", "s", to={"a": 2})]
    rows = {axis: row for axis, row, _, _ in rows_of(circuit_of({"a": 2, "b": 2, "c": 2}, gates))}
    assert sorted(rows, key=rows.__getitem__) == ["a", "s", "b", "r", "c"]


def test_an_axis_made_to_stay_goes_to_the_bottom() -> None:
    circuit = circuit_of({"a": 4, "b": 4}, [pair("a", to={"a": 2, "c": 2})])
    assert rows_of(circuit) == [("a", 0, -1, 1), ("b", 1, -1, 1), ("c", 2, 0, 1)]
    assert not draw(circuit).is_permuted


def test_a_row_is_used_again_when_its_axis_is_gone() -> None:
    step = [pair("a", to={"a": 4, "r": 2}), pair("b", "r", to={"b": 4}), ["a", "b"]]
    circuit = circuit_of({"a": 4, "b": 4}, step * 3)
    assert draw(circuit).rows == 3
    assert [row for axis, row, _, _ in rows_of(circuit) if axis == "r"] == [1, 1, 1]


def test_sizes_are_labelled_where_they_change_and_at_both_ends() -> None:
    diagram = draw(circuit_of({"a": 4, "b": 4}, [pair("a", to={"a": 2}), ["a", "b"], pair("a", to={"a": 5})]))
    wire = diagram.wires[0]
    assert [(part.slot, part.label) for part in diagram.labels(wire)] == [(-1, "a: 4"), (0, "a: 2")]
    assert wire.label_at(wire.end) == "a: 5"


def test_what_the_boxes_say() -> None:
    diagram = draw(named_circuit("kinds"))
    assert {box.name: box.notes for box in diagram.boxes if box.notes} == {
        "low": ("r=8",),
        "g2": ("diag",),
        "phase": ("diag", "frozen"),
        "g4": ("slice",),
        "g5": ("const",),
        "g7": ("= mixedᵀ",),
        "g8": ("frozen",),
        "g9": ("slice",),
        "g10": ("r=2",),
        "g11": ("slice",),
    }
    assert box(diagram, "g8").tooltip == (
        "g8: dense gate on b: 4, d: 2\none matrix per index of c: 4\nmatrix 4×8×8, 256 frozen parameters"
    )
    assert box(diagram, "g7").tooltip.endswith("matrix 16×16, shared with mixed (transposed)")
    assert box(diagram, "g11").tooltip.startswith("g11: slice gate on a: 8, d: 2\nbecomes e: 4, f: 4\n")


def test_what_the_boxes_of_rotations_say() -> None:
    diagram = draw(named_circuit("rotations"))
    assert {box.name: box.notes for box in diagram.boxes if box.notes} == {
        "g0": ("RY",),
        "g2": ("O exp",),
        "g3": ("O cayley", "K'=4", "frozen"),
        "w": ("pauli L=2", "K'=3"),
        "g5": ("pauli L=2", "K'=3", "= wᵀ"),
        "g6": ("pauli L=1",),
        "g9": ("RY",),
    }
    assert box(diagram, "g3").tooltip == (
        "g3: orthogonal gate by cayley, K' 4 on b: 8, c: 4\n"
        "one matrix per index of a: 2\nmatrix 2×32×32, 236 frozen parameters"
    )
    assert box(diagram, "w").tooltip.startswith("w: pauli gate of 2 layers, K' 3 on b: 8, c: 4\nmatrix 32×32, ")
    assert box(diagram, "g6").tooltip.startswith("g6: pauli gate of 1 layer on d: 12\nbecomes d: 6\n")


def test_a_cz_is_two_dots_and_the_line_between() -> None:
    drawn = box(draw(named_circuit("rotations")), "g1")
    assert (drawn.segments, drawn.dots, drawn.crossed, drawn.span) == ((), (0, 2), (1,), (0, 2))


def test_what_rotations_do_is_told_below_the_picture_and_nothing_where_there_are_none() -> None:
    assert [kind for kind, _ in draw(named_circuit("two-design")).legend] == ["ry", "cz"]
    assert [kind for kind, _ in draw(named_circuit("quantum-peft")).legend] == ["pauli"]
    kept = circuit_of([8], [pair(0, kind="orthogonal", rank_parameters=2)])
    assert [kind for kind, _ in draw(kept).legend] == ["orthogonal", ""]
    assert draw(named_circuit("kinds")).legend == ()


def test_one_parameter_is_said_in_the_singular() -> None:
    assert box(draw(named_circuit("rotations")), "g0").tooltip.endswith("matrix 2×2, 1 parameter")


def test_a_column_is_cut_only_where_it_is_wider_than_a_line_and_is_then_shown_to_go_on() -> None:
    circuit = circuit_of([2] * 4, [[0, 1], [0, 2], [1, 3]])
    brackets = {
        width: re.findall(r"(?m)^ *([╰─][╰─╯]*[╯─])$", render_text(circuit, width=width)) for width in range(15, 40)
    }
    # Two slots of six characters with a gap of two; beside them the labels of both sides.
    assert {width for width, found in brackets.items() if found == ["╰────────────╯"]} == set(range(28, 40))
    assert {width for width, found in brackets.items() if found == ["╰─────", "─────╯"]} == set(range(15, 28))


def test_padding_and_truncation_are_noted() -> None:
    diagram = draw(named_circuit("padded"))
    assert diagram.input_note == "input 5000 → 5120, zero-padded"
    assert diagram.output_note == "output 5120 → 1024, truncated"


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_in_a_slot_overlaps_and_every_gate_is_drawn_once(seed: int) -> None:
    circuit = some_circuit(seed)
    diagram = draw(circuit)
    assert sorted(box.name for box in diagram.boxes) == sorted(gate.name for gate in circuit.gates)
    taken = [(box.slot, row) for box in diagram.boxes for row in range(box.span[0], box.span[1] + 1)]
    assert len(set(taken)) == len(taken)
    for box in diagram.boxes:
        covered = [row for first, last in box.segments for row in range(first, last + 1)]
        assert len({*covered, *box.dots, *box.crossed}) == len(covered) + len(box.dots) + len(box.crossed)
    for wire in diagram.wires:
        others = [other for other in diagram.wires if other.row == wire.row and other is not wire]
        assert all(other.end <= wire.begin or wire.end <= other.begin for other in others)
        for box in diagram.boxes:
            if wire.crosses(box.slot) and box.span[0] <= wire.row <= box.span[1]:
                inside = any(first <= wire.row <= last for first, last in box.segments)
                assert inside or wire.row in box.dots or wire.row in box.crossed


@pytest.mark.parametrize("seed", SEEDS)
def test_a_box_covers_just_the_axes_of_its_gate(seed: int) -> None:
    circuit = some_circuit(seed)
    diagram = draw(circuit)
    for gate in circuit.gates:
        drawn = box(diagram, gate.name)
        alive = [wire for wire in diagram.wires if wire.begin <= drawn.slot <= wire.end]
        covered = {wire.axis for wire in alive if any(a <= wire.row <= b for a, b in drawn.segments)}
        boxed, dots = ((), gate.columns) if gate.kind == "cz" else ((*gate.columns, *gate.rows), gate.per)
        assert covered == {circuit.legs[leg].axis for leg in boxed}
        dotted = {wire.axis for wire in alive if wire.row in drawn.dots and wire.crosses(drawn.slot)}
        assert dotted == {circuit.legs[leg].axis for leg in dots}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_picture_does_not_depend_on_the_order_of_commuting_gates(seed: int) -> None:
    circuit = some_circuit(seed)
    column = {box.name: draw(circuit).slots[box.slot] for box in draw(circuit).boxes}
    shuffled = list(circuit.gates)
    random.Random(seed).shuffle(shuffled)
    other = replace(circuit, gates=tuple(sorted(shuffled, key=lambda gate: column[gate.name])))
    assert render_svg(other) == render_svg(circuit)
    assert render_text(other) == render_text(circuit)


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]


@pytest.mark.parametrize("seed", SEEDS)
def test_svg_is_xml_and_everything_lies_on_the_page(seed: int) -> None:
    circuit = some_circuit(seed)
    root = ET.fromstring(render_svg(circuit))
    left, top, width, height = numbers(root.attrib["viewBox"])
    assert (left, top) == (0, 0)
    titles = [title.text or "" for group in root.iter(f"{SVG}g") for title in group.findall(f"{SVG}title")]
    assert sorted(title.split(":")[0] for title in titles) == sorted(gate.name for gate in circuit.gates)
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= width
        assert 0 <= float(text.attrib["y"]) <= height
    for rectangle in root.iter(f"{SVG}rect"):
        assert float(rectangle.get("x", 0)) + float(rectangle.attrib["width"]) <= width
        assert float(rectangle.get("y", 0)) + float(rectangle.attrib["height"]) <= height


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_text_fits_the_width_and_names_every_gate_with_a_box_once(seed: int, ascii_only: bool) -> None:
    circuit = some_circuit(seed)
    text = render_text(circuit, width=60, ascii_only=ascii_only)
    assert all(len(line) <= 60 and line == line.rstrip() for line in text.splitlines())
    assert text.isascii() == ascii_only
    found = re.findall(r"\b(?:g|own_)\d+\b", text)
    assert set(found) == {gate.name for gate in circuit.gates if gate.kind != "cz"}
    # One that shares a parameter names its owner beside itself.
    owners = {gate.parameter for gate in circuit.gates if gate.parameter != gate.name}
    assert all(found.count(name) == 1 for name in set(found) - owners)


def test_two_hundred_gates_on_twelve_axes() -> None:
    draw_from = random.Random(0)
    circuit = circuit_of([2] * 12, [sorted(draw_from.sample(range(12), 2)) for _ in range(200)])
    assert len(re.findall(r"<title>g\d+:", render_svg(circuit))) == 200
    assert all(len(line) <= 100 for line in render_text(circuit).splitlines())


def test_names_from_strangers_stay_text() -> None:
    hostile = '</text><script>alert("&")</script>\x00\n'
    circuit = circuit_of({"a": 2, "b": 2}, [["a", "b"], ["a"]])
    legs = tuple(Leg(hostile, leg.size) for leg in circuit.legs)
    first = replace(circuit.gates[0], name=hostile, parameter=hostile, matrix=hostile_kind(hostile))
    circuit = replace(circuit, name=hostile, legs=legs, gates=(first, *circuit.gates[1:]))
    root = ET.fromstring(render_svg(circuit))
    assert not list(root.iter(f"{SVG}script"))
    for ascii_only in (False, True):
        assert all(line.isprintable() for line in render_text(circuit, ascii_only=ascii_only).splitlines())
    assert render_text(circuit, ascii_only=True).isascii()


def test_pictures_need_neither_networkx_nor_torch_and_are_the_same_under_any_hash_seed() -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from drawn_circuits import NAMED, named_circuit\n"
        "from quanta_compiler.report.svg import render_svg\n"
        "from quanta_compiler.report.text_diagram import render_text\n"
        "for name in NAMED: print(render_svg(named_circuit(name)), render_text(named_circuit(name)))\n"
        "assert not {'networkx', 'torch', 'numpy'} & set(sys.modules)\n"
    )
    here = Path(__file__).resolve()
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, str(here.parents[1]), str(here.parents[2])],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    ]
    assert outputs[0] == outputs[1]
