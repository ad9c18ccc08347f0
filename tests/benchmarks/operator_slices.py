"""How long `operator()` takes and how much memory, slice by slice, beside building it at once and beside opt_einsum.

    python tests/benchmarks/operator_slices.py [--rounds 9] [--threads 1] [--layouts 16x8x8x4 8x8x8x8]

Circuits with a gate for every pair of axes, in float32. *At once* is the same plan without a loop, as the module gives
it to compilers; opt_einsum contracts the gates by `dp`, planned once, and its result is made contiguous. All are run in
turn in one process; medians. Prints one table in Markdown: peak is what is alive at once by the matrix's own size.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import opt_einsum
import torch

import quanta_compiler as qc

sys.path.insert(0, str(Path(__file__).parents[1]))
from compiled_circuits import peak_meter
from random_circuits import file_of

LAYOUTS = ("16x8x8x4", "16x16x16", "8x8x8x8", "16x16x4x4", "16x8x8x5", "16x8x8x8", "8x8x4x4x4")
Builder = Callable[[], torch.Tensor]


def opt_einsum_operator(compiled: qc.CompiledCircuit, module: Any) -> Builder:
    """Return what contracts the gates of a circuit of dense gates by opt_einsum."""
    spec, report = compiled.spec, compiled.report.operator
    shapes = [[axis.size for axis in (*gate.to, *gate.axes)] for gate in spec.gates]
    contract = opt_einsum.contract_expression(report.einsum, *shapes, optimize="dp")
    pairs = zip(spec.gates, shapes, strict=True)
    gates = [module.get_parameter(f"gates.{gate.name}").view(shape) for gate, shape in pairs]

    def build() -> torch.Tensor:
        result: torch.Tensor = contract(*gates)
        return result.reshape(spec.out_features, spec.in_features).contiguous()

    return build


def peak(module: Any, build: Builder, gradient: torch.Tensor | None) -> float:
    """Return the most that is alive at once by the matrix's size; with a gradient, backward included, it itself not."""
    held = () if gradient is None else (gradient,)
    with torch.set_grad_enabled(gradient is not None), peak_meter(module, *held) as meter:
        built = build()
        if gradient is not None:
            torch.autograd.backward(built, gradient)
    return float(meter.peak / built.nbytes)


def seconds(builders: list[Builder], rounds: int, gradient: torch.Tensor | None) -> list[float]:
    """Return the median time of each, run in turn; with a gradient, backward included."""
    taken: list[list[float]] = [[] for _ in builders]
    for turn in range(rounds + 1):
        for times, build in zip(taken, builders, strict=True):
            start = time.perf_counter()
            with torch.set_grad_enabled(gradient is not None):
                built = build()
            if gradient is not None:
                torch.autograd.backward(built, gradient)
            del built
            if turn > 0:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def row(layout: str, rounds: int) -> str:
    """Measure one circuit."""
    compiled = qc.compile_circuit(file_of(layout, ["all_pairs"]))
    module: Any = compiled.module(backend="torch")
    gradient = torch.ones(compiled.spec.out_features, compiled.spec.in_features)
    ours: list[Builder] = [module.operator, module._operator_at_once]
    with torch.no_grad():
        theirs = opt_einsum_operator(compiled, module)
        assert torch.allclose(module.operator(), theirs(), rtol=1e-3, atol=1e-6)
    sliced, at_once, einsum = seconds([*ours, theirs], rounds, None)
    trained, trained_at_once = seconds(ours, rounds, gradient)
    cells = [
        layout,
        str(compiled.report.operator.slices),
        f"{1e3 * sliced:.0f}",
        f"{at_once / sliced:.2f}",
        f"{einsum / sliced:.2f}",
        *(f"{peak(module, build, None):.2f}" for build in ours),
        f"{1e3 * trained:.0f}",
        f"{trained_at_once / trained:.2f}",
        *(f"{peak(module, build, gradient):.2f}" for build in ours),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure every layout and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threads = f"{options.threads} thread" + ("s" if options.threads > 1 else "")
    print(f"{platform.machine()}, {threads}, torch {torch.__version__}, float32, median of {options.rounds}")
    print()
    heads = ["layout", "slices", "ms", "at once", "opt_einsum", "peak", "at once"]
    heads += ["with backward, ms", "at once", "peak", "at once"]
    print(f"| {' | '.join(heads)} |")
    print(f"|---{'|--:' * (len(heads) - 1)}|")
    for layout in options.layouts:
        print(row(layout, options.rounds), flush=True)


if __name__ == "__main__":
    main()
