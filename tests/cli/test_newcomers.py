"""What newcomers type, and what is said of it: widths alone, counts with units, LoRA's words, a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from commands import quanta
from typer.testing import CliRunner

from quanta_compiler.cli.app import app
from quanta_compiler.spec import load_spec

GOOD = "version: 1\nname: pairs\nlayout: 4x4x4\ngates: [all_pairs]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.yaml").write_text(GOOD)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        (("--in", "3072"), "8x8x8x6"),
        (("--layout", "auto:3", "--in", "3072"), "16x16x12"),
        (("--layout", "auto:4"), "8x8x8x8"),
        (("--in", "64", "--out", "4096"), "8x8x8x8"),
    ],
)
def test_a_width_is_enough_for_a_new_circuit(options: tuple[str, ...], layout: str) -> None:
    result = quanta("new", "mine", *options)
    assert result.exit_code == 0, result.output
    data = yaml.safe_load(result.stdout)
    assert (data["name"], data["layout"]) == ("mine", layout)
    load_spec(result.stdout)


def test_counts_are_written_as_people_write_them() -> None:
    arguments = ("compare", "pairs.yaml", "--json", "--tokens")
    assert quanta(*arguments, "2k").stdout == quanta(*arguments, "2000").stdout
    wrong = quanta(*arguments, "2x")
    assert wrong.exit_code == 2
    assert "'2x' is no count: write digits, or a number with a unit, such as 50k or 1.5M" in wrong.stderr
    assert "3,000,000,000 is too many: at most 2,147,483,648" in " ".join(quanta(*arguments, "3G").stderr.split())


def test_compile_checks_whether_files_are_up_to_date(folder: Path) -> None:
    assert quanta("compile", "pairs.yaml", "-o", "build").exit_code == 0
    done = quanta("compile", "pairs.yaml", "-o", "build", "--check")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "4 files of pairs up to date\n")
    (folder / "build" / "pairs.py").write_text("# edited\n")
    (folder / "build" / "pairs.svg").unlink()
    result = quanta("compile", "pairs.yaml", "-o", "build", "--check")
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if "hint" not in line] == [
        "build/pairs.py: is not up to date",
        "build/pairs.svg: is missing",
    ]
    assert (folder / "build" / "pairs.py").read_text() == "# edited\n"
    assert not (folder / "build" / "pairs.svg").exists()


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "version: 1\nname: a\npreset: lora\nr: 8\nalpha: 16\ntarget_modules: [q_proj]\n",
            [
                "LoRA's r is `rank`",
                "a scale belongs to the adapter: QuantaConfig(scale=...), LoRA's alpha / r",
                "targets belong to the adapter: QuantaConfig(target_modules=[...])",
            ],
        ),
        ("version: 1\nname: a\nr: 8\n", ["LoRA's r is `rank`, and goes with a preset: `preset: lora` and `rank: 8`"]),
        (GOOD.replace("[all_pairs]", "[{axes: [0, 1], kind: lowrank, r: 8}]"), ["LoRA's r is `rank`"]),
        (GOOD.replace("4x4x4", "3072"), ["it needs at least 2 axes, such as `layout: 16x16x12`"]),
        (GOOD.replace("[all_pairs]", "[]"), ["name a pattern such as `all_pairs`, or write gates such as `[0, 1]`"]),
        (GOOD.replace("[all_pairs]", ""), ["name a pattern such as `all_pairs`, or write gates such as `[0, 1]`"]),
    ],
)
def test_one_mistake_has_one_remedy(text: str, messages: list[str], folder: Path) -> None:
    (folder / "wrong.yaml").write_text(text)
    data = json.loads(quanta("check", "wrong.yaml", "--json").stdout)
    problems = data["problems"] if isinstance(data, dict) else data
    assert [problem["hint"] for problem in problems] == messages


def test_empty_gates_are_pointed_at_by_their_key(folder: Path) -> None:
    (folder / "wrong.yaml").write_text(GOOD.replace(" [all_pairs]", ""))
    lines = quanta("check", "wrong.yaml").output.splitlines()
    assert lines[:3] == ["wrong.yaml:4:1: `gates` is empty", "    gates:", "    ^~~~~"]


def test_a_report_is_no_circuit() -> None:
    assert quanta("compile", "pairs.yaml", "-o", "build").exit_code == 0
    result = quanta("check", "build/pairs.report.json")
    assert result.exit_code == 1
    assert "build/pairs.report.json:1:1: this is the report of a circuit, not the circuit" in result.output
    assert result.output.count("hint: ") == 1


def test_all_columns_of_a_comparison_are_shown_on_request() -> None:
    few, whole = (quanta("compare", "pairs.yaml", "-b", "lora:2", *more).stdout for more in ((), ("--all",)))
    headings = few.splitlines()[4].split()
    assert headings == ["trainable", "percent", "rank", "step", "time", "saved/token"]
    assert max(map(len, few.splitlines()[4:])) <= 80
    assert all(heading in whole for heading in ("operator FLOPs", "AdamW", "connected"))
    assert "operator FLOPs" in quanta("compare", "pairs.yaml", "--sort", "operator_flops").stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("compare", "{circuit}", "--sort", "step_second"), "'step_seconds'? choose one of name, kind,"),
        (("compare", "{circuit}", "-b", "lroa:8"), "did you mean 'lora'? there is "),
        (("compare", "{circuit}", "--backend", "tourch"), "did you mean 'torch'? choose one of auto, torch, fused"),
        (("compare", "{circuit}", "--device", "cdua"), "'cdua' is no device: did you mean 'cuda'? choose one of cpu,"),
        (
            ("bench", "{circuit}", "--dtype", "bf16"),
            "'bf16' is no dtype: did you mean 'bfloat16'? choose one of ",
        ),
        (("bench", "{circuit}", "--only", "opt-einsm"), "did you mean 'opt-einsum'? choose some of "),
        (("expand", "{circuit}", "--stage", "progam"), "did you mean 'program'? choose one of circuit, network,"),
        (("search", "--in", "8", "--out", "8", "--max-parameters", "9", "--backend", "lokky"), "did you mean 'loky'? "),
        (("new", "--preset", "lroa"), "did you mean 'lora'? there is quanta, "),
        (("check", "{wrong}"), "did you mean {circuit}?"),
    ],
)
def test_a_wrong_name_offers_the_nearest_and_the_list(words: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    circuit = tmp_path / "circuit.yaml"
    circuit.write_text("version: 1\nname: c\nlayout: 4x4\ngates: [all_pairs]\n", encoding="utf-8")
    names = {"circuit": str(circuit), "wrong": str(tmp_path / "circiut.yml")}
    result = quanta(*(word.format(**names) for word in words))
    assert result.exit_code in (1, 2)
    assert " ".join(hint.format(**names).split()) in " ".join(result.stderr.split())


def test_one_mistake_is_told_once(tmp_path: Path) -> None:
    circuit = tmp_path / "circuit.yaml"
    circuit.write_text("version: 1\nname: c\nlayout: 4x4\ngates: [all_pair]\n", encoding="utf-8")
    result = quanta("check", str(circuit), str(circuit))
    assert result.stderr.count("unknown pattern") == 1
    assert "1 problem in 1 of 1 file" in result.stderr


@pytest.mark.parametrize("end", ["", "\n"])
def test_places_in_standard_input_are_those_of_a_file(end: str, tmp_path: Path) -> None:
    text = "version: 1\nname: c\nlayout: 4x4\ngates: [all_pairs" + end
    file = tmp_path / "circuit.yaml"
    file.write_text(text, encoding="utf-8")
    of_file = quanta("check", str(file)).stderr
    of_input = CliRunner().invoke(app, ["check", "-"], input=text).stderr
    assert of_input == of_file.replace(str(file), "<stdin>")
    assert of_input.startswith("<stdin>:")
