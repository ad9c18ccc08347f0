"""`quanta compare`: what is printed, where, and with which exit code."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import quanta

QUANTA = "version: 1\nname: pairs\nlayout: 4x4x4\ngates: [all_pairs]\n"


@pytest.fixture(autouse=True)
def _typical_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict times of the typical machine, whatever this one was measured to do."""
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pairs.yaml").write_text(QUANTA)
    monkeypatch.chdir(tmp_path)
    return "pairs.yaml"


def test_the_table(circuit: str, golden: Callable[[str, str], None]) -> None:
    result = quanta(
        "compare",
        circuit,
        "-b",
        "lora:2",
        "-b",
        "dense",
        "-b",
        "dora:2",
        "-b",
        "series:4",
        "--rank",
        "--sort",
        "trainable",
    )
    assert result.exit_code == 0
    assert "times of a typical machine" in result.stderr
    title, times, table = result.stdout.split("\n", 3)[1:]
    assert title == "percent of a dense 64 x 64 layer"
    assert times.startswith("times predicted for a typical machine (")
    # Predicted times, and with them the order of the rows, change with every new calibration of the typical machine.
    golden("compare/table.txt", re.sub(r"\d[\d.]* (us|ms)", lambda time: "#".rjust(len(time[0])), table))


def test_rows_are_sorted_by_a_heading_as_by_its_key(circuit: str) -> None:
    arguments = ("compare", circuit, "-b", "lora:2", "--sort")
    assert quanta(*arguments, "saved/token").stdout == quanta(*arguments, "saved_bytes_per_token").stdout
    assert quanta(*arguments, "Rank").stdout == quanta(*arguments, "rank_upper").stdout


def test_formats_agree(circuit: str) -> None:
    arguments = ("compare", circuit, "-b", "lora:2", "--sort", "trainable")
    data = json.loads(quanta(*arguments, "--json").stdout)
    lines = list(csv.DictReader(io.StringIO(quanta(*arguments, "--csv").stdout)))
    assert [row["name"] for row in data["rows"]] == [line["name"] for line in lines] == ["lora:2", "pairs"]
    assert [row["trainable"] for row in data["rows"]] == [256, 768]
    reverse = json.loads(quanta(*arguments, "--json", "--reverse").stdout)
    assert [row["name"] for row in reverse["rows"]] == ["pairs", "lora:2"]


def test_files_that_are_no_circuits_are_listed_and_the_others_compared(
    circuit: str, tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    (tmp_path / "broken.yaml").write_text(QUANTA.replace("all_pairs", "all_pair"))
    result = quanta("compare", circuit, "broken.yaml", "missing.yaml", "-b", "krona:3-3", "-b", "prefix:10")
    assert result.exit_code == 1
    assert "pairs" in result.stdout
    golden("compare/problems.txt", "".join(line for line in result.stderr.splitlines(True) if "note:" not in line))
    as_json = quanta("compare", circuit, "broken.yaml", "--json")
    assert as_json.exit_code == 1
    data = json.loads(as_json.stdout)
    assert [row["name"] for row in data["rows"]] == ["pairs"]
    assert data["problems"][0]["source"] == "broken.yaml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name circuit files"),
        (("-b", "lorra:8"), "did you mean 'lora'?"),
        (("-b", "lora-8", "--in", "8"), "did you mean 'lora:8'?"),
        (("-b", "lora:r=8", "--in", "8"), "did you mean 'lora:8'?"),
        (("-b", "dora8", "--in", "8"), "did you mean 'dora:8'?"),
        (("-b", "lora:0", "--in", "8"), "rank"),
        (("-b", "lora:8"), "no file gives the widths"),
        (("-b", "lora:8", "--in", "8", "--sort", "speed"), "there is no figure 'speed'"),
        (("-b", "lora:8", "--in", "8", "--targets", "q_proj"), "targets are layers of a model"),
        (("-b", "lora:8", "--in", "8", "-o", "page.svg"), "should end in .html"),
        (("-b", "lora:8", "--in", "8", "--json", "--csv"), "choose one of --json and --csv"),
    ],
)
def test_wrong_usage_is_told_in_one_sentence(arguments: tuple[str, ...], message: str) -> None:
    result = quanta("compare", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_a_file_that_is_missing_is_what_is_told() -> None:
    result = quanta("compare", "missing.yaml", "-b", "lora:2")
    assert result.exit_code == 1
    assert result.stderr.startswith("missing.yaml: no such file")
    assert not result.stdout


def test_a_folder_without_a_config_is_told(tmp_path: Path) -> None:
    result = quanta("compare", "-b", "lora:8", "--model", str(tmp_path))
    assert result.exit_code == 1
    assert "config.json" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_page_is_written_beside_the_table(circuit: str, tmp_path: Path) -> None:
    result = quanta("compare", circuit, "-b", "lora:2", "-o", "page.html")
    assert result.exit_code == 0
    assert "lora:2" in (tmp_path / "page.html").read_text()
    assert "page.html" in result.stderr


def test_a_page_is_written_anew_beside_files_that_are_missing(circuit: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("old")
    result = quanta("compare", circuit, "missing.yaml", "-o", "page.html")
    assert result.exit_code == 1
    assert "pairs" in (tmp_path / "page.html").read_text()


def test_a_model_of_a_hostile_name_steers_no_terminal(circuit: str, tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 10, "_name_or_path": "\x1b[31mhi\n"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    files = f"q_proj={circuit},zzz={circuit}"
    result = quanta("compare", files, "-b", "lora:2", "--model", ".", "--targets", "q_proj,v_proj")
    assert result.exit_code == 1
    assert "layer model.layers.0.self_attn.v_proj: none of the circuits is for it" in result.stderr
    result = quanta(
        "compare", f"{files},v_proj={circuit}", "-b", "lora:2", "--model", ".", "--targets", "q_proj,v_proj"
    )
    assert result.exit_code == 0
    assert "no layer that is adapted is called 'zzz'" in result.stderr
    assert "\x1b" not in result.stdout
    assert "\\x1b[31mhi" in result.stdout


def test_a_page_never_takes_the_place_of_a_circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circuit.html").write_text(QUANTA)
    result = quanta("compare", "circuit.html", "-o", "circuit.html")
    assert result.exit_code == 1
    assert (tmp_path / "circuit.html").read_text() == QUANTA


def test_what_was_trained_well_is_said_with_where_it_was_measured() -> None:
    where = "(best of 0.001, 0.003 and 0.01 for MiniLM on sarcastic headlines: examples/finetune/encoder.py)"
    said = [
        f"note: quanta, {axes} axes: start with learning rate 0.003, scale 1, init {init}, residual folded {where}"
        for axes, init in ((3, "kaiming_uniform"), (4, "orthogonal"))
    ]
    told = quanta("compare", "-b", "quanta", "-b", "lora:2", "--in", "64").stderr.splitlines()
    assert [line for line in told if "start with" in line] == said
    assert "start with" not in quanta("compare", "-b", "krona", "--in", "64").stderr, "nobody has measured it"
