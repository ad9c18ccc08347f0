"""The ways to an orthogonal matrix, time and distance from orthogonal by the size: the figures of docs/benchmarks.md.

    python tests/benchmarks/maps.py [--largest 4096] [--seconds 60] [--threads 1] [-o DIR]

What Quantum-PEFT compares: every `map` of `kind: orthogonal`, and `kind: pauli`, of one layer, make a square matrix of
4 to 4096 rows in float32, on the `torch` backend: `operator()`, and its backward to what is stored. Numbers below the
diagonal are drawn with deviation 0.5/sqrt(n), by which the largest singular value of S is about 1; angles of `pauli`
with deviation 1. At each size all run in turn in one process, in an order shuffled for each round; medians. A map whose
one pass is expected to take more than the limit (eight times that of half the size), or to keep more than 4 GiB for
backward, is left out.

The error is the root of the mean of |Q^T Q x - x|^2 over unit vectors x, in float64 from the matrix in float32. With
`-o` the table, its data and the picture are DIR/maps.md, DIR/maps.json and DIR/maps.svg.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quanta_compiler.bench.timing import WIDE_SPREAD, Job, measure
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kinds.maps import MAPS
from quanta_compiler.pages.plots import logarithmic, render
from quanta_compiler.report.palette import FAMILIES
from quanta_compiler.system.files import write_file
from quanta_compiler.system.machine import Load, describe_machine
from quanta_compiler.text.quantities import figure_text, seconds_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = (*MAPS, "pauli")
SIZES = tuple(2**power for power in range(2, 13))
MOST_BYTES = 4 << 30
ROUND_SECONDS = 20.0
"""What all rounds of a size may take, beyond the first."""
VECTORS = 64


@dataclass(frozen=True)
class Result:
    """A way at a size; `reason` says why it was left out."""

    name: str
    size: int
    numbers: int
    seconds: float | None = None
    spread: float | None = None
    rounds: int = 0
    error: float | None = None
    reason: str | None = None


def circuit_of(name: str, size: int) -> CompiledCircuit:
    """Return the circuit of one gate."""
    keys = {"kind": "pauli"} if name == "pauli" else {"kind": "orthogonal", "map": name}
    gates = [{"axes": [0], **keys}]
    return compile_circuit({"version": 1, "name": f"{name}-{size}", "layout": size, "gates": gates}, tokens=1)


def drawn_module(name: str, circuit: CompiledCircuit) -> Any:
    """Return its module with random numbers."""
    module = circuit.module(backend="torch")
    size = circuit.spec.in_features
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(
                0, 1 if name == "pauli" else 0.5 / math.sqrt(size), generator=torch.Generator().manual_seed(0)
            )
    return module


def unitarity_error(matrix: torch.Tensor) -> float:
    """Return how far Q^T Q takes unit vectors, at random."""
    generator = torch.Generator().manual_seed(1)
    wide = matrix.detach().double()
    vectors = torch.nn.functional.normalize(
        torch.randn(len(matrix), VECTORS, generator=generator, dtype=torch.float64), dim=0
    )
    return float((wide.mT @ (wide @ vectors) - vectors).square().sum(0).mean().sqrt())


def step(module: Any, gradient: torch.Tensor) -> None:
    """Make the matrix and take its gradient back to what is stored."""
    torch.autograd.grad(module.operator(), list(module.parameters()), gradient)


def repeated(run: Callable[[], object], count: int) -> None:
    for _ in range(count):
        run()


def measured(size: int, before: dict[str, float], limit: float) -> list[Result]:
    """Measure all ways at a size; `before` is what they took at half of it, and gets what they take."""
    found: list[Result] = []
    jobs, modules, counts = [], {}, {}
    gradient = torch.randn(size, size, generator=torch.Generator().manual_seed(2))
    for name in NAMES:
        circuit = circuit_of(name, size)
        counts[name] = circuit.report.parameters.trainable
        kept, expected = circuit.report.apply.saved_bytes_per_token, 8 * before.get(name, 0.0)
        if name != "pauli" and (kept > MOST_BYTES or expected > limit):
            reason = f"keeps {kept / 2**30:.0f} GiB" if kept > MOST_BYTES else f"about {seconds_text(expected)}"
            found.append(Result(name, size, counts[name], reason=reason))
            before[name] = expected
            continue
        modules[name] = drawn_module(name, circuit)
        start = time.perf_counter()
        step(modules[name], gradient)
        before[name] = time.perf_counter() - start
        jobs.append(Job(name, partial(repeated, partial(step, modules[name], gradient))))
    one_round = sum(before[name] for name in modules)
    rounds = max(1, min(101, int(ROUND_SECONDS / one_round)))
    timings = measure(jobs, rounds)
    for name, module in modules.items():
        with torch.no_grad():
            error = unitarity_error(module.operator())
        timing = timings[name]
        before[name] = timing.seconds_median
        found.append(Result(name, size, counts[name], timing.seconds_median, timing.spread, rounds, error))
    return found


def markdown(data: dict[str, Any], results: list[Result]) -> str:
    """Return the figures as tables."""
    machine, crowd = data["machine"], data["others_cores"]
    by = {(one.name, one.size): one for one in results}
    sizes = sorted({one.size for one in results})
    head = [f"| n | {' | '.join(f'`{name}`' for name in NAMES)} |", "|--:|" + "--:|" * len(NAMES)]
    lines = [
        "# The ways to an orthogonal matrix",
        "",
        "Made by `python tests/benchmarks/maps.py -o docs/figures`.",
        "",
        f"{data['date']}, {machine['processor']}, {data['threads']} of {machine['cores']} cores, torch "
        f"{machine['torch']}, float32"
        + ("" if crowd is None else f"; other programs kept {crowd:.2f} cores busy")
        + ".",
        "",
        "Making an n x n matrix and its backward, ms, the median of the rounds:",
        "",
        f"{head[0]} rounds |",
        f"{head[1]}--:|",
    ]
    for size in sizes:
        row = [by[name, size] for name in NAMES]
        cells = [one.reason or figure_text(1e3 * (one.seconds or 0)) for one in row]
        lines.append(f"| {size} | {' | '.join(cells)} | {max(one.rounds for one in row)} |")
    lines += ["", "Distance from orthogonal, the root mean square of |Q^T Q x - x| over unit vectors:", "", *head]
    for size in sizes:
        errors = [by[name, size].error for name in NAMES]
        shown = " | ".join("" if error is None else f"{error:.1e}" for error in errors)
        lines.append(f"| {size} | {shown} |")
    lines += ["", "Trained numbers:", "", "| n | of each map | `pauli` |", "|--:|--:|--:|"]
    lines += [f"| {size} | {by[NAMES[0], size].numbers:,} | {by['pauli', size].numbers} |" for size in sizes]
    spreads = [one.spread for one in results if one.spread is not None and one.rounds > 1]
    wide = sum(spread > WIDE_SPREAD for spread in spreads)
    lines += ["", f"Of {len(spreads)} medians {wide} have quartiles more than {WIDE_SPREAD:.0%} apart."]
    return "\n".join(lines) + "\n"


def picture(results: list[Result]) -> Figure:
    """Draw time and error against the size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = ("Making the matrix, forward + backward, ms", "Distance from orthogonal")
    for axes, title, value in zip(panels, titles, ("seconds", "error"), strict=True):
        for place, name in enumerate(NAMES):
            points = [
                (one.size, (1e3 if value == "seconds" else 1) * max(getattr(one, value), 1e-9))
                for one in results
                if one.name == name and getattr(one, value) is not None
            ]
            style = "--" if MAPS.get(name) is not None and MAPS[name].terms is not None else "-"
            axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, color=FAMILIES[place], label=name)
        axes.set(title=title, xlabel="n")
        logarithmic(axes, "x")
        logarithmic(axes, "y")
        axes.grid(visible=True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(NAMES))
    return figure


def main() -> None:
    """Measure, and print or write the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--seconds", type=float, default=60.0, help="the longest pass")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load, before, results = Load(), dict[str, float](), list[Result]()
    for size in (size for size in SIZES if size <= options.largest):
        results += measured(size, before, options.seconds)
        print(f"{size}: {sum(before.values()):.3g} s a round", file=sys.stderr)
    data = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "threads": options.threads,
        "others_cores": load.others(),
        "results": [asdict(one) for one in results],
    }
    text = markdown(data, results)
    if options.output is None:
        print(text, end="")
        return
    write_file(options.output / "maps.md", text.encode())
    write_file(options.output / "maps.json", (json.dumps(data, indent=1) + "\n").encode())
    write_file(options.output / "maps.svg", render(partial(picture, results), "svg"))


if __name__ == "__main__":
    main()
