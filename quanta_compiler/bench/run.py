"""The measurement: do the contestants agree, what do they keep in memory, and how long do they take."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from quanta_compiler.bench import memory
from quanta_compiler.bench.agreement import TOLERANCES, errors, expected_results
from quanta_compiler.bench.contestants import Contestant, Setting, draw_gates
from quanta_compiler.bench.limits import Limits, limit_jobs, limits_of
from quanta_compiler.bench.options import BARE, FORWARD, OPERATOR, TRAINING, Options
from quanta_compiler.bench.result import Bench, ContestantFigures, LeftOut, ModeFigures, Section
from quanta_compiler.bench.roster import Entry, Group, Roster, batch_of
from quanta_compiler.bench.threads import torch_threads
from quanta_compiler.bench.timing import Clock, Job, Timing, measure, trial
from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.system.extras import PEFT, require
from quanta_compiler.system.machine import Load, describe_machine
from quanta_compiler.text.console import Progress

PATIENCE_SECONDS, PATIENCE_RATIO = 3.0, 20.0
"""What takes longer than both, the second times as long as its base, is run once and left out."""


def bench(
    compiled: CompiledCircuit,
    options: Options,
    *,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
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
        groups = [roster.circuit_group()]
        if options.adapters:
            groups.append(roster.adapter_group())
        entries = [entry for group in groups for entry in group.entries]
        x, gradient = batch_of(setting)
        _compare(entries, setting, options, x, gradient)
        jobs = limit_jobs(setting.tokens, setting.features, dtype)
        trial(jobs, clock)
        for group in groups:
            roster.left_out += _drop_slow(group, x, gradient, clock)
        for entry in entries:
            _measure_memory(entry, x, gradient)
            jobs += _jobs(entry, x, gradient)
        progress.begin("samples", len(jobs) * options.rounds)
        load = Load()
        timings = measure(jobs, options.rounds, clock=clock, advance=progress.advance)
        others = load.others()
        limits = limits_of(timings, setting.tokens, setting.features, dtype)
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
            tolerance=TOLERANCES[options.dtype],
            sections=tuple(_section(group, limits, timings) for group in groups if group.entries),
            left_out=tuple(roster.left_out),
        )


def _compare(
    entries: Sequence[Entry], setting: Setting, options: Options, x: torch.Tensor, gradient: torch.Tensor
) -> None:
    """Find how far everybody who computes the circuit is from the float64 module; what is wrong is not timed."""
    expected = expected_results(setting, x, gradient)
    tolerance = TOLERANCES[options.dtype]
    for entry in entries:
        if entry.contestant.is_circuit:
            entry.errors = errors(entry.contestant, expected, x, entry.modes)
            # An error that is no number is not within anything.
            entry.wrong = [mode for mode in entry.modes if not entry.errors[mode] <= tolerance]
            entry.modes = [mode for mode in entry.modes if mode not in entry.wrong]


def _drop_slow(group: Group, x: torch.Tensor, gradient: torch.Tensor, clock: Clock) -> list[LeftOut]:
    """Run everything once; what is far slower than the base and takes seconds is told, and not run again."""
    base: dict[str, float] = {}
    left_out = []
    for entry in group.entries:
        for job, mode in zip(_jobs(entry, x, gradient), entry.modes, strict=True):
            seconds = trial([job], clock)[job.key]
            if entry is group.entries[0]:
                base[mode] = seconds
            elif seconds > PATIENCE_SECONDS and seconds > PATIENCE_RATIO * base.get(mode, 0.0):
                reason = f"one pass takes {seconds:.0f} s: too long to repeat"
                # Whoever is slow forward is slower backward.
                whole = mode == FORWARD
                left_out.append(LeftOut(entry.contestant.name, None if whole else mode, reason))
                entry.modes = [] if whole else [one for one in entry.modes if one != mode]
                if whole:
                    break
    return left_out


def _measure_memory(entry: Entry, x: torch.Tensor, gradient: torch.Tensor) -> None:
    contestant = entry.contestant
    if FORWARD in entry.modes:
        entry.peak_bytes[FORWARD] = memory.peak_forward_bytes(contestant, x)
    if TRAINING in entry.modes:
        entry.peak_bytes[TRAINING] = memory.peak_training_bytes(contestant, x, gradient)
        entry.saved_bytes = memory.saved_bytes(contestant, x)
    if OPERATOR in entry.modes:
        entry.peak_bytes[OPERATOR] = memory.peak_operator_bytes(contestant)


def _jobs(entry: Entry, x: torch.Tensor, gradient: torch.Tensor) -> list[Job]:
    contestant = entry.contestant
    inputs = memory.training_inputs(contestant, x)

    def forward(count: int) -> None:
        with torch.no_grad():
            for _ in range(count):
                contestant.forward(x)

    def training(count: int) -> None:
        for _ in range(count):
            memory.run_training(contestant, inputs, gradient)

    def operator(count: int) -> None:
        assert contestant.operator is not None
        with torch.no_grad():
            for _ in range(count):
                contestant.operator()

    runs = {FORWARD: forward, TRAINING: training, OPERATOR: operator}
    return [Job((contestant.name, mode), runs[mode]) for mode in entry.modes]


def _section(group: Group, limits: Limits, timings: Mapping[Any, Timing]) -> Section:
    base = group.entries[0].contestant.name
    figures = []
    for entry in (entry for entry in group.entries if entry.modes or entry.wrong):
        modes = {mode: _figures(entry, mode, base, limits, timings) for mode in entry.modes}
        figures.append(
            ContestantFigures(
                name=entry.contestant.name,
                title=entry.contestant.title,
                trained_parameters=sum(parameter.numel() for parameter in entry.contestant.parameters),
                saved_bytes=entry.saved_bytes,
                errors=entry.errors,
                wrong=tuple(entry.wrong),
                modes=modes,
            )
        )
    return Section(group.name, base, group.ratio_key, tuple(figures))


def _figures(entry: Entry, mode: str, base: str, limits: Limits, timings: Mapping[Any, Timing]) -> ModeFigures:
    contestant: Contestant = entry.contestant
    timing = timings[contestant.name, mode]
    compared = timings.get((base, mode))
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
        peak_bytes=entry.peak_bytes[mode],
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
