"""Every command by typer's runner: what it prints where, and its exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import quanta
from typer.testing import CliRunner

from quanta_compiler import compile_circuit, load_spec
from quanta_compiler.cli.app import app
from quanta_compiler.cli.expand import STAGE_NAMES
from quanta_compiler.report import stages

GOOD = "version: 1\nname: small-4\nlayout: 4x4x2\ngates: [all_pairs]\n"
BROKEN = "version: 1\nname: broken\nlayout: 4x4\ngates:\n  - all_pear\n  - [0, 7]\n  - {axes: [0], kind: densse}\n"
PADDED = "version: 1\nname: padded\nlayout: 4x4\nin_features: 15\ngates: [[0, 1]]\n"
KINDS = """\
version: 1
name: kinds
layout: {a: 8, b: 4, c: 4, d: 2}
gates:
  - {axes: [a, b], kind: lowrank, rank: 8, name: low}
  - {axes: [c, d], kind: diagonal, frozen: true}
  - {axes: [a], kind: slice, to: {a: 4}}
  - {axes: [a, b], name: mixed}
  - {axes: [b, c], share: mixed, transpose: true}
  - {axes: [b], per: [c], init: {scheme: normal, std: 0.5}}
  - {axes: [a, d], to: {e: 4}}
output: [e, c, b]
"""
Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"good": GOOD, "broken": BROKEN, "padded": PADDED, "kinds": KINDS}.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")


def test_the_version() -> None:
    result = quanta("--version")
    assert (result.exit_code, result.stdout) == (0, "quanta 0.1.0\n")


@pytest.mark.parametrize(
    "command", [[], ["new"], ["check"], ["expand"], ["compile"], ["report"], ["draw"], ["verify"], ["schema"]]
)
def test_help_is_plain_text_in_a_pipe(command: list[str]) -> None:
    long, short = quanta(*command, "--help"), quanta(*command, "-h")
    assert long.exit_code == 0
    assert long.stdout == short.stdout
    assert long.stdout.isascii()


def test_check_names_what_it_has_read() -> None:
    result = quanta("check", "good.yaml", "padded.yaml")
    assert result.exit_code == 0
    assert result.stdout == (
        "good.yaml: ok (small-4: 32 -> 32 features, layout 4x4x2, 3 gates)\n"
        "padded.yaml: ok (padded: 15 -> 16 features, layout 4x4, 1 gate), 1 warning\n"
    )
    assert result.stderr.startswith("padded.yaml:4:14: warning: ")


def test_check_lists_every_problem_of_every_file(golden: Golden) -> None:
    result = quanta("check", "broken.yaml", "missing.yaml", "good.yaml")
    assert result.exit_code == 1
    assert result.stdout == "good.yaml: ok (small-4: 32 -> 32 features, layout 4x4x2, 3 gates)\n"
    golden("cli/check.txt", result.stderr)


def test_check_as_json_lists_diagnostics_on_stdout() -> None:
    result = quanta("check", "--json", "broken.yaml", "padded.yaml")
    diagnostics = json.loads(result.stdout)
    assert result.exit_code == 1
    assert result.stderr == ""
    assert [(one["source"], one["severity"], one["line"]) for one in diagnostics] == [
        ("broken.yaml", "error", 5),
        ("broken.yaml", "error", 6),
        ("broken.yaml", "error", 7),
        ("padded.yaml", "warning", 4),
    ]
    assert json.loads(quanta("check", "--json", "good.yaml").stdout) == []


@pytest.mark.parametrize("name", ["torch", "class"])
def test_check_warns_of_a_name_that_compile_refuses(name: str) -> None:
    Path("named.yaml").write_text(f"version: 1\nname: {name}\nlayout: 2x2\ngates: [each]\n", encoding="utf-8")
    runner = CliRunner()
    checked = runner.invoke(app, ["check", "named.yaml"])
    assert checked.exit_code == 0
    assert "`quanta compile` will refuse it" in checked.stderr
    assert runner.invoke(app, ["compile", "named.yaml"]).exit_code == 1


def test_check_warns_of_a_circuit_whose_output_vanishes() -> None:
    deep = "version: 1\nname: deep\nlayout: 4x4x4\ngates: [{pattern: chain, repeat: 40%s}]\n"
    assert "warning: at initialization" in quanta("check", "-", stdin=deep % "").stderr
    assert quanta("check", "-", stdin=deep % ", init: orthogonal").stderr == ""
    # Where a gate starts at zero, that was asked for.
    zero = (deep % "").replace("]\n", ", {axes: [0], init: zeros}]\n")
    assert quanta("check", "-", stdin=zero).stderr == ""
    assert "every gradient is zero" in quanta("check", "-", stdin=deep % ", init: zeros").stderr


def test_check_warns_of_inputs_that_do_not_reach_every_output() -> None:
    head = "version: 1\nname: a\nlayout: {a: 4, b: 6}\ngates:\n  - [a]\n  - [b]\n"
    dropped = head + "  - {axes: [a, b], kind: slice, to: {c: 18}}\n  - {axes: [c], kind: slice, to: {d: 24}}\n"
    told = quanta("check", "-", stdin=dropped).stderr
    assert "warning: after the last gate some inputs reach at most 18 of 24 numbers: not every output" in told
    assert quanta("check", "-", stdin=dropped + "  - [d]\n").stderr == ""
    # Of axes that no gate mixes more is said.
    assert quanta("check", "-", stdin=head.replace("  - [a]\n", "")).stderr.count("warning: ") == 1
    monarch = "version: 1\nname: a\npreset: monarch\nin_features: 64\nblocks: 8\nblock_rank: 2\n"
    assert quanta("check", "-", stdin=monarch).stderr.count("warning: ") == 1


def test_standard_input_is_a_file_called_stdin() -> None:
    good, bad = quanta("check", "-", stdin=GOOD), quanta("check", "-", stdin="nonsense")
    assert good.stdout.startswith("<stdin>: ok (small-4: ")
    assert bad.exit_code == 1
    assert bad.stderr.startswith("<stdin>:1:1: a circuit file is a mapping")
    assert quanta("expand", "-", stdin=GOOD).stdout == quanta("expand", "good.yaml").stdout


@pytest.mark.parametrize("content", ["", "a\0b", "x" * (1 << 21), "\udcff"])
def test_standard_input_that_is_no_circuit(content: str) -> None:
    data = content.encode("utf-8", "surrogateescape")
    result = CliRunner().invoke(app, ["check", "-"], input=data)
    assert result.exit_code == 1
    assert result.stderr.startswith("<stdin>")


def test_expand_prints_the_circuit_written_out() -> None:
    result = quanta("expand", "kinds.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert load_spec(result.stdout) == load_spec(Path("kinds.yaml"))


@pytest.mark.parametrize("stage", ["circuit", "network", "plan", "program", "table"])
def test_expand_prints_a_stage(golden: Golden, stage: str) -> None:
    result = quanta("expand", "kinds.yaml", "--stage", stage)
    assert result.exit_code == 0
    golden(f"cli/stage_{stage}.txt", result.stdout)


def test_the_stage_source_is_what_is_compiled() -> None:
    assert quanta("expand", "kinds.yaml", "--stage", "source").stdout == compile_circuit(Path("kinds.yaml")).source


@pytest.mark.parametrize(
    ("widths", "first", "last"),
    [((15, 12), "15 padded to 16", "16 truncated to 12"), ((18, 20), "18 truncated to 16", "16 padded to 20")],
)
def test_stages_say_what_happens_at_the_ends(widths: tuple[int, int], first: str, last: str) -> None:
    width_keys = "in_features: {}\nout_features: {}\n".format(*widths)
    text = f"version: 1\nname: ends\nlayout: 4x4\n{width_keys}gates: [[0, 1]]\n"
    circuit = quanta("expand", "-", "--stage", "circuit", stdin=text).stdout
    assert f"input %0=0:4, %1=1:4  ({first})\n" in circuit
    assert f"output %2, %3  ({last})\n" in circuit
    table = quanta("expand", "-", "--stage", "table", stdin=text).stdout
    assert f"input {first}\n" in table
    assert f"output {last}\n" in table


def test_stages_are_named_alike_in_the_help_and_in_the_table() -> None:
    assert (*stages.STAGES, "kernel") == STAGE_NAMES


def test_an_unknown_stage_is_wrong_usage() -> None:
    result = quanta("expand", "good.yaml", "--stage", "tables")
    assert result.exit_code == 2
    assert "circuit, network, plan, program, table, source" in " ".join(result.stderr.split())


def test_compile_writes_four_files_and_prints_a_summary(golden: Golden) -> None:
    result = quanta("compile", "good.yaml", "-o", "build")
    assert result.exit_code == 0
    names = ["small_4.py", "small_4.report.html", "small_4.report.json", "small_4.svg"]
    assert sorted(path.name for path in Path("build").iterdir()) == names
    compiled = compile_circuit(Path("good.yaml"))
    assert Path("build/small_4.py").read_text() == compiled.source
    assert Path("build/small_4.report.json").read_text() == compiled.report.to_json()
    golden("cli/compile.txt", result.stdout.replace(os.sep, "/"))


def test_compile_as_json() -> None:
    data = json.loads(quanta("compile", "good.yaml", "--tokens", "16", "--json").stdout)
    report = "small_4.report"
    assert data["files"] == {
        "py": "small_4.py",
        "json": f"{report}.json",
        "html": f"{report}.html",
        "svg": "small_4.svg",
    }
    assert data["report"] == json.loads(Path("small_4.report.json").read_text())
    assert data["report"]["apply"]["planned_tokens"] == 16


def test_a_module_that_was_edited_by_hand_is_not_overwritten() -> None:
    quanta("compile", "good.yaml")
    module = Path("small_4.py")
    module.write_text(module.read_text() + "# mine\n")
    result = quanta("compile", "good.yaml", "--tokens", "1")
    assert result.exit_code == 1
    assert "edited by hand" in result.stderr
    assert module.read_text().endswith("# mine\n")
    assert quanta("compile", "good.yaml", "--force").exit_code == 0
    assert module.read_text() == compile_circuit(Path("good.yaml")).source


def test_an_interrupted_compile_leaves_the_old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    quanta("compile", "good.yaml")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "chmod", interrupt)
    result = quanta("compile", "good.yaml", "--tokens", "3")
    assert (result.exit_code, result.output) == (130, "")
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_the_circuit_file_is_not_overwritten_by_a_result() -> None:
    Path("small_4.report.json").write_text(GOOD)
    result = quanta("compile", "small_4.report.json")
    assert result.exit_code == 1
    assert "is the circuit file itself" in result.stderr
    assert Path("small_4.report.json").read_text() == GOOD


def test_compile_refuses_a_name_that_hides_a_module() -> None:
    result = quanta("compile", "-", "--json", stdin=GOOD.replace("small-4", "torch"))
    assert result.exit_code == 1
    assert "rename the circuit" in json.loads(result.stdout)[0]["message"]


@pytest.mark.parametrize("command", ["expand", "compile", "report", "draw", "verify"])
def test_every_command_lists_all_problems_of_a_broken_file(command: str) -> None:
    result = quanta(command, "broken.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == quanta("check", "broken.yaml").stderr.replace("3 problems in 1 of 1 file\n", "")
    assert sorted(path.name for path in Path().iterdir()) == ["broken.yaml", "good.yaml", "kinds.yaml", "padded.yaml"]


@pytest.mark.parametrize("command", ["compile", "report", "verify"])
def test_problems_as_json(command: str) -> None:
    result = quanta(command, "broken.yaml", "--json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)) == 3
    assert result.stderr == ""


def test_report_as_json_is_the_file_that_compile_writes() -> None:
    quanta("compile", "kinds.yaml", "--tokens", "100")
    result = CliRunner().invoke(app, ["report", "kinds.yaml", "--json", "--tokens", "100"])
    assert result.stdout_bytes == Path("kinds.report.json").read_bytes()


def test_report_as_text(golden: Golden) -> None:
    result = quanta("report", "kinds.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    golden("cli/report.txt", result.stdout)


def test_warnings_go_to_stderr() -> None:
    result = quanta("report", "padded.yaml", "--json")
    json.loads(result.stdout)
    assert "padded.yaml:4:14: warning: " in result.stderr


@pytest.mark.parametrize("tokens", ["0", "-1", "x", "1e3", str(2**31 + 1)])
def test_a_batch_that_is_none_is_wrong_usage(tokens: str) -> None:
    assert quanta("report", "good.yaml", "--tokens", tokens).exit_code == 2


def test_draw_as_text_and_as_ascii() -> None:
    text, plain = quanta("draw", "good.yaml"), quanta("draw", "good.yaml", "--ascii")
    assert "┌────┐" in text.stdout
    assert "+----+" in plain.stdout
    assert plain.stdout.isascii()
    assert max(map(len, plain.stdout.splitlines())) <= 100


def test_draw_falls_back_to_ascii_where_the_encoding_asks_for_it() -> None:
    result = CliRunner(charset="ascii").invoke(app, ["draw", "good.yaml"])
    assert result.exit_code == 0
    assert result.stdout == quanta("draw", "good.yaml", "--ascii").stdout


def test_draw_writes_svg() -> None:
    result = quanta("draw", "good.yaml", "-o", "picture.svg")
    assert (result.exit_code, result.stdout) == (0, "picture.svg\n")
    quanta("compile", "good.yaml")
    assert Path("picture.svg").read_bytes() == Path("small_4.svg").read_bytes()


@pytest.mark.parametrize(("output", "code"), [("picture.png", 2), ("nowhere/picture.svg", 1), ("folder.svg", 1)])
def test_draw_refuses_what_it_cannot_write(output: str, code: int) -> None:
    Path("folder.svg").mkdir()
    result = quanta("draw", "good.yaml", "-o", output)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr


def test_schema() -> None:
    result = quanta("schema")
    assert result.stdout == (Path(__file__).parents[2] / "schemas" / "circuit.schema.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["check"], ["nonsense"], ["compile", "a", "b"], ["report", "--nonsense", "a"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = quanta(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: " in result.stderr


def test_an_exhausted_memory_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("quanta_compiler.cli.circuit_files.read_circuit", exhaust)
    result = quanta("report", "good.yaml")
    assert (result.exit_code, result.stderr) == (3, "quanta: there is not enough memory\n")


def test_an_error_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("quanta_compiler.cli.circuit_files.read_circuit", fail)
    with pytest.raises(RuntimeError, match="ours"):
        quanta("report", "good.yaml")


def test_a_gate_of_any_name_lets_check_tell_of_reach() -> None:
    gates = "[{axes: [0, 1], name: depend}, [2], {axes: [1], kind: slice, to: [1]}, {axes: [1], kind: slice, to: [4]}]"
    text = f"version: 1\nname: a\nlayout: 2x4x3\ngates: {gates}\n"
    assert "some inputs reach at most" in quanta("check", "-", stdin=text).stderr
