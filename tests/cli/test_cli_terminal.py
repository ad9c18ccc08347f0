"""What differs between a terminal and a pipe."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from quanta_compiler import compile_circuit
from quanta_compiler.compare import compare
from quanta_compiler.compare.figures import Conditions
from quanta_compiler.compare.run import model_layers
from quanta_compiler.compare.tables import comparison_tables
from quanta_compiler.diagnostics import Diagnostic, Span
from quanta_compiler.predict.calibration import load_calibration
from quanta_compiler.recommend import recommend
from quanta_compiler.recommend.budget import parse_budget
from quanta_compiler.recommend.tables import recommendation_tables
from quanta_compiler.report.terminal import report_tables, summary_table
from quanta_compiler.text import console
from quanta_compiler.text.quantities import amount_text
from quanta_compiler.text.tables import Column, Table, numbers, plain_text, print_rich

EXAMPLES = Path(__file__).parents[2] / "examples"
CIRCUIT = {"version": 1, "name": "small", "layout": "4x4x2", "gates": ["all_pairs"]}
WARNING = Diagnostic("warning", "odd", "a.yaml", span=Span(1, 1, 4), line_text="abc", hint="do so")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_diagnostics_are_coloured_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    for name, stream in {"terminal": Terminal(), "pipe": io.StringIO()}.items():
        monkeypatch.setattr(sys, "stderr", stream)
        console.tell_diagnostics([WARNING])
        shown[name] = stream.getvalue()
    assert shown["pipe"] == WARNING.render() + "\n"
    assert "\x1b[33m" in shown["terminal"]


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_can_be_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    console.tell_diagnostics([WARNING])
    assert stream.getvalue() == WARNING.render() + "\n"


def test_past_a_hundred_problems_only_their_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    console.tell_diagnostics([Diagnostic("error", f"wrong {place}", "a.yaml") for place in range(150)], omitted=25)
    assert stream.getvalue().splitlines()[99:] == ["a.yaml: wrong 99", "and 75 more"]


def test_messages_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    console.tell("file \x1b[2J\nnext")
    assert stream.getvalue() == "file \\x1b[2J\nnext\n"


def test_tables_are_rich_on_a_terminal_and_plain_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = report_tables(compile_circuit(CIRCUIT).report)
    pipe, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", pipe)
    console.print_tables(tables)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    console.print_tables(tables)
    assert pipe.getvalue() == plain_text(tables)
    assert pipe.getvalue().isascii()
    assert "\x1b[" in terminal.getvalue()


@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_no_figure_is_cut_on_a_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = compile_circuit(CIRCUIT).report
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", columns)
    print_rich(report_tables(report))
    assert "…" not in terminal.getvalue()
    assert amount_text(report.operator.flops) in terminal.getvalue()


def test_drawings_are_as_wide_as_the_terminal_and_the_same_in_every_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "66")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert console.drawing_width() == 100
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert console.drawing_width() == 66


def test_a_summary_never_divides_by_nothing() -> None:
    fixed = {**CIRCUIT, "layout": 4, "gates": [{"axes": [0], "kind": "slice", "to": [2]}]}
    text = plain_text([summary_table(compile_circuit(fixed).report)])
    assert "as gate by gate" in text
    assert "trainable parameters" in text


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    console.print_result("nobody reads this")
    console.tell("nor this")
    console.tell_diagnostics([WARNING])


def test_tables_that_people_choose_by_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    baselines = ("lora:8", "krona:64-64", "dora:8", "dense")
    compared = comparison_tables(compare([EXAMPLES / "llama2-7b-16-8-8-4.yaml"], baselines=baselines), 80)
    model = model_layers(EXAMPLES / "models/llama-3.2-1b", None)
    made = recommend(model, parse_budget("0.05%"), Conditions(2048, "auto", load_calibration()))
    monkeypatch.setenv("COLUMNS", "80")
    # A comparison stays one table beside its notes.
    assert len(compared) == 2
    for tables in (compared, recommendation_tables(made, None)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        print_rich(tables)
        lines = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).splitlines()
        assert max(map(len, lines)) <= 80
        # No name is folded to make room.
        assert {row[0] for row in tables[0].rows} <= {line.split("  ")[0] for line in lines}


@pytest.mark.parametrize(("width", "parts"), [("66", 1), ("56", 2)])
def test_names_stay_whole_beside_figures(width: str, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    name = "a-name-of-thirty-characters-so"
    columns = (Column("name"), *numbers("one", "two"), Column("said", is_remark=True))
    print_rich([Table("", columns, ((name, "1", "2", "a remark that goes on in a second line"),))])
    assert terminal.getvalue().count(name) == parts
