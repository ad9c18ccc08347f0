"""Pages of one circuit in headless Chromium: quiet, off the network, and they show what the report says."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from browser import (
    LOW_CONTRASTS,
    Open,
    click,
    count,
    emulate,
    enter,
    forget,
    messages,
    open_file,
    requests,
    texts,
)
from hostile_names import NAMES, hostile
from random_circuits import file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.text.quantities import (
    amount_text,
    bytes_text,
    figure_text,
    percent_text,
    seconds_text,
    times_text,
)


def test_a_report_shows_every_gate_and_every_step(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(mixed.page())
    report = mixed.report
    assert texts(page, "h1") == [report.name]
    assert page.title == f"{report.name}: report"
    assert texts(page, "#cards .big")[0] == f"{report.parameters.trainable:,}"
    assert texts(page, "#gate-table tbody td:first-child") == [gate.name for gate in report.gates]
    assert len(texts(page, "#apply-steps tbody tr")) == len(report.apply.steps)
    assert len(texts(page, "#operator-steps tbody tr")) == len(report.operator.steps)
    assert texts(page, "#operator-steps tbody td:last-child")[-1] == "100%"
    # Both charts have a bar for every gate, and the axis between them names every gate.
    assert count(page, "#gates svg [aria-label=bar] rect") == 16
    assert {gate.name for gate in report.gates} <= {*texts(page, "#gates svg text")}
    assert len(texts(page, "#graph .nodes g")) == len(report.gates) + 2
    assert "name: test" in texts(page, "#yaml pre")[0]
    assert report.apply.einsum in texts(page, "#einsums pre")[0]


def test_quantities_are_written_as_in_the_terminal(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(mixed.page())
    values = (0, 1, 0.0366, 1.2e-7, 12.34, 99.98, 999.4, 999.6, 1023, 98_306, 3_670_016, 72 * 2**20, 1.444e60)
    for write in (figure_text, amount_text, bytes_text, seconds_text, percent_text, times_text):
        name = write.__name__.replace("_text", "Text")
        shown = page.execute_script(f"return arguments[0].map((value) => {name}(value))", values)
        assert shown == [write(value) for value in values]


def test_the_first_figures_are_beside_the_reference(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(mixed.page())
    assert texts(page, "#cards h2") == [
        "Trainable parameters",
        "Rank of the update",
        "Time of a step",
        "Kept for backward",
    ]
    widths = mixed.spec.in_features + mixed.spec.out_features
    ratio = mixed.report.parameters.trainable / (8 * widths)
    assert texts(page, "#cards .says")[0] == f"{ratio:.3g}x LoRA r=8"
    assert page.execute_script("return document.querySelector('.inside').open") is False


def test_a_gate_is_marked_in_the_picture_the_charts_and_the_table(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(mixed.page())
    gate = mixed.report.gates[2]
    box = f"#diagram [data-gate='{gate.name}']"
    assert count(page, "#diagram [data-gate][tabindex='0']") == len(mixed.report.gates)
    # By keyboard, as by pointing.
    page.execute_script("document.querySelector(arguments[0]).focus()", box)
    assert count(page, f"{box}.chosen") == count(page, "#diagram .chosen") == 1
    assert texts(page, "#gate-table tr.chosen td:first-child") == [gate.name]
    assert count(page, "#gates .unchosen") == 2 * (len(mixed.report.gates) - 1)
    assert texts(page, "#gate-says")[0].startswith(f"{gate.name}: {gate.kind} on ")
    page.execute_script("document.activeElement.blur()")
    assert count(page, ".chosen") == count(page, ".unchosen") == 0
    # By touch, on the row.
    page.execute_script("document.querySelector('#gate-details').open = true")
    click(page, "#gate-table tbody tr:nth-child(3)")
    assert count(page, f"{box}.chosen") == 1


OUTSIDE = """
    const room = document.querySelector("#graph");
    const frame = room.querySelector("svg").getBoundingClientRect();
    const cut = [...document.querySelectorAll("#graph text, #graph rect")].filter((one) => {
      const box = one.getBoundingClientRect();
      return box.top < frame.top || box.bottom > frame.bottom || box.left < frame.left || box.right > frame.right;
    });
    return cut.length + (room.scrollWidth > room.clientWidth);
"""
"""How many names of the graph are cut, and whether it is wider than its card."""


@pytest.mark.parametrize(
    "preset",
    [{"preset": "butterfly", "in_features": 256}, {"preset": "loretta", "in_features": 64, "layout": [8, 8]}],
    ids=lambda preset: preset["preset"],
)
def test_the_graph_is_whole(preset: dict[str, Any], opened: Open) -> None:
    page = opened(compile_circuit({"version": 1, "name": "graph", **preset}).page())
    page.execute_script("document.querySelector('.inside').open = true")
    assert page.execute_script(OUTSIDE) == 0


def test_the_walk_through_the_plan_ends_with_everything_merged(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(mixed.page())
    assert "Nothing is contracted yet" in texts(page, "#graph-step")[0]
    for mode, steps, merged in (("apply", mixed.report.apply.steps, 8), ("operator", mixed.report.operator.steps, 7)):
        enter(page, "#graph-controls select", mode)
        for place, step in enumerate(steps, start=1):
            enter(page, "#graph-controls input", str(place))
            assert texts(page, "#graph-step")[0].startswith(f"Step {place} of {len(steps)}: %{place} = {step.op}(")
        # Every gate but the reshape; for the circuit on a batch the input, too.
        assert len(texts(page, "#graph .nodes .done")) == merged


def test_small_steps_are_one_row_that_opens_and_one_halt_of_the_walk(opened: Open) -> None:
    gates: list[Any] = [{"axes": [0], "to": [8], "kind": "pauli"}, {"axes": [0], "to": [768], "kind": "pauli"}]
    compiled = compile_circuit(file_of(768, gates))
    steps = compiled.report.apply.steps
    page = opened(compiled.page())
    seen = "return [...document.querySelectorAll('#apply-steps tbody tr')].filter((row) => row.offsetParent).length"
    closed = page.execute_script(seen)
    folds = count(page, "#apply-steps .folded")
    assert closed < len(steps) / 2
    assert texts(page, "#apply-steps .folded button") == ["Show"] * folds
    for place in range(folds):
        page.execute_script("document.querySelectorAll('#apply-steps .folded button')[arguments[0]].click()", place)
    assert page.execute_script(seen) == len(steps) + folds
    assert texts(page, "#apply-steps .folded button") == ["Hide"] * folds
    assert texts(page, "#graph-step")[0].startswith(f"{closed} steps.")
    enter(page, "#graph-controls input", "1")
    assert re.fullmatch(r"Step 1 of \d+: %1 to %(\d+), \1 small steps, [\d.]+ M FLOPs\.", texts(page, "#graph-step")[0])
    enter(page, "#graph-controls input", str(closed))
    assert f"%{len(steps)} = " in texts(page, "#graph-step")[0]


def test_a_report_of_two_hundred_gates_fits_its_page(opened: Open) -> None:
    gates: list[Any] = [[place % 3, (place + 1) % 3] for place in range(200)]
    page = opened(compile_circuit(file_of("2x2x2", gates, plan={"optimizer": "greedy"})).page())
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert count(page, "#gates svg [aria-label=bar] rect") == 400
    emulate(page, width=400)
    time.sleep(0.2)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_wide_diagram_lets_the_shadow_at_its_edge_through(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(mixed.page())
    emulate(page, width=420)
    room = "const room = document.querySelector('#diagram'); return room.scrollWidth > room.clientWidth"
    assert page.execute_script(room)
    assert page.execute_script("return getComputedStyle(document.querySelector('#diagram .paper')).fill") == "none"


def test_a_circuit_of_one_fixed_gate_has_a_page(opened: Open) -> None:
    page = opened(compile_circuit(file_of("4", [{"axes": [0], "kind": "slice", "to": [2]}])).page())
    assert texts(page, "#cards .big")[0] == "0"


def test_hostile_names_are_shown_as_text_in_a_report(opened: Open, mixed: CompiledCircuit) -> None:
    attacked = hostile(mixed)
    page = opened(attacked.page())
    assert texts(page, "h1") == [NAMES[0]]
    shown = texts(page, "#gate-table tbody td:first-child")
    assert [text[:-1] for text in shown] == [name.replace("\0", "\0") for name in NAMES]
    assert texts(page, "#apply-steps tbody td:nth-child(2)") == [NAMES[1]] * 3
    enter(page, "#graph-controls input", "1")
    # Nothing was made of them: no picture, no frame, no link, no attribute that listens.
    assert count(page, "img, iframe, object, embed, a, form") == 0
    attributes = "return [...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())"
    assert not [name for name in page.execute_script(attributes) if name.startswith("on")]


def test_the_policy_stops_what_would_get_into_a_page(browser: Any, mixed: CompiledCircuit, tmp_path: Path) -> None:
    # This also shows that the watch of the other tests sees what it looks for.
    attack = "<script>window.hacked=1</script><img src='http://127.0.0.1:9/x' onerror='window.hacked=2'>"
    for text, hacked in ((mixed.page(), None), ("<!doctype html><body>", 2)):
        forget(browser)
        open_file(browser, tmp_path / "page.html", text.replace("<body>", f"<body>{attack}"))
        assert browser.execute_script("return window.hacked ?? null") == hacked
        assert messages(browser)
        assert "http://127.0.0.1:9/x" in requests(browser), "those that are stopped are seen, too"


def test_every_text_has_contrast(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(mixed.page())
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    enter(page, "#graph-controls input", "9")
    for scheme in ("light", "dark"):
        emulate(page, scheme)
        assert page.execute_script(LOW_CONTRASTS) == [], scheme


def test_paper_is_light_whole_and_without_controls(opened: Open, mixed: CompiledCircuit) -> None:
    page = opened(mixed.page())
    emulate(page, "dark", media="print")
    colour = "return getComputedStyle(document.querySelector('.card')).backgroundColor"
    assert page.execute_script(colour) == "rgb(255, 255, 255)"
    found = "return [...document.querySelectorAll(arguments[0])]"
    assert page.execute_script(f"{found}.filter((one) => one.offsetParent).length", "select, input, button") == 0
    assert (
        page.execute_script(f"{found}.filter((one) => getComputedStyle(one).overflow !== 'visible').length", ".wide")
        == 0
    )
    printed = page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    assert len(printed["data"]) > 10_000
