"""What predicted times are made of, measured on one device: operations by shape, launches, the kernel's loops."""

import datetime
import math
import random
from dataclasses import dataclass, replace
from functools import partial

import torch

from quanta_compiler.bench.devices import clock_for, device_name, find_device, working_on
from quanta_compiler.bench.operations import GPU_EFFORT, Effort, Key, Maker, Run, grids, operation_jobs, restart_seconds
from quanta_compiler.bench.small_modules import (
    FORWARD,
    RECORDED,
    STEP,
    call_jobs,
    call_work,
    engine_jobs,
    fitted_engine,
)
from quanta_compiler.bench.timing import Clock, Job, repetitions, seconds_of_run, torch_threads
from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.times import seconds_of
from quanta_compiler.text.console import Progress


@dataclass(slots=True)
class Sampler:
    """Times what is run on a device: the least of some samples, since what disturbs only takes longer."""

    device: torch.device
    effort: Effort
    clock: Clock

    def seconds(self, run: Run) -> float:
        """Return the seconds of one run, warmed up."""
        job = Job(run, partial(_repeat, run))
        job.run(1)
        count = repetitions(job, self.clock, self.effort.sample_seconds)
        samples = [seconds_of_run(job, count, self.clock) for _ in range(self.effort.samples)]
        return max(1e-9, min(samples) / count)


def _repeat(run: Run, count: int) -> None:
    for _ in range(count):
        run()


def calibrate(
    device: str = "cpu", threads: int | None = None, *, effort: Effort | None = None, progress: Progress | None = None
) -> Calibration:
    """Measure a device; on a CPU with `threads` threads (default: as many as torch takes).

    Raises:
        DeviceError: torch has no such device here.

    """
    place = find_device(device)
    effort = effort or (GPU_EFFORT if place.type == "cuda" else Effort())
    is_cpu = place.type == "cpu"
    with torch_threads(threads), working_on(place):
        seconds = _measured(Sampler(place, effort, clock_for(place)), progress or Progress())
        count = torch.get_num_threads() if is_cpu else 1
        shapes = grids(effort, seconds)
        found = Calibration(
            device=place.type,
            name=device_name(place),
            threads=count,
            torch=torch.__version__,
            measured=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            fresh=max(0.0, seconds["fresh", ()] - seconds["filled", ()]) / effort.fresh_bytes,
            gathered=seconds["gathered", ()] / math.prod(effort.gathered),
            kernel=fitted_engine(effort, seconds, place.type, count),
            grids=shapes,
            restart=restart_seconds(effort, seconds, shapes),
        )
        return _with_calls(found, seconds)


def _measured(sampler: Sampler, progress: Progress) -> dict[Key, float]:
    effort = sampler.effort
    jobs: list[tuple[Key, Maker]] = [*operation_jobs(effort), *call_jobs(), *engine_jobs(effort, sampler.device.type)]
    progress.begin("samples", effort.rounds * len(jobs))
    found: dict[Key, float] = {}
    for turn in range(effort.rounds):
        for key, make in random.Random(turn).sample(jobs, len(jobs)):
            found[key] = min(found.get(key, float("inf")), sampler.seconds(make(sampler.device)))
            progress.advance()
    return found


def _with_calls(found: Calibration, seconds: dict[Key, float]) -> Calibration:
    """Add what calling an operation takes: a module of many small steps, less what these take by themselves."""
    work = call_work()
    forward, recorded, step = (seconds["calls", (kind,)] for kind in (FORWARD, RECORDED, STEP))
    there, back = (sum(seconds_of(one, found) for one in side) for side in (work.forward, work.backward))
    if found.device == "cuda":
        # They run while the next ones are called, and take no time of their own.
        there = back = 0.0
    return replace(
        found,
        forward_launch=max(0.0, forward - there) / len(work.forward),
        recording=max(0.0, recorded - forward) / len(work.forward),
        backward_launch=max(0.0, step - recorded - back) / len(work.backward),
    )
