"""What is to be run next, given the runs that are finished. All functions are pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
"""A finished run as it stands in the results."""

SEARCH_SEED = 0
SEEDS = (1, 2, 3)
"""Of the final runs; none is the seed of the search."""
GRID = tuple(float(f"{digit}e{exponent}") for exponent in range(-6, 0) for digit in (1, 3))
"""Learning rates in half steps of ten. The search never leaves them."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: a method with a learning rate and a seed, in the search or in the final comparison."""

    stage: str
    method: str
    rate: float
    seed: int

    def is_of(self, record: Record) -> bool:
        """Say whether a record is of this run."""
        return all(record[name] == getattr(self, name) for name in ("stage", "method", "rate", "seed"))


def searched(method: str, records: Sequence[Record]) -> list[Record]:
    """Return the runs of a method's search."""
    return [record for record in records if record["stage"] == "search" and record["method"] == method]


def best(records: Sequence[Record]) -> Record:
    """Return the run of best validation accuracy, ties going to the lower loss."""

    def merit(record: Record) -> tuple[float, float]:
        loss = record["validation"]["loss"]
        return record["validation"]["accuracy"], -float("inf") if loss is None else -loss

    return max(records, key=merit)


def next_rate(middle: float, records: Sequence[Record]) -> float | None:
    """Return the next learning rate of a search that has these runs; None where it has ended.

    The middle rate comes first, then the one below and the one above. The grid is widened, by one rate at a time, as
    long as its best rate stands at its edge.
    """
    place = GRID.index(middle)
    tried = {record["rate"] for record in records}
    for candidate in (place, place - 1, place + 1):
        if GRID[candidate] not in tried:
            return GRID[candidate]
    chosen = GRID.index(best(records)["rate"])
    for neighbour in (chosen - 1, chosen + 1):
        if 0 <= neighbour < len(GRID) and GRID[neighbour] not in tried:
            return GRID[neighbour]
    return None


def next_run(middles: Mapping[str, float], core: int, records: Sequence[Record]) -> Run | None:
    """Return the run that comes next; None where all are done.

    The first `core` methods are searched, all of them rate by rate, and run with the first seed; then the others; then
    all of them with the second seed, then with the third.

    Args:
        middles: the middle rate of the search of each method, in the order of the runs.
        core: how many methods come first.
        records: the finished runs.

    """
    methods = list(middles)
    for group in (methods[:core], methods[core:]):
        run = _next_search(group, middles, records) or _next_final(group, SEEDS[:1], records)
        if run:
            return run
    return _next_final(methods, SEEDS[1:], records)


def _next_search(group: Sequence[str], middles: Mapping[str, float], records: Sequence[Record]) -> Run | None:
    runs = {method: searched(method, records) for method in group}
    left = {method: rate for method in group if (rate := next_rate(middles[method], runs[method])) is not None}
    if not left:
        return None
    method = min(left, key=lambda one: len(runs[one]))
    return Run("search", method, left[method], SEARCH_SEED)


def _next_final(group: Sequence[str], seeds: Sequence[int], records: Sequence[Record]) -> Run | None:
    for seed in seeds:
        for method in group:
            rate: float = best(searched(method, records))["rate"]
            run = Run("final", method, rate, seed)
            if not any(run.is_of(record) for record in records):
                return run
    return None


def runs_left(middles: Mapping[str, float], core: int, records: Sequence[Record]) -> Iterator[Run]:
    """Yield the runs that are left in their order, as far as it is known.

    Where a search has not ended, its middle rate is taken to be the best, so that more runs may come than these.
    """
    supposed = list(records)
    while run := next_run(middles, core, supposed):
        yield run
        # Between no accuracy at all and the middle rate's, unless that has been measured.
        accuracy = 1e-3 if run.rate == middles[run.method] else -1.0
        figures = {"stage": run.stage, "method": run.method, "rate": run.rate, "seed": run.seed}
        supposed.append({**figures, "validation": {"accuracy": accuracy, "loss": 0.0}})


def expected_seconds(run: Run, rows: int, records: Sequence[Record]) -> float | None:
    """Return about how long a run takes, from runs of its method, or else of all; None where there are none.

    A run of the search is about a third as long as a final one; the median of what a training row took is scaled.
    """
    for known in ([record for record in records if record["method"] == run.method], records):
        same = [record for record in known if record["stage"] == run.stage] or known
        if same:
            return rows * float(statistics.median(record["seconds"] / record["rows"] for record in same))
    return None
