"""What making matrices takes, as ratios measured in turn in one process.

    python tests/benchmarks/making.py [--rounds 15] [--threads 1]

Prints one table in Markdown. `operator()` of QuanTA's 16x8x8x4, and merging it into a 4096 x 4096 weight, over its
FLOPs at the rate of one product of two 2048 x 2048 matrices. A step (forward and backward) of Quantum-PEFT over one of
LoRA, both of rank 8 and beside a frozen layer of 768 x 768, or alone, on 512 tokens. Medians of the rounds, quartiles
in brackets. With one thread the seconds are those of the process, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import quanta_compiler as qc
from quanta_compiler.peft import QuantaConfig

PRODUCT = 2048
"""The side of the matrices whose product is the limit."""
PAIRS = [{"axes": axes} for axes in ([2, 3], [1, 3], [0, 3], [1, 2], [0, 2], [0, 1])]
OPERATOR = {"version": 1, "name": "quanta-16-8-8-4", "layout": "16x8x8x4", "gates": PAIRS}
FROM_ZERO = {**OPERATOR, "gates": [*PAIRS[:-1], {**PAIRS[-1], "init": "zeros"}]}
"""The update is T, without a copy S."""
TOKENS, WIDTH = 512, 768

Run = Callable[[], object]


def clock() -> float:
    """Return seconds: those of the process alone with one thread, whatever else the machine does."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def in_turn(runs: list[Run], rounds: int, repeat: int = 1) -> list[list[float]]:
    """Return the seconds of each run, all run in every round, each `repeat` times."""
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 2):
        for run, taken in zip(runs, seconds, strict=True):
            start = clock()
            for _ in range(repeat):
                run()
            if turn >= 2:
                taken.append((clock() - start) / repeat)
    return seconds


def ratio(name: str, ours: list[float], base: list[float]) -> str:
    """Return a row: the ratio of each round, and the time itself."""
    ratios = sorted(one / other for one, other in zip(ours, base, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    return f"{name} | {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f}) | {1e3 * statistics.median(ours):.1f}"


def adapted(config: Any, width: int) -> Any:
    """Return an adapted frozen layer."""
    torch.manual_seed(0)
    return get_peft_model(nn.Sequential(nn.Linear(width, width, bias=False)), config)


def operator(rounds: int) -> list[str]:
    """Build the matrix, and merge it, beside the product."""
    compiled = qc.compile_circuit(OPERATOR)
    module: Any = compiled.module()
    plain: Any = compiled.module(backend="torch")
    given = {"T - S": OPERATOR, "T": FROM_ZERO}
    layers = [
        adapted(QuantaConfig(circuit=circuit, target_modules=["0"]), 4096).base_model.model[0]
        for circuit in given.values()
    ]
    a, b = torch.randn(2, PRODUCT, PRODUCT)
    merging = [run for layer in layers for run in (layer.merge, layer.unmerge)]
    with torch.no_grad():
        product, built, emitted, *merged = in_turn([lambda: a @ b, module.operator, plain.operator, *merging], rounds)
    limit = [seconds * compiled.report.operator.flops / (2 * PRODUCT**3) for seconds in product]
    rows = [
        ratio("`operator()` of 16x8x8x4, by the kernel", built, limit),
        ratio("the same, as emitted", emitted, limit),
    ]
    return rows + [
        ratio(f"merging {circuit} into a layer", one, limit) for circuit, one in zip(given, merged[::2], strict=True)
    ]


class Lora(nn.Module):
    """LoRA's update alone."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(WIDTH, 8, bias=False), nn.Linear(8, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it: `[tokens, width] -> [tokens, width]`."""
        result: torch.Tensor = self.up(self.down(x))
        return result


def stepping(model: Any, x: torch.Tensor, gradient: torch.Tensor) -> Run:
    """Return a step: gradients of the input and of what trains."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def run() -> None:
        torch.autograd.backward(model(x), gradient, inputs=[x, *trained])

    return run


def step(rounds: int) -> list[str]:
    """Train a layer for a step, beside PEFT's LoRA and the bare layer; and the update alone, on every backend."""
    x = torch.randn(TOKENS, WIDTH, requires_grad=True)
    gradient = torch.randn(TOKENS, WIDTH)
    ours = adapted(QuantaConfig(preset="quantum_peft", target_modules=["0"]), WIDTH)
    alone = qc.compile_circuit(ours.base_model.model[0].quanta_circuit_plan["default"].spec)
    models = {
        "the layer with LoRA": adapted(LoraConfig(r=8, target_modules=["0"]), WIDTH),
        "the layer with `quantum_peft`, over that with LoRA": ours,
        "the layer, over that with LoRA": nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False),
        "LoRA alone": Lora(),
        "`quantum_peft` alone, by the kernel, over LoRA alone": alone.module(backend="fused"),
        "the same, as emitted": alone.module(backend="torch"),
    }
    taken = in_turn([stepping(model, x, gradient) for model in models.values()], 4 * rounds, repeat=5)
    bases = [taken[0]] * 3 + [taken[3]] * 3
    rows = [ratio(*one) for one in zip((f"a step of {name}" for name in models), taken, bases, strict=True)]
    return [row for place, row in enumerate(rows) if place not in (0, 3)]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [*operator(options.rounds), *step(options.rounds)]
    print(f"{platform.machine()}, torch {torch.__version__}, threads: {options.threads}, float32\n")
    print("| figure | ratio | ms |\n| :-- | --: | --: |")
    print("\n".join(f"| {row} |" for row in rows))


if __name__ == "__main__":
    main()
