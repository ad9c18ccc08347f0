"""Rounds, repetitions, medians and spreads, on a clock that only the jobs move."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from quanta_compiler.bench import timing
from quanta_compiler.bench.timing import Job, measure, summary


class Clock:
    """Stands still but for what jobs take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[tuple[str, int]] = []

    def __call__(self) -> float:
        return self.now

    def job(self, name: str, seconds: Callable[[], float]) -> Job:
        def run(count: int) -> None:
            self.runs.append((name, count))
            self.now += sum(seconds() for _ in range(count))

        return Job(name, run)


def constant(seconds: float) -> Callable[[], float]:
    return lambda: seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 2e-3)
    return Clock()


def test_medians_are_of_one_repetition(clock: Clock) -> None:
    jobs = [clock.job(name, constant(seconds)) for name, seconds in {"fast": 1e-5, "slow": 0.5}.items()]
    timings = measure(jobs, 5, clock=clock)
    assert timings["fast"].seconds_median == pytest.approx(1e-5)
    assert timings["slow"].seconds_median == pytest.approx(0.5)
    assert timings["slow"].spread == pytest.approx(0)


def test_a_sample_takes_at_least_two_milliseconds_and_a_slow_job_runs_once(clock: Clock) -> None:
    jobs = [clock.job(name, constant(seconds)) for name, seconds in {"fast": 1e-5, "slow": 0.5}.items()]
    timings = measure(jobs, 3, clock=clock)
    assert timings["slow"].repetitions == 1
    assert 200 <= timings["fast"].repetitions <= 300


def test_a_clock_that_does_not_move_is_no_endless_loop(clock: Clock) -> None:
    found = measure([clock.job("nothing", constant(0.0))], 2, clock=clock)["nothing"]
    assert (found.seconds_median, found.spread) == (0.0, 0.0)


def test_every_job_is_measured_once_a_round_in_changing_order(clock: Clock) -> None:
    names = ["a", "b", "c", "d"]
    measure([clock.job(name, constant(1.0)) for name in names], 12, clock=clock)
    # Before the rounds each ran once, to find how often it is to be repeated.
    order = [name for name, _ in clock.runs][len(names) :]
    rounds = [tuple(order[place : place + len(names)]) for place in range(0, len(order), len(names))]
    assert len(rounds) == 12
    assert all(sorted(one) == names for one in rounds)
    assert len(set(rounds)) > 6
    # Everybody follows everybody else at some time.
    followers = {pair for one in rounds for pair in pairwise(one)}
    assert len(followers) == 12


def test_the_order_is_the_same_in_every_run(clock: Clock) -> None:
    jobs = [clock.job(name, constant(1.0)) for name in "abcdef"]
    measure(jobs, 3, clock=clock)
    once = clock.runs.copy()
    measure(jobs, 3, clock=clock)
    assert clock.runs == 2 * once


def test_progress_counts_samples(clock: Clock) -> None:
    counted: list[None] = []
    jobs = [clock.job(name, constant(1.0)) for name in "ab"]
    measure(jobs, 4, clock=clock, advance=lambda: counted.append(None))
    assert len(counted) == 8


def test_garbage_is_collected_between_rounds_alone(clock: Clock) -> None:
    seen: list[bool] = []
    measure([Job("a", lambda count: seen.append(gc.isenabled()))], 2, clock=clock)
    assert not any(seen[-2:])
    assert gc.isenabled()


def test_an_interruption_leaves_the_collector_on(clock: Clock) -> None:
    calls: Iterator[int] = iter(range(10))

    def run(count: int) -> None:
        clock.now += 1.0
        if next(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([Job("a", run)], 5, clock=clock)
    assert gc.isenabled()


def test_quartiles_and_spread() -> None:
    found = summary([4.0, 1.0, 3.0, 2.0, 5.0], 7)
    assert (found.seconds_median, found.seconds_quartiles, found.repetitions) == (3.0, (2.0, 4.0), 7)
    assert found.spread == pytest.approx(2 / 3)
    assert summary([2.0], 1).spread == 0.0
