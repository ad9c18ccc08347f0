"""Which steps of a plan are told in one line: the many small ones that make the matrices of rotations."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from quanta_compiler.report.report import Report, StepReport

FOLDED_STEPS = 6
"""So many small steps in a row are told in one line."""
SMALL_STEP = 16
"""How many times smaller than the largest a small step is, in numbers and in FLOPs."""


def folded_steps(report: Report, steps: Sequence[StepReport]) -> tuple[range, ...]:
    """Return the runs of small steps of one of a report's plans that one line tells, in order, as places from 0.

    Without rotations there are none: small steps then merge the gates themselves, and each is worth its line.
    """
    if not report.stores_angles:
        return ()
    runs: list[range] = []
    first = 0
    for is_small, run in groupby(steps, key=_smallness(steps)):
        end = first + len(list(run))
        if is_small and end - first >= FOLDED_STEPS:
            runs.append(range(first, end))
        first = end
    return tuple(runs)


def _smallness(steps: Sequence[StepReport]) -> Callable[[StepReport], bool]:
    """Return what tells small steps: neither their numbers nor their FLOPs are a sixteenth of the largest."""
    numbers = max((math.prod(step.shape) for step in steps), default=0)
    flops = max((step.flops for step in steps), default=0)
    return lambda step: SMALL_STEP * math.prod(step.shape) < numbers and SMALL_STEP * step.flops < max(1, flops)
