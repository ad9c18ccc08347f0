"""A table of what there is so far: accuracies with their spread, and differences to LoRA with an interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from families import FAMILIES, REFERENCES, Family
from protocol import Record, best, searched
from tasks import VALIDATION_ROWS, Task

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""The quantiles of Student's t distribution at 97.5 %, by degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean of differences, and half the width of its 95 % interval; None where one difference says nothing of it."""

    mean: float
    half: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a method."""

    method: str
    family: Family
    validation: Mapping[float, float]
    """By learning rate, the best accuracy of the search."""
    rate: float | None
    test: Mapping[int, float]
    """By seed."""
    difference: Interval | None
    """To LoRA at the same budget, over the seeds that both have."""
    parameters: int | None
    cpu_seconds_per_step: float | None
    peak_bytes: int | None


def paired(accuracies: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """Return the difference over common seeds: its mean plus or minus t(n - 1) s / sqrt(n); None without any."""
    differences = [accuracies[seed] - reference[seed] for seed in sorted(accuracies.keys() & reference.keys())]
    if not differences:
        return None
    mean, count = statistics.fmean(differences), len(differences)
    if count == 1:
        return Interval(mean, None)
    return Interval(mean, STUDENT[count - 1] * statistics.stdev(differences) / math.sqrt(count))


def summarize(records: Sequence[Record]) -> list[Summary]:
    """Return a summary of every method that has a run, in the order of the families."""
    present = [method for method in FAMILIES if any(record["method"] == method for record in records)]
    tests = {method: _tests(method, records) for method in present}
    return [_summary(method, tests, records) for method in present]


def _tests(method: str, records: Sequence[Record]) -> dict[int, float]:
    final = [record for record in records if record["stage"] == "final" and record["method"] == method]
    return {record["seed"]: record["test"]["accuracy"] for record in final}


def _summary(method: str, tests: Mapping[str, Mapping[int, float]], records: Sequence[Record]) -> Summary:
    family, searches = FAMILIES[method], searched(method, records)
    runs = [record for record in records if record["method"] == method]
    reference = REFERENCES[family.budget]
    return Summary(
        method,
        family,
        {record["rate"]: record["validation"]["accuracy"] for record in searches},
        best(searches)["rate"] if searches else None,
        tests[method],
        None if method == reference else paired(tests[method], tests.get(reference, {})),
        runs[0]["parameters"],
        statistics.median(record["cpu_seconds_per_step"] for record in runs),
        max(record["peak_bytes"] for record in runs),
    )


def table(name: str, task: Task, records: Sequence[Record], speed: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table as Markdown, best accuracies first at each budget; `speed` is what `--speed` measured."""
    lines = [
        "| method | trained numbers | rate: validation accuracy (chosen in bold) | test accuracy | seeds "
        "| difference to LoRA | s per step | CPU s per step | peak memory |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    summaries = summarize(records)
    for budget, reference in REFERENCES.items():
        of_budget = [summary for summary in summaries if summary.family.budget == budget]
        if of_budget:
            lines.append(f"| **{budget}**, LoRA being `{reference}` | | | | | | | | |")
        lines += [_row(summary, speed.get(summary.method)) for summary in sorted(of_budget, key=_merit, reverse=True)]
    return "\n".join([*lines, "", *_legend(name, task, records)]) + "\n"


def _merit(summary: Summary) -> tuple[float, float]:
    tested = statistics.fmean(summary.test.values()) if summary.test else -1.0
    return tested, max(summary.validation.values(), default=-1.0)


def _row(summary: Summary, speed: Mapping[str, float] | None) -> str:
    searches = [
        f"**{rate:g}: {100 * accuracy:.1f}**" if rate == summary.rate else f"{rate:g}: {100 * accuracy:.1f}"
        for rate, accuracy in sorted(summary.validation.items())
    ]
    cells = [
        f"`{summary.method}`: {summary.family.summary}",
        f"{summary.parameters:,}",
        ", ".join(searches),
        _mean_and_spread(list(summary.test.values())),
        str(len(summary.test) or ""),
        _interval(summary.difference),
        "" if speed is None else f"{speed['median']:.3f}",
        f"{summary.cpu_seconds_per_step:.2f}",
        f"{(summary.peak_bytes or 0) / 2**20:,.0f} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def _mean_and_spread(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return ""
    spread = f" ± {100 * statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    return f"{100 * statistics.fmean(accuracies):.2f}{spread}"


def _interval(difference: Interval | None) -> str:
    if difference is None:
        return ""
    mean, half = 100 * difference.mean, difference.half
    interval = "" if half is None else f" [{mean - 100 * half:+.2f}, {mean + 100 * half:+.2f}]"
    return f"{mean:+.2f}{interval}"


def _legend(name: str, task: Task, records: Sequence[Record]) -> list[str]:
    machines = {
        f"{one['processor']}, {one['threads']} threads; torch {one['torch']}, transformers {one['transformers']}, "
        f"PEFT {one['peft']}, Python {one['python']}"
        for one in (record["machine"] for record in records)
    }
    days = sorted({record["ended"][:10] for record in records})
    return [
        f"`{name}`: {task.summary}? Made by `python examples/study/study.py --task {name} --table` from {len(records)} "
        "runs.",
        "",
        f"Accuracies in percent. The rate was chosen on {VALIDATION_ROWS:,} validation rows after one epoch of "
        f"{task.rows('search'):,} rows with one seed. Test accuracy: one epoch of {task.rows('final'):,} rows, mean ± "
        "standard deviation over the seeds. Difference: the mean over the seeds that both have, with Student's 95 % "
        "interval of the seeds; all runs have the same test rows, whose choice the interval does not cover. Trained "
        "numbers include the head. Seconds: median, all methods in turn in one process; CPU seconds: median over the "
        "runs, on a machine that others used too. Peak memory: "
        "of the process of a run, Python, torch and the frozen weights included.",
        "",
        *[f"Machine: {machine}." for machine in sorted(machines)],
        f"Run on {days[0]}{f' to {days[-1]}' if days[1:] else ''}." if days else "Nothing has been run.",
    ]
