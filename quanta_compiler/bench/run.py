"""The measurement: do the contestants agree, what do they keep in memory, and how long do they take."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from quanta_compiler.bench.agreement import TOLERANCES, errors, expected_results
from quanta_compiler.bench.contestants import Batch, Contestant, Setting, draw_gates, runs
from quanta_compiler.bench.limits import Limits, limit_jobs, limits_of
from quanta_compiler.bench.memory import peak_bytes, saved_bytes
from quanta_compiler.bench.options import BARE, FORWARD, TRAINING, Options
from quanta_compiler.bench.result import Bench, ContestantFigures, LeftOut, ModeFigures, Section
from quanta_compiler.bench.roster import Entry, Group, Roster, batch_of
from quanta_compiler.bench.timing import Clock, Job, Timing, measure, seconds_of_run, torch_threads
from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.system.extras import PEFT, require
from quanta_compiler.system.machine import Load, describe_machine
from quanta_compiler.text.console import Progress
from quanta_compiler.text.quantities import seconds_text

PATIENCE_SECONDS, PATIENCE_RATIO = 3.0, 20.0
"""What takes longer than both, the second times as long as its base, is run once and left out."""


def bench(
    compiled: CompiledCircuit, options: Options, *, clock: Clock = time.perf_counter, progress: Progress | None = None
) -> Bench:
    """Measure a compiled circuit on the batch that it was planned for, beside everything in `options`.

    Raises:
        LimitError: the batch would need more memory than there is; nothing of that size has been allocated then.
        MissingExtraError: adapters are to be measured, and peft is not installed.

    """
    if options.adapters:
        require("measuring adapters", *PEFT)
    progress = progress or Progress()
    with torch_threads(options.threads):
        dtype: torch.dtype = getattr(torch, options.dtype)
        setting = Setting(compiled, dtype, draw_gates(compiled, dtype))
        roster = Roster(setting, options)
        groups = {"circuit": roster.circuit_group()}
        if options.adapters:
            groups["adapters"] = roster.adapter_group()
        entries = [entry for group in groups.values() for entry in group]
        batch = batch_of(setting)
        _compare(entries, setting, batch)
        jobs = limit_jobs(setting)
        for job in jobs:
            job.run(1)
        for group in groups.values():
            roster.left_out += _drop_slow(group, batch, clock)
        jobs += [job for entry in entries for job in _jobs(entry, batch)]
        progress.begin("samples", len(jobs) * options.rounds)
        load = Load()
        timings = measure(jobs, options.rounds, clock=clock, advance=progress.advance)
        others = load.others()
        limits = limits_of(timings, setting)
        return Bench(
            circuit=_circuit(compiled),
            settings={
                "tokens": setting.tokens,
                "dtype": options.dtype,
                "rounds": options.rounds,
                "threads": torch.get_num_threads(),
            },
            machine=describe_machine(),
            others_cores=others,
            limits=limits,
            tolerance=TOLERANCES[setting.dtype],
            sections=tuple(_section(name, group, limits, timings, batch) for name, group in groups.items() if group),
            left_out=tuple(roster.left_out),
        )


def _circuit(compiled: CompiledCircuit) -> dict[str, Any]:
    report = compiled.report
    return {
        "name": report.name,
        "in_features": report.in_features,
        "out_features": report.out_features,
        "layout": report.layout,
        "gates": len(report.gates),
        "trainable_parameters": report.parameters.trainable,
    }


def _compare(entries: Sequence[Entry], setting: Setting, batch: Batch) -> None:
    """Find how far each contestant that computes the circuit is from the float64 module; wrong modes are not timed."""
    expected = expected_results(setting, *batch)
    for entry in entries:
        if entry.contestant.is_circuit:
            entry.errors = errors(entry.contestant, expected, batch[0], entry.modes)
            # An error that is no number is not within anything.
            entry.wrong = [mode for mode in entry.modes if not entry.errors[mode] <= TOLERANCES[setting.dtype]]
            entry.modes = [mode for mode in entry.modes if mode not in entry.wrong]


def _drop_slow(group: Group, batch: Batch, clock: Clock) -> list[LeftOut]:
    """Run everything once; what is far slower than the base and takes seconds is left out."""
    base: dict[str, float] = {}
    left_out = []
    for entry in group:
        for job, mode in zip(_jobs(entry, batch), entry.modes, strict=True):
            seconds = seconds_of_run(job, 1, clock)
            if entry is group[0]:
                base[mode] = seconds
            elif seconds > PATIENCE_SECONDS and seconds > PATIENCE_RATIO * base.get(mode, 0.0):
                reason = f"one pass takes {seconds_text(seconds)}: too long to repeat"
                if mode == FORWARD:
                    # What is slow forward is slower backward.
                    left_out.append(LeftOut(entry.contestant.name, None, reason))
                    entry.modes = []
                    break
                left_out.append(LeftOut(entry.contestant.name, mode, reason))
                entry.modes = [one for one in entry.modes if one != mode]
    return left_out


def _jobs(entry: Entry, batch: Batch) -> list[Job]:
    run = runs(entry.contestant, *batch)
    return [Job((entry.contestant.name, mode), run[mode]) for mode in entry.modes]


def _section(name: str, group: Group, limits: Limits, timings: Mapping[Any, Timing], batch: Batch) -> Section:
    """Count the memory of a group, which has run by now, and put it beside the times."""
    base = group[0].contestant.name
    figures = []
    for entry in (entry for entry in group if entry.modes or entry.wrong):
        contestant = entry.contestant
        modes = {}
        for mode in entry.modes:
            peak = peak_bytes(contestant, mode, *batch)
            modes[mode] = _figures(contestant, mode, base, limits, timings, peak=peak)
        figures.append(
            ContestantFigures(
                name=contestant.name,
                title=contestant.title,
                trained_parameters=sum(parameter.numel() for parameter in contestant.parameters),
                saved_bytes=saved_bytes(contestant, batch[0]) if TRAINING in entry.modes else None,
                errors=entry.errors,
                wrong=tuple(entry.wrong),
                modes=modes,
            )
        )
    return Section(name, base, tuple(figures))


def _figures(
    contestant: Contestant, mode: str, base: str, limits: Limits, timings: Mapping[Any, Timing], *, peak: int
) -> ModeFigures:
    timing, compared = timings[contestant.name, mode], timings.get((base, mode))
    # What a layer with an adapter computes is a matter of its method: no limit is compared with it.
    is_limited = base != BARE
    flops = contestant.costs[mode].flops if is_limited else None
    copied = limits.copy_seconds(mode) if is_limited else None
    return ModeFigures(
        timing=timing,
        ratio=timing.seconds_median / compared.seconds_median if compared is not None else None,
        flops=flops,
        matmul_limit_ratio=timing.seconds_median / limits.matmul_seconds(flops) if flops else None,
        copy_limit_ratio=timing.seconds_median / copied if copied else None,
        peak_bytes=peak,
    )
