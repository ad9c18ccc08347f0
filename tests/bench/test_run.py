"""A whole measurement of small circuits: who takes part, what the figures say of each other, who is left out."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from mixed_circuit import MIXED
from random_circuits import file_of

from quanta_compiler.bench import ours, roster, run
from quanta_compiler.bench.contestants import Contestant, Setting, draw_gates
from quanta_compiler.bench.limits import COPY, MATMUL
from quanta_compiler.bench.options import FORWARD, LAYERS, MODES, OPERATOR, OURS, RIVALS, TRAINING, Options
from quanta_compiler.bench.result import Bench
from quanta_compiler.bench.roster import Roster
from quanta_compiler.bench.run import bench
from quanta_compiler.bench.timing import Job
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.system.machine import LimitError
from quanta_compiler.text.console import Progress

SMALL = file_of("4x4x2", ["all_pairs"])
QUICK = Options(rounds=2, threads=1)


def small(tokens: int = 8) -> CompiledCircuit:
    return compile_circuit(SMALL, tokens=tokens)


@pytest.fixture(scope="module")
def measured() -> Bench:
    return bench(small(), QUICK)


def names_of(result: Bench, section: int = 0) -> list[str]:
    return [one.name for one in result.sections[section].contestants]


def test_everybody_takes_part_or_is_told_why(measured: Bench) -> None:
    left_out = {one.name for one in measured.left_out}
    assert sorted(names_of(measured)) == sorted({*OURS, *RIVALS, *LAYERS} - left_out)
    # Of 32 features LoRA with r = 64 is more than a dense layer.
    assert {"lora-64"} <= left_out <= {"lora-64", "fused"}
    assert measured.wrong == ()


def test_ratios_are_those_of_the_medians(measured: Bench) -> None:
    (section,) = measured.sections
    assert section.base == section.contestants[0].name
    limits = measured.limits
    for one in section.contestants:
        for mode, figures in one.modes.items():
            base = measured.contestants[section.base].modes[mode].timing.seconds_median
            assert figures.ratio == pytest.approx(figures.timing.seconds_median / base)
            assert figures.flops is not None
            product = figures.flops * limits.matmul.seconds_median / (2 * 32**3)
            assert figures.matmul_limit_ratio == pytest.approx(figures.timing.seconds_median / product)
            low, high = figures.timing.seconds_quartiles
            assert low <= figures.timing.seconds_median <= high
    for mode, copies in {FORWARD: 1, TRAINING: 2}.items():
        figures = measured.contestants[section.base].modes[mode]
        copied = copies * limits.copy.seconds_median
        assert figures.copy_limit_ratio == pytest.approx(figures.timing.seconds_median / copied)
    assert measured.contestants[section.base].modes[OPERATOR].copy_limit_ratio is None


def test_limits_know_flops_and_bytes(measured: Bench) -> None:
    apply = small().report.apply
    assert measured.contestants["torch"].modes[FORWARD].flops == apply.flops_per_token * 8
    assert measured.contestants["torch"].modes[TRAINING].flops == 3 * apply.flops_per_token * 8
    assert measured.contestants["torch"].modes[OPERATOR].flops == small().report.operator.flops
    assert measured.limits.copy_bytes == 4 * 8 * (32 + 32)


def test_json_has_the_documented_keys(measured: Bench) -> None:
    data = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert list(data) == [
        *(
            "format",
            "circuit",
            "settings",
            "machine",
            "others_cores",
            "limits",
            "tolerance",
            "sections",
            "left_out",
            "too_wide",
        ),
    ]
    timing = {"seconds_median", "seconds_quartiles", "spread", "repetitions"}
    assert set(data["limits"]["matmul"]) == timing | {"side", "flops", "flops_per_second"}
    assert set(data["limits"]["copy"]) == timing | {"bytes", "bytes_per_second"}
    assert data["settings"] == {
        **{"device": "cpu", "tokens": 8, "dtype": "float32", "rounds": 2, "threads": 1, "caches": "not flushed"}
    }
    assert set(data["machine"]) >= {"processor", "cores", "system", "python", "torch", "opt_einsum", "peft"}
    (section,) = data["sections"]
    for one in section["contestants"]:
        assert set(one) == {
            *("name", "title", "trained_parameters", "saved_bytes", "relative_errors", "wrong", "modes"),
        }
        for figures in one["modes"].values():
            ratios = {"ratio_to_ours", "matmul_limit_ratio", "copy_limit_ratio"}
            assert set(figures) == timing | ratios | {"flops", "peak_bytes"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_dtypes(dtype: str) -> None:
    result = bench(small(), replace(QUICK, dtype=dtype))
    assert result.wrong == ()
    assert set(names_of(result)) >= {"torch", *RIVALS, "dense", "lora-8"}
    (saved,) = {one.saved_bytes for one in result.sections[0].contestants if one.name == "dense"}
    assert saved == 8 * 32 * getattr(torch, dtype).itemsize


def test_a_circuit_with_slices_has_no_einsum() -> None:
    result = bench(compile_circuit(MIXED, tokens=3), QUICK)
    assert {one.name for one in result.left_out} >= set(RIVALS)
    assert result.wrong == ()


def test_some_contestants_and_some_modes() -> None:
    result = bench(small(), replace(QUICK, only=("einsum", "lora-8"), modes=(FORWARD,)))
    ours_alone, *others = names_of(result)
    assert ours_alone in OURS
    assert others == ["einsum", "lora-8"]
    assert all(list(one.modes) == [FORWARD] for one in result.sections[0].contestants)
    assert all(one.saved_bytes is None for one in result.sections[0].contestants)


def test_one_token() -> None:
    assert bench(small(1), QUICK).wrong == ()


def test_torch_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    assert bench(small(), replace(QUICK, threads=2, only=())).settings["threads"] == 2
    assert torch.get_num_threads() == before


def _wrong(setting: Setting) -> Contestant:
    right = ours.our_contestant("torch", setting)
    return replace(right, name="opt-einsum", forward=lambda x: 1.01 * right.forward(x))


def test_who_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_makers(), "opt-einsum", _wrong)
    result = bench(small(), QUICK)
    assert [(name, mode) for name, mode, _ in result.wrong] == [("opt-einsum", FORWARD), ("opt-einsum", TRAINING)]
    assert [error for *_, error in result.wrong] == pytest.approx([0.01, 0.01], rel=0.01)
    assert list(result.contestants["opt-einsum"].modes) == [OPERATOR]


def test_wrong_gradients_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(setting: Setting) -> Contestant:
        right = ours.our_contestant("torch", setting)
        last = right.parameters[-1]
        return replace(right, name="einsum", forward=lambda x: right.forward(x) + 0.5 * (last - last.detach()).sum())

    monkeypatch.setitem(_makers(), "einsum", make)
    assert [(name, mode) for name, mode, _ in bench(small(), QUICK).wrong] == [("einsum", TRAINING)]


def test_what_is_no_number_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(setting: Setting) -> Contestant:
        right = ours.our_contestant("torch", setting)
        return replace(right, name="einsum", forward=lambda x: right.forward(x) * float("nan"))

    monkeypatch.setitem(_makers(), "einsum", make)
    result = bench(small(), QUICK)
    assert [(name, mode) for name, mode, _ in result.wrong] == [("einsum", FORWARD), ("einsum", TRAINING)]
    found = next(one for one in result.to_dict()["sections"][0]["contestants"] if one["name"] == "einsum")
    assert found["relative_errors"][FORWARD] is None


def _makers() -> Any:
    return roster._MAKERS


def test_what_has_no_room_is_left_out_and_ours_is_refused() -> None:
    circuit = small(2048)
    everything = bench(circuit, replace(QUICK, max_bytes=10**9, rounds=1))
    assert not [one for one in everything.left_out if "needs" in one.reason]
    ours_training = 2 * 2048 * (circuit.report.apply.peak_bytes_per_token + circuit.report.apply.saved_bytes_per_token)
    held = 2 * 4 * 2048 * 64 + 3 * 4 * 32**2
    less = bench(circuit, replace(QUICK, max_bytes=int(held + ours_training + 40_000), rounds=1))
    left_out = [one for one in less.left_out if "it needs about" in one.reason and "--max-bytes" in one.reason]
    assert ("einsum", TRAINING) in [(one.name, one.mode) for one in left_out]
    with pytest.raises(LimitError, match=r"on 2,048 tokens needs about .*MiB, but may take 100 KiB \(--max-bytes\)"):
        bench(circuit, replace(QUICK, max_bytes=102400))


def test_a_weight_without_room_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a weight was drawn")

    monkeypatch.setitem(_makers(), "dense", never)
    monkeypatch.setattr("quanta_compiler.bench.roster.frozen_weight", never)
    wide = compile_circuit(file_of("1024x1024", [[0], [1]]), tokens=1)
    setting = Setting(wide, torch.float32, {"g0": torch.zeros(1024, 1024), "g1": torch.zeros(1024, 1024)})
    taken = Roster(setting, Options(only=("dense", "peft-lora-8"), adapters=True, max_bytes=2**40))
    (ours_alone,) = taken.circuit_group()
    assert ours_alone.modes == [FORWARD, TRAINING]
    assert taken.adapter_group() == []
    # Its own matrix, too, takes 4 TiB.
    assert [(one.name, one.mode) for one in taken.left_out] == [
        (ours_alone.contestant.name, OPERATOR),
        ("dense", None),
        ("peft-lora-8", None),
    ]
    assert all("TiB" in one.reason for one in taken.left_out)


class SlowClock:
    """Moves only while one contestant runs, in one mode."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, mode: str) -> None:
        self.now = 0.0
        jobs_of = run._jobs

        def jobs(*arguments: Any) -> list[Job]:
            return [self._slow(job) if job.key == (name, mode) else job for job in jobs_of(*arguments)]

        monkeypatch.setattr(run, "_jobs", jobs)

    def _slow(self, job: Job) -> Job:
        def slow(count: int) -> None:
            job.run(count)
            self.now += 60.0 * count

        return Job(job.key, slow)

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now


@pytest.mark.parametrize(
    ("mode", "told", "left"),
    [(FORWARD, None, None), (TRAINING, TRAINING, [FORWARD, OPERATOR]), (OPERATOR, OPERATOR, [FORWARD, TRAINING])],
)
def test_what_takes_a_minute_is_run_once(
    mode: str, told: str | None, left: Sequence[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowClock(monkeypatch, "einsum", mode)
    result = bench(small(), replace(QUICK, only=("einsum",)), clock=clock)
    assert [(one.name, one.mode, one.reason) for one in result.left_out if one.name == "einsum"] == [
        ("einsum", told, "one pass takes 60 s: too long to repeat")
    ]
    assert clock.now < 70
    if left is None:
        assert "einsum" not in names_of(result)
    else:
        assert list(result.contestants["einsum"].modes) == left


def test_a_wide_spread_is_told() -> None:
    draw = random.Random(0)
    now = 0.0

    def jumpy() -> float:
        nonlocal now
        now += draw.choice((1e-3, 5e-3))
        return now

    result = bench(small(), replace(QUICK, rounds=9, only=("lora-8",)), clock=jumpy)
    wide = dict(result.wide_spreads())
    assert wide
    assert all(spread > 0.15 for spread in wide.values())
    assert [one["name"] for one in result.to_dict()["too_wide"]] == list(wide)
    assert bench(small(), replace(QUICK, only=()), clock=_steady()).wide_spreads() == ()


def _steady() -> Any:
    steps = iter(range(10**6))
    return lambda: float(next(steps))


def test_progress_counts_every_sample() -> None:
    class Counter(Progress):
        total = done = 0

        def begin(self, what: str, total: int | None = None) -> None:
            self.total = total or 0

        def advance(self, remark: str = "") -> None:
            self.done += 1

    counter = Counter()
    result = bench(small(), replace(QUICK, rounds=3, only=("lora-8",)), progress=counter)
    jobs = {MATMUL, COPY} | {(name, mode) for name in names_of(result) for mode in MODES}
    assert counter.done == counter.total == 3 * len(jobs)


@pytest.mark.parametrize("name", [*OURS, *RIVALS, "dense", "lora-8"])
def test_costs_are_not_far_below_what_a_pass_takes(name: str) -> None:
    """They are there to refuse in time."""
    circuit = small(256)
    setting = Setting(circuit, torch.float32, draw_gates(circuit, torch.float32))
    result = bench(circuit, replace(QUICK, rounds=1, only=(name,)))
    if name in {one.name for one in result.left_out}:
        pytest.skip("not here")
    costs = (ours.our_contestant(name, setting) if name in OURS else _makers()[name](setting)).costs
    batch = 2 * 4 * 256 * 32
    for mode, figures in result.contestants[name].modes.items():
        assert costs[mode].bytes + batch >= 0.8 * figures.peak_bytes, mode
