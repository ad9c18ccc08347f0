"""How often `backend="auto"` takes the faster backend: `python tests/benchmarks/choice.py [--tokens N] [--threads N]`.

Every example circuit and a few shapes beside them run on `torch` and on `fused` in alternation; the ratio of the
medians, over forward and forward + backward, stands beside the one that the cost model predicts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch

import quanta_compiler as qc
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.predict.engines.cpu import predicted_ratio

EXAMPLES = Path(__file__).parents[2] / "examples"


def circuit(layout: str, *gates: Any) -> dict[str, Any]:
    return {"version": 1, "name": "c", "layout": layout, "gates": list(gates)}


def circuits() -> dict[str, Any]:
    """Return circuit files by name: the examples, many small gates, few large ones, and single matrices."""
    found: dict[str, Any] = {path.stem: path for path in sorted(EXAMPLES.glob("*.yaml"))}
    for layout in ("8x8x6", "6x4x4x4", "12x8x8", "4x4x4", "x".join("2" * 12), "16x8", "24x24", "32x32", "64x64"):
        found[f"all_pairs {layout}"] = circuit(layout, "all_pairs")
    for size in (64, 256, 512, 1024, 4096):
        found[f"dense {size}"] = circuit(str(size), [0])
    found["each 2^12"] = circuit("x".join("2" * 12), "each")
    found["brick 2^12 twice"] = circuit("x".join("2" * 12), {"pattern": "brick", "repeat": 2})
    found["diagonal 4096"] = circuit("4096", {"axes": [0], "kind": "diagonal"})
    found["diagonal and each 64x64"] = circuit("64x64", {"axes": [0, 1], "kind": "diagonal"}, "each")
    found["blocks 64x64"] = circuit("64x64", {"axes": [1], "per": [0]}, {"axes": [0], "per": [1]})
    found["lora 1024 r=8"] = circuit("1024", {"axes": [0], "kind": "lowrank", "rank": 8})
    found["lora 4096 r=64"] = circuit("4096", {"axes": [0], "kind": "lowrank", "rank": 64})
    return found


def alternate(runs: list[Callable[[], object]], seconds: float) -> list[float]:
    """Return the median seconds of each, run in turn for about so long."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    begun = time.perf_counter()
    while len(times[0]) < 3 or (time.perf_counter() - begun < seconds and len(times[0]) < 50):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [median(taken) for taken in times]


def measured_ratio(compiled: qc.CompiledCircuit, tokens: int, seconds: float) -> float:
    """Return the time of `fused` over that of `torch`: the geometric mean over forward and forward + backward."""
    modules = [compiled.module(backend=backend) for backend in ("fused", "torch")]
    x = torch.randn(tokens, compiled.spec.in_features, requires_grad=True)
    grad = torch.randn(tokens, compiled.spec.out_features)

    def forward(module: torch.nn.Module) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                module(x)

        return run

    def both(module: torch.nn.Module) -> Callable[[], object]:
        return lambda: torch.autograd.backward(module(x), grad, inputs=[x, *module.parameters()])

    ratios = []
    for kind in (forward, both):
        fused, plain = alternate([kind(module) for module in modules], seconds)
        ratios.append(fused / plain)
    return geometric_mean(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="for each pair of measurements")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"fused / torch on {options.tokens} tokens, {options.threads} threads")
    print(f"{'circuit':32} {'predicted':>9} {'measured':>9}")
    lost, right = [], 0
    for name, source in circuits().items():
        compiled = qc.compile_circuit(source, tokens=options.tokens)
        predicted = predicted_ratio(lower_table(compiled.circuit), options.tokens)
        measured = measured_ratio(compiled, options.tokens, options.seconds)
        agrees = (predicted < 1) == (measured < 1)
        right += agrees
        lost.append(max(measured if predicted < 1 else 1 / measured, 1.0))
        print(f"{name:32} {predicted:9.2f} {measured:9.2f}{'' if agrees else '  other way round'}", flush=True)
    print(f"right for {right} of {len(lost)}; time over that of the faster backend: ", end="")
    print(f"mean {geometric_mean(lost):.3f}, worst {max(lost):.2f}")


if __name__ == "__main__":
    main()
