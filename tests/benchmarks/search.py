"""How many layouts a second `quanta search` costs on one core, and how many the planner plans.

    python tests/benchmarks/search.py [--rounds 5] [--plans 20]

Layouts of 4096 -> 4096 with at most 50,000 parameters and gates on pairs of axes, enumerated and drawn; process time,
to which other programs matter little; medians. A layout is costed when its figures are known and it has been compared
with the front. Beside it, layouts of a front compiled: planned by `dp`, as a search does with its front alone. The
goal: 2,000 a second.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable

from quanta_compiler.driver import compile_circuit
from quanta_compiler.search.chunks import Chunk, Settings, branches, run_chunk
from quanta_compiler.search.explore import explore
from quanta_compiler.search.saved import circuit_document
from quanta_compiler.search.space import Limits, Space
from quanta_compiler.search.workers import Team, Workers

WIDTH = 4096
OBJECTIVES = ("freedom", "flops", "rank", "mixing")
LIMITS = Limits(parameters=50_000)


def settings(axes: int) -> Settings:
    """Return a search over layouts of one number of axes."""
    return Settings(Space(WIDTH, WIDTH, axes=(axes, axes), limits=LIMITS), OBJECTIVES)


def enumerated(axes: int) -> int:
    """Cost all layouts of at most 5 gates, of 6 where there are few; return their number."""
    one = settings(axes)
    families = range(len(branches(one.space)))
    most = 5 if axes == 5 else 6
    return sum(run_chunk(one, Chunk(gates, family)).seen for gates in range(1, most + 1) for family in families)


def drawn(axes: int) -> int:
    """Cost a sample of longer ones; return its size."""
    return run_chunk(settings(axes), Chunk(5, None, expected=8_000)).seen


def rate(run: Callable[[int], int], axes: int, rounds: int) -> tuple[int, float]:
    """Return how many layouts were costed, and the median of how many a second."""
    rates = []
    for _ in range(rounds):
        start = time.process_time()
        count = run(axes)
        rates.append(count / (time.process_time() - start))
    return count, statistics.median(rates)


def planned(axes: int, plans: int) -> float:
    """Return how many layouts of a front with 4 gates or more a second are compiled, drawn with a seed."""
    one = Settings(Space(WIDTH, WIDTH, axes=(axes, axes), gates=(4, 10), limits=LIMITS), OBJECTIVES, candidates=20_000)
    front = explore(one, Team(None, Workers())).front
    chosen = random.Random(0).choices(front, k=plans)
    start = time.process_time()
    for candidate in chosen:
        compile_circuit(circuit_document(one.space, candidate))
    return plans / (time.process_time() - start)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plans", type=int, default=20)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, one core, Python {platform.python_version()}\n")
    print("| axes | enumerated | a second | drawn | a second | planned a second |")
    print("|--:|--:|--:|--:|--:|--:|")
    for axes in (4, 5):
        first, one = rate(enumerated, axes, options.rounds)
        second, other = rate(drawn, axes, options.rounds)
        plans = planned(axes, options.plans)
        print(f"| {axes} | {first:,} | {one:,.0f} | {second:,} | {other:,.0f} | {plans:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
