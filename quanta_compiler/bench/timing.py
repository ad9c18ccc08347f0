"""Time, measured in interleaved rounds: what else the machine does affects all jobs alike."""

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Clock = Callable[[], float]

SAMPLE_SECONDS = 2e-3
"""A sample takes at least this long: what is quicker is repeated within it."""
WIDE_SPREAD = 0.15
"""From this spread on a median is not to be believed."""
_MOST_REPETITIONS = 10_000


@dataclass(frozen=True, slots=True)
class Job:
    """Something to time: `run(n)` does it n times."""

    key: Hashable
    run: Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one repetition over the rounds."""

    seconds_median: float
    seconds_quartiles: tuple[float, float]
    repetitions: int
    """Within a sample."""

    @property
    def spread(self) -> float:
        """Return the distance of the quartiles, relative to the median."""
        low, high = self.seconds_quartiles
        return (high - low) / self.seconds_median if self.seconds_median else 0.0


def measure(
    jobs: Sequence[Job], rounds: int, *, clock: Clock = time.perf_counter, advance: Callable[[], None] = lambda: None
) -> dict[Hashable, Timing]:
    """Time every job once a round; `advance` is called after every sample.

    The jobs have run once before: nothing is warmed up here. Their order is shuffled anew for each round, not rotated,
    so that no job always follows the same one and finds what that left in the caches.
    """
    counts = {job.key: repetitions(job, clock, SAMPLE_SECONDS) for job in jobs}
    samples: dict[Hashable, list[float]] = {job.key: [] for job in jobs}
    collects = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            # What a round leaves is young; looking through all of torch's objects takes longer than most rounds.
            gc.collect(1)
            for job in random.Random(turn).sample(jobs, len(jobs)):
                count = counts[job.key]
                samples[job.key].append(seconds_of_run(job, count, clock) / count)
                advance()
    finally:
        if collects:
            gc.enable()
    return {key: summary(seconds, counts[key]) for key, seconds in samples.items()}


def repetitions(job: Job, clock: Clock, sample_seconds: float) -> int:
    """Return how often a job is repeated within a sample."""
    count = 1
    while (elapsed := seconds_of_run(job, count, clock)) < sample_seconds and count < _MOST_REPETITIONS:
        wanted = math.ceil(1.1 * count * sample_seconds / elapsed) if elapsed > 0 else _MOST_REPETITIONS
        count = min(_MOST_REPETITIONS, max(wanted, count + 1))
    return count


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads (None: as many as now), and as many as before afterwards."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of_run(job: Job, count: int, clock: Clock) -> float:
    """Return the seconds of `count` repetitions."""
    start = clock()
    job.run(count)
    return clock() - start


def summary(seconds: Sequence[float], repetitions: int) -> Timing:
    """Return the median and the quartiles of samples."""
    if len(seconds) == 1:
        return Timing(seconds[0], (seconds[0], seconds[0]), repetitions)
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(median, (low, high), repetitions)
