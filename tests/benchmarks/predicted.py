"""How near predicted times are to measured ones: the figures of docs/predicted.md.

    python tests/benchmarks/predicted.py [--calibrate] [--threads N] [-o DIR]

Circuits of many kinds and sizes run on both backends in interleaved rounds of one process, beside what the calibration
of this machine predicts for each; `--calibrate` makes that first. With `-o` the table and its data are written to
DIR/predicted.md and DIR/predicted.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from quanta_compiler.bench.calibrate import calibrate
from quanta_compiler.bench.operations import Run
from quanta_compiler.bench.small_modules import FORWARD, STEP, drawn_batch, module_run
from quanta_compiler.bench.timing import Job, measure
from quanta_compiler.driver import compile_circuit
from quanta_compiler.predict.calibration import Calibration, load_calibration, store_calibration
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.times import predicted_times
from quanta_compiler.runtime.backends import RUNNING
from quanta_compiler.system.machine import Load, describe_machine

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE_TOKENS = (512, 128, 2048, 256, 1024)
"""Of the examples, one after the other."""
PASSES = {FORWARD: "forward", STEP: "training step"}
MOST_SECONDS = 3.0
"""What is expected to take longer is left out."""


@dataclass(frozen=True)
class Result:
    """One circuit on one backend, forward or a training step."""

    circuit: str
    tokens: int
    backend: str
    kind: str
    predicted_seconds: float
    measured_seconds: float
    spread: float

    @property
    def ratio(self) -> float:
        """Return the predicted time over the measured one."""
        return self.predicted_seconds / self.measured_seconds


def circuit(layout: str, *gates: Any) -> dict[str, Any]:
    """Return a circuit file."""
    return {"version": 1, "name": "c", "layout": layout, "gates": list(gates)}


def circuits() -> list[tuple[str, Any, int]]:
    """Return (name, file, tokens): the examples, and other layouts of 256 to 8,192 features."""
    files = sorted(EXAMPLES.glob("*.yaml"))
    found: list[tuple[str, Any, int]] = [
        (path.stem, path, EXAMPLE_TOKENS[place % len(EXAMPLE_TOKENS)]) for place, path in enumerate(files)
    ]
    for layout, tokens in (
        *(("16x16", 2048), ("4x4x4x4", 64), ("8x8x6", 1024), ("12x8x8", 512), ("32x32", 256), ("6x4x4x4", 512)),
        *(("16x8x8x8", 128), ("16x8x8x8", 1024), ("16x16x8", 64), ("8x8x8x8", 1024), ("2x2x2x2x2x2x2x2", 512)),
    ):
        found.append((f"all_pairs {layout}", circuit(layout, "all_pairs"), tokens))
    found += [
        ("chain 16x16x16", circuit("16x16x16", "chain"), 1024),
        ("ring 8x8x8", circuit("8x8x8", "ring"), 2048),
        ("brick 2^10", circuit("x".join("2" * 10), {"pattern": "brick", "repeat": 2}), 256),
        ("each 2^12", circuit("x".join("2" * 12), "each"), 128),
        ("each 32x32x8", circuit("32x32x8", "each"), 512),
        ("dense 512", circuit("512", [0]), 512),
        ("dense 2048", circuit("2048", [0]), 256),
        ("blocks 64x64", circuit("64x64", {"axes": [1], "per": [0]}, {"axes": [0], "per": [1]}), 256),
        ("blocks 16x128", circuit("16x128", {"axes": [1], "per": [0]}, {"axes": [0], "per": [1]}), 2048),
        ("lora 4096 r=64", circuit("4096", {"axes": [0], "kind": "lowrank", "rank": 64}), 1024),
        ("lora 1024 r=16", circuit("1024", {"axes": [0], "kind": "lowrank", "rank": 16}), 2048),
        ("low rank pairs 16x16x16", circuit("16x16x16", {"pattern": "all_pairs", "kind": "lowrank", "rank": 8}), 512),
        ("diagonal and each 64x64", circuit("64x64", {"axes": [0, 1], "kind": "diagonal"}, "each"), 512),
    ]
    return found


Key = tuple[str, int, str, int]
"""Circuit, tokens, backend, pass."""


def jobs(calibration: Calibration) -> tuple[list[Job], dict[Key, float]]:
    """Return what is run, and what is predicted for it."""
    found: list[Job] = []
    predicted: dict[Key, float] = {}
    for name, file, tokens in circuits():
        compiled = compile_circuit(file, tokens=tokens)
        x, gradient = drawn_batch(compiled, torch.device("cpu"))
        for backend in RUNNING:
            if backend == "fused" and calibration.kernel is None:
                continue
            times = predicted_times(circuit_work(compiled, backend), calibration)
            if times.step_seconds > MOST_SECONDS:
                print(f"left out: {name} on {backend}, {times.step_seconds:.0f} s expected", file=sys.stderr)
                continue
            module = compiled.module(seed=0, backend=backend)
            for kind, seconds in ((FORWARD, times.forward_seconds), (STEP, times.step_seconds)):
                run = module_run(module, x, gradient, kind)
                run()
                predicted[name, tokens, backend, kind] = seconds
                found.append(Job((name, tokens, backend, kind), _repeated(run)))
    return found, predicted


def _repeated(run: Run) -> Any:
    def repeat(count: int) -> None:
        for _ in range(count):
            run()

    return repeat


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the correlation of the ranks, 1 for the same order; equal numbers share the mean of their ranks."""
    left, right = _ranks(first), _ranks(second)
    middle = (len(left) + 1) / 2
    both: float = sum((a - middle) * (b - middle) for a, b in zip(left, right, strict=True))
    norms = [sum((a - middle) ** 2 for a in ranks) for ranks in (left, right)]
    return both / math.sqrt(math.prod(norms))


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def summary(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return how near the predictions are, for each pass and backend and for all of them."""
    groups: list[tuple[str, str, list[Result]]] = []
    for kind in PASSES.values():
        for backend in (*RUNNING, "both"):
            chosen = [one for one in results if one.kind == kind and backend in (one.backend, "both")]
            if chosen:
                groups.append((kind, backend, chosen))
    return [
        {
            "kind": kind,
            "backend": backend,
            "circuits": len(chosen),
            "spearman": spearman([one.predicted_seconds for one in chosen], [one.measured_seconds for one in chosen]),
            "median_error": median(abs(one.ratio - 1) for one in chosen),
            "within_30_percent": sum(abs(one.ratio - 1) < 0.3 for one in chosen) / len(chosen),
            "least_ratio": min(one.ratio for one in chosen),
            "largest_ratio": max(one.ratio for one in chosen),
        }
        for kind, backend, chosen in groups
    ]


def markdown(data: dict[str, Any], results: Sequence[Result]) -> str:
    """Return the figures as tables."""
    machine, crowd = data["machine"], data["others_cores"]
    lines = [
        "# Predicted times beside measured ones",
        "",
        "Made by `python tests/benchmarks/predicted.py --calibrate -o docs/figures`.",
        "",
        f"{data['date']}, {machine['processor']}, {data['threads']} of {machine['cores']} cores, torch "
        f"{machine['torch']}, float32, median of {data['rounds']} rounds"
        + ("" if crowd is None else f"; other programs kept {crowd:.2f} cores busy")
        + f". Calibration: {'of this machine' if data['calibrated'] else 'typical'}, {data['calibration_date']}.",
        "",
        "| pass | backend | circuits | Spearman | median error | within 30 % | predicted / measured |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for one in data["summary"]:
        share = f"{100 * one['median_error']:.0f} % | {100 * one['within_30_percent']:.0f} %"
        lines.append(
            f"| {one['kind']} | {one['backend']} | {one['circuits']} | {one['spearman']:.3f} | {share} | "
            f"{one['least_ratio']:.2f} to {one['largest_ratio']:.2f} |"
        )
    columns = (
        "circuit",
        "tokens",
        "backend",
        *(f"{kind}, {what}" for kind in PASSES.values() for what in ("ms", "predicted")),
    )
    lines += ["", f"| {' | '.join(columns)} |", "|---|--:|---|--:|--:|--:|--:|"]
    cells: dict[tuple[str, int, str], list[str]] = {}
    for one in sorted(results, key=lambda one: list(PASSES.values()).index(one.kind)):
        cells.setdefault((one.circuit, one.tokens, one.backend), []).extend(
            (f"{1e3 * one.measured_seconds:.3g}", f"{1e3 * one.predicted_seconds:.3g}")
        )
    lines += [
        f"| {name} | {tokens:,} | {backend} | {' | '.join(found)} |" for (name, tokens, backend), found in cells.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", action="store_true", help="measure this machine first, and store that")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = Load()
    if options.calibrate:
        print(f"stored in {store_calibration(calibrate(threads=options.threads))}", file=sys.stderr)
    calibration = load_calibration(threads=options.threads)
    print(calibration.remark or "calibrated", file=sys.stderr)
    found, predicted = jobs(calibration)
    print(f"{len(found)} measurements", file=sys.stderr)
    timings = measure(found, options.rounds)
    results = [
        Result(*key[:3], PASSES[key[3]], seconds, timings[key].seconds_median, timings[key].spread)
        for key, seconds in predicted.items()
    ]
    data = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "threads": options.threads,
        "rounds": options.rounds,
        "others_cores": load.others(),
        "calibrated": calibration.calibrated,
        "calibration_date": calibration.measured,
        "summary": summary(results),
        "results": [asdict(one) for one in results],
    }
    text = markdown(data, results)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "predicted.md").write_text(text, encoding="utf-8")
        (options.output / "predicted.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
