"""The report of a GPU, without one: it runs on the CPU, keeps its time, and says what is wrong and what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from quanta_compiler.kernels.engine import engine_name

SCRIPT = Path(__file__).with_name("gpu_report.py")
sys.path.insert(0, str(SCRIPT.parent))

from gpu_correctness import AUTOCAST, Case, Verdict, cases, correctness, judged  # noqa: E402
from gpu_page import page  # noqa: E402
from gpu_sections import Deadline, Section  # noqa: E402
from gpu_timings import backward_forms, by_layout, by_tokens, goals, quick  # noqa: E402

NAMES = ["correctness", "goals", "tokens", "layouts", "backward", "products", "launches"]
GOOD = Verdict("a", "float32", "3 gates", 1e-7, 1e-7, (1e-7, 1e-7), repeats=True)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)


def test_a_quick_report_on_the_cpu(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--quick", "--circuits", "1", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "gpu-report.json").read_text(encoding="utf-8"))
    assert report["wrong"] == []
    assert [one["name"] for one in report["sections"]] == NAMES
    sections = {one["name"]: one["data"] for one in report["sections"]}
    if find_spec("triton") is None:
        assert not sections.pop("backward")
    else:
        assert set(sections["backward"][0]["seconds"]) == {"stored", "segments"}
    assert all(sections.values())
    assert {one["dtype"] for one in report["sections"][0]["data"]} >= {"float32", "float16"}
    text = (tmp_path / "out" / "gpu-report.html").read_text(encoding="utf-8")
    assert "the times say nothing" in text
    for one in report["sections"]:
        assert f"<h2>{one['title']}</h2>" in text


def test_without_a_gpu_it_is_one_sentence(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run("-o", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("There is no GPU to report on: torch sees no device 'cuda' here")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_whoever_stops_early_has_seen_all_circuits_and_all_dtypes() -> None:
    dtypes = ("float32", "bfloat16", "float16", AUTOCAST)
    todo = cases("cuda", dtypes, circuits=100, quick=False)
    names = {case.name for case in todo}
    assert len(todo) == 4 * len(names) > 500
    assert {case.name for case in todo[: len(names)]} == names
    assert {case.dtype for case in todo[:4]} == set(dtypes)
    assert len({(case.name, case.dtype) for case in todo}) == len(todo)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", AUTOCAST])
def test_a_circuit_is_judged_by_the_oracle(dtype: str) -> None:
    (case,) = cases("cpu", [dtype], circuits=1, quick=True)
    verdict = judged(case)
    assert isinstance(verdict, Verdict), verdict
    assert verdict.problem is None
    assert 0 < verdict.forward < 0.02
    assert 0 < verdict.backward < 0.05


def test_what_is_wrong() -> None:
    assert GOOD.problem is None
    assert replace(GOOD, forward=2e-6).problem == "forward is 2.0e-06 of the norm away, at most 1.0e-06 is right"
    assert replace(GOOD, backward=float("nan")).problem is not None
    assert replace(GOOD, forward=2e-6, plain=(1.9e-6, 1e-7)).problem is None
    assert replace(GOOD, repeats=False).problem == "a second run has other bits"
    coarse = replace(GOOD, dtype="bfloat16", forward=5e-3, plain=(4e-3, 4e-3))
    assert coarse.problem == "forward is 5.0e-03 of the norm away, at most 4.8e-03 is right"
    assert replace(coarse, plain=None).problem is None
    broken = judged(Case("a", "{}", "float32", "cpu", 3))
    assert isinstance(broken, str)
    section, wrong = correctness([Case("a", "{}", "float32", "cpu", 3)], 1, Deadline(60))
    assert wrong == [f"a in float32: {broken}"]
    assert section.rows == []


def test_items_are_left_out_when_the_time_is_up() -> None:
    now = [0.0]
    deadline, done = Deadline(10.0, lambda: now[0]), []
    left_out: list[str] = []
    for item in deadline.within("abcdef", left_out):
        done.append(item)
        now[0] += 3.0
    assert done == ["a", "b", "c"]
    assert left_out == [f"{one}: there was no time left" for one in "def"]
    assert deadline.part(0.5).left() == 0.5


def test_what_takes_too_long_is_stopped_and_said() -> None:
    left_out: list[str] = []
    with Deadline(0.05).kept("sleeping", left_out):
        try:
            time.sleep(60)
        except Exception:
            pytest.fail("whoever takes failures as they come took this one")
    assert left_out == ["sleeping: it was stopped when the time was up"]
    with Deadline(60).kept("nothing", left_out):
        pass
    assert len(left_out) == 1


def test_without_time_everything_is_left_out() -> None:
    scale = quick("cpu")
    batches = by_tokens(scale, Deadline(0))
    assert (batches.rows, len(batches.left_out)) == ([], 3)
    assert by_layout(scale, Deadline(0)).left_out == ["4x4x4x4: there was no time left"]
    assert backward_forms(scale, Deadline(60)).left_out == [
        f"both: the engine here is {engine_name('cpu', torch.float32)}"
    ]
    assert goals(batches).left_out == ["the first batch was not measured"]
    section, wrong = correctness(cases("cpu", ["float32"], circuits=2, quick=True), 1, Deadline(0))
    assert (len(section.left_out), wrong) == (2, [])


def test_goals_are_read_off_the_first_batch() -> None:
    def contestant(name: str, forward: float, training: float) -> dict[str, Any]:
        modes = {"forward": forward, "forward_backward": training}
        return {"name": name, "modes": {mode: {"seconds_median": seconds} for mode, seconds in modes.items()}}

    measured = Section("tokens", "", "", ())
    rows = [contestant("fused", 1.0, 4.0), contestant("bare", 4.0, 8.0), contestant("quanta-frozen-copy", 6.0, 12.0)]
    measured.data.append({"sections": [{"contestants": rows}]})
    found = goals(measured)
    assert [one["ratio"] for one in found.data] == [0.25, 1.5]
    assert found.rows[0] == ("forward / frozen layer", "at most 0.35", "0.25")
    assert found.left_out == ["the same of PEFT's LoRA, r = 8: peft-lora-8 or bare was not measured"]


def test_a_page_escapes_and_says_what_is_wrong() -> None:
    section = Section("a", "<b>", "&", ("x",), [("<i>",)], left_out=["<u>: no time"])
    report = {"machine": {"card": "<card>", "torch": "2"}, "measured": "2025-01-31", "seconds": 3.0, "quick": False}
    text = page(report, [section], ["<wrong>"])
    assert "<h1>Circuits on &lt;card&gt;</h1>" in text
    assert "Left out: 1" in text
    for word in ("<b>", "<i>", "<u>", "<wrong>", "<card>"):
        assert word not in text
