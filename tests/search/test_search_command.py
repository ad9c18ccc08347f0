"""`quanta search` as people use it: what it prints and writes, and what it says of a mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from commands import quanta

from quanta_compiler.cli import search as search_command
from quanta_compiler.driver import compile_circuit
from quanta_compiler.predict.calibration import load_calibration
from quanta_compiler.search import run, workers
from quanta_compiler.search.front import OBJECTIVES
from quanta_compiler.search.journal import FILE, Journal

SEARCH = ("search", "--in", "16", "--out", "16", "--max-parameters", "200", "--gates", "1-4", "--jobs", "1")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_names_are_those_of_the_search() -> None:
    assert tuple(OBJECTIVES) == search_command.OBJECTIVE_NAMES
    assert workers.BACKENDS == search_command.BACKEND_NAMES


def test_every_layout_of_the_front_is_a_circuit_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))  # No calibration is there.
    result = quanta(*SEARCH, "--ranks", "1", "--gate-axes", "1,2")
    # Whose times they are is said as `quanta compare` says it.
    assert (result.exit_code, result.stderr) == (0, f"note: {load_calibration().remark}\n")
    data = json.loads(Path("search-16-16/front.json").read_text())
    assert data["device"]["calibrated"] is False
    assert data["device"]["threads"] >= 1
    front = json.loads(Path("search-16-16/front.json").read_text())["front"]
    files = sorted(path.name for path in Path("search-16-16").glob("*.yaml"))
    assert sorted(row["file"] for row in front) == files
    assert quanta("check", *(f"search-16-16/{file}" for file in files)).exit_code == 0
    for row in front:
        report = compile_circuit(Path("search-16-16", row["file"])).report
        assert row["figures"]["parameters"] == row["planned"]["trainable"] == report.parameters.trainable
        assert row["planned"]["operator_flops"] == report.operator.flops
        assert row["name"] in result.stdout
    parameters = [row["figures"]["parameters"] for row in front]
    assert parameters == sorted(parameters)
    assert parameters[-1] <= 200


@pytest.mark.parametrize("widths", [("16", "4"), ("4", "12"), ("15", "10")])
def test_widths_that_differ(widths: tuple[str, str]) -> None:
    result = quanta("search", "--in", widths[0], "--out", widths[1], *SEARCH[5:])
    assert result.exit_code == 0
    files = list(Path(f"search-{widths[0]}-{widths[1]}").glob("*.yaml"))
    for file in files:
        spec = compile_circuit(file).spec
        assert (spec.in_features, spec.out_features) == tuple(map(int, widths))
    assert files


def test_json_is_what_is_written() -> None:
    result = quanta(*SEARCH, "--json", "-o", "found", "--most", "2")
    data = json.loads(result.stdout)
    assert data == json.loads(Path("found/front.json").read_text())
    assert len(data["front"]) == 2 < data["exploration"]["front"]


def test_a_second_search_begins_anew_or_goes_on() -> None:
    quanta(*SEARCH)
    before = {path.name: path.read_bytes() for path in Path("search-16-16").iterdir()}
    refused = quanta(*SEARCH)
    assert refused.exit_code == 1
    assert "--resume" in refused.stderr
    assert quanta(*SEARCH, "--resume").exit_code == 0
    assert {path.name: path.read_bytes() for path in Path("search-16-16").iterdir()} == before
    other = quanta(*SEARCH, "--resume", "--max-flops", "1000")
    assert other.exit_code == 1
    assert "`flops_per_token` is none there and 1000 here" in other.stderr
    assert quanta(*SEARCH, "--force", "--most", "1").exit_code == 0
    assert len(list(Path("search-16-16").glob("*.yaml"))) == 1


def test_what_no_search_wrote_is_not_overwritten() -> None:
    quanta(*SEARCH)
    edited, *_ = sorted(Path("search-16-16").glob("*.yaml"))
    edited.write_text(edited.read_text() + "# mine\n")
    result = quanta(*SEARCH, "--resume")
    assert result.exit_code == 1
    assert f"{edited} is not as a search wrote it" in result.stderr
    # What is no longer on the front is left alone, too, where it was edited.
    assert quanta(*SEARCH[:5], "--max-parameters", "40", "--force", "--jobs", "1").exit_code in (0, 1)
    assert edited.read_text().endswith("# mine\n")
    Path("mine").mkdir()
    Path("mine/front.json").write_text("{}")
    refused = quanta(*SEARCH, "-o", "mine")
    assert refused.exit_code == 1
    assert "mine/front.json is not the front of a search" in refused.stderr.replace(os.sep, "/")
    Path("mine/front.json").unlink()
    Path("mine/journal.jsonl").write_text("my notes\n")
    assert "is no journal of a search" in quanta(*SEARCH, "-o", "mine", "--force").stderr
    assert Path("mine/journal.jsonl").read_text() == "my notes\n"
    # One object without an end of line is no line of a search that was cut off.
    Path("mine/journal.jsonl").write_text('{"mine": 1}')
    assert "is no journal of a search" in quanta(*SEARCH, "-o", "mine", "--force").stderr
    assert Path("mine/journal.jsonl").read_text() == '{"mine": 1}'


def test_what_no_layout_can_have_is_said_before_any_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "explore", None)
    assert "a rank of at least 17: the largest has 16" in quanta(*SEARCH, "--min-rank", "17").stderr


def test_two_searches_do_not_share_a_folder() -> None:
    first = Journal(Path("search-16-16", FILE), {"version": 0, "space": {}}, resume=False, force=False)
    before = first.path.read_bytes()
    for word in ("--resume", "--force"):
        assert "another search is running in this folder" in quanta(*SEARCH, word).stderr
    assert first.path.read_bytes() == before
    first.close()
    assert quanta(*SEARCH, "--force").exit_code == 0


@pytest.mark.parametrize("damage", [{"seen": "many"}, {"front": [{"layout": [4]}]}, {"met": None}])
def test_a_damaged_line_of_the_journal_is_done_again(damage: dict[str, object]) -> None:
    quanta(*SEARCH)
    front, journal = Path("search-16-16/front.json"), Path("search-16-16/journal.jsonl")
    before = front.read_bytes()
    first, second, *lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(f"{first}{json.dumps(json.loads(second) | damage)}\n{''.join(lines)}")
    assert quanta(*SEARCH, "--resume").exit_code == 0
    assert front.read_bytes() == before


def test_a_time_that_is_over_is_told() -> None:
    refused = quanta(*SEARCH, "--time", "0")
    assert refused.exit_code == 1
    assert "the time was over before a layout of 16 -> 16 met the limits" in refused.stderr
    assert quanta(*SEARCH, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--max-parameters", "10"],
            "no layout of 16 -> 16 has at most 10 parameters: the smallest needs 32 (2x2x2x2)",
        ),
        (["--max-flops", "100"], "no layout of 16 -> 16 has at most 100 FLOPs per token: the smallest needs 256"),
        (["--max-memory", "63"], "at most 63 bytes per token kept for backward: the smallest needs 128 (2x2x2x2)"),
        (["--min-rank", "17"], "no layout of 16 -> 16 has a rank of at least 17: the largest has 16"),
        (
            ["--max-flops", "200", "--min-rank", "16", "--ranks", "1"],
            "at most 200 FLOPs per token within --max-parameters and --min-rank: the nearest needs 256",
        ),
        (
            ["--candidates", "40", "--max-parameters", "34", "--min-rank", "16", "--min-mixing", "1"],
            "none of the 40 layouts of 16 -> 16 looked at has at most 34 parameters within --min-rank and --min-mixing"
            ": the nearest that was found needs",
        ),
        (["--min-mixing", "0.5", "--gate-axes", "1"], "has a mixing of at least 0.5: the largest has 0.0"),
        (["--gates", "1"], "no circuit of 16 -> 16 with at most 1 gate acts on every axis of its layout"),
        (["--axes", "5-6"], "there is no layout of 16 -> 16 with 5 to 6 axes"),
        (["--backend", "dask"], "--backend dask needs the address of a cluster"),
        (["--cluster", ""], "--backend dask needs the address of a cluster"),
        (["--cluster", "tcp://127.0.0.1:1"], "there is no Dask cluster at tcp://127.0.0.1:1"),
        (["--cluster", "nonsense://x"], "there is no Dask cluster at nonsense://x"),
    ],
)
def test_what_cannot_be_is_one_clear_sentence(
    options: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_CONNECT_SECONDS", 0.5)
    result = quanta(*SEARCH, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 2
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--axes", "5-3"], "'5-3' is no range"),
        (["--gates", "0"], "'0' is no range"),
        (["--ranks", "1,x"], "'1,x' is no list of numbers"),
        (["--objectives", "flop"], "did you mean 'flops'?"),
        (["--backend", "spark"], "'spark' is no backend"),
        (["--cluster", "x", "--backend", "threading"], "a cluster has the backend dask or ray"),
        (["--key", "x"], "there is nothing to fit"),
        (["--resume", "--force"], "either go on with --resume, or begin anew with --force"),
        (["--in", "1"], "Invalid value for '--in'"),
        (["--learning-rate", "inf"], "inf is no step"),
        (["--learning-rate", "0"], "0 is no step"),
    ],
)
def test_wrong_usage(options: list[str], sentence: str) -> None:
    result = quanta(*SEARCH, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in " ".join(result.stderr.split())


def test_a_model_is_searched_width_by_width_under_one_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 24, "intermediate_size": 48}
    config |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    asked = ("--model", "model", "--targets", "q_proj,v_proj", "--max-parameters", "3k", "--candidates", "200")
    result = quanta("search", *asked, "--jobs", "1", "--json")
    assert result.exit_code == 0, result.output
    fronts = json.loads(result.stdout)
    assert {path.name for path in (tmp_path / "search").iterdir()} == {"24-24", "24-12"}
    # Of 3,000 numbers, in proportion to the widths: 48 and 36 a layer, of three layers each.
    for front, most in zip(fronts, (3000 * 48 // 252, 3000 * 36 // 252), strict=True):
        found = [one["figures"]["parameters"] for one in front["front"]]
        assert found
        assert max(found) <= most


def test_a_width_that_nothing_is_found_for_is_told_and_the_others_are_searched(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 24, "intermediate_size": 48}
    config |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    # A layer of 24 -> 12 has no rank above 12.
    words = ("--max-parameters", "3k", "--candidates", "200", "--min-rank", "13", "--jobs", "1", "--model", "model")
    result = quanta("search", *words, "--targets", "v_proj,q_proj")
    assert result.exit_code == 1
    assert "search: 24 -> 24 features" in result.stdout
    assert "quanta: no layout of 24 -> 12 has a rank of at least 13: the largest has 12" in result.stderr
    assert {path.name for path in (tmp_path / "search").iterdir()} == {"24-24"}
    again = quanta("search", *words, "--targets", "v_proj,q_proj", "--json", "--force")
    assert (again.exit_code, len(json.loads(again.stdout))) == (1, 1)
    alone = quanta("search", *words, "--targets", "v_proj", "--json")
    assert alone.exit_code == 1
    assert [problem["severity"] for problem in json.loads(alone.stdout)] == ["error"]


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (("--in", "24", "--max-parameters", "50"), "'--out': give the width, or a model with --model"),
        (("--in", "24", "--out", "24", "--max-parameters", "5%"), "a share is of a model's parameters: add --model"),
        (("--in", "24", "--out", "24", "--max-parameters", "x"), "'--max-parameters': 'x' is no count"),
        (("--model", "m", "--in", "24", "--max-parameters", "5%"), "a model has widths of its own"),
        (("--targets", "q_proj", "--max-parameters", "50"), "targets are layers of a model: add --model"),
    ],
)
def test_widths_or_a_model_and_no_less(options: tuple[str, ...], fact: str) -> None:
    result = quanta("search", *options)
    assert result.exit_code == 2
    assert fact in " ".join(result.stderr.split())
