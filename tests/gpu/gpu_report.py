"""What a GPU makes of circuits: do they compute the same, and how long do they take. `make gpu`

    python tests/gpu/gpu_report.py [--device cuda] [--seconds 600] [-o DIR]

writes DIR/gpu-report.json and DIR/gpu-report.html. It ends in time: what there was no time for is listed. With
`--device cpu --quick` it goes through a handful of tiny circuits, by Triton's interpreter where Triton is installed, to
see that it runs; the times of that say nothing.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
SHARE = 0.5
"""Of the time for correctness, at most."""
_WRITING = 10.0
"""Seconds kept for writing."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu with --quick")
    parser.add_argument("--quick", action="store_true", help="a handful of tiny circuits")
    parser.add_argument("--seconds", type=float, default=600.0, help="the time that it may take")
    parser.add_argument("--circuits", type=int, default=100, help="random circuits beside the examples")
    parser.add_argument("--workers", type=int, help="processes that compile at the same time")
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="the folder of the report")
    return parser.parse_args(words)


def main(options: argparse.Namespace) -> int:
    """Write the report; return 1 where something is wrong."""
    if options.device == "cpu" and importlib.util.find_spec("triton") is not None:
        # Before anything imports Triton.
        os.environ |= {"TRITON_INTERPRET": "1", "QUANTA_ENGINE": "triton"}
    begin = time.monotonic()
    from gpu_sections import Deadline

    from quanta_compiler.bench.devices import DeviceError, describe_device, find_device

    try:
        place = find_device(options.device)
    except DeviceError as error:
        print(f"There is no GPU to report on: {error}.", file=sys.stderr)
        return 1
    if place.type == "cpu" and not options.quick:
        print("The CPU takes hours for this: add --quick.", file=sys.stderr)
        return 1
    deadline = Deadline(max(0.0, options.seconds - _WRITING))
    from gpu_page import page

    from quanta_compiler.kernels.engine import engine_name

    engine = engine_name(place.type, _dtype("float32"))
    sections, wrong = _sections(options, str(place), engine, deadline)
    report: dict[str, Any] = {
        "format": 1,
        "measured": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": describe_device(place),
        "device": str(place),
        "engine": engine,
        "quick": options.quick,
        "seconds": time.monotonic() - begin,
        "wrong": wrong,
        "sections": [one.to_dict() for one in sections],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("gpu-report.json", json.dumps(report, indent=2, allow_nan=False) + "\n"),
        ("gpu-report.html", page(report, sections, wrong)),
    ):
        (options.output / name).write_text(text, encoding="utf-8")
        print(options.output / name)
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    left_out = sum(len(one.left_out) for one in sections)
    print(f"{left_out} things were left out, {len(wrong)} are wrong; see the report", file=sys.stderr)
    return 1 if wrong else 0


def _sections(options: argparse.Namespace, device: str, engine: str, deadline: Any) -> tuple[list[Any], list[str]]:
    from gpu_correctness import AUTOCAST, DTYPES, cases, correctness
    from gpu_timings import Scale, backward_forms, by_layout, by_tokens, goals, launches, quick, thin_products

    is_interpreted = device == "cpu" and engine == "triton"
    # The interpreter multiplies bfloat16 as whole numbers.
    dtypes = [name for name in DTYPES if not (is_interpreted and name in ("bfloat16", AUTOCAST))]
    circuits = min(3, options.circuits) if options.quick else options.circuits
    todo = cases(device, dtypes, circuits=circuits, quick=options.quick)
    workers = options.workers or (1 if device == "cpu" else min(8, os.cpu_count() or 1))
    _say(f"{len(todo)} cases of correctness")
    first, wrong = correctness(todo, workers, deadline.part(SHARE))
    if is_interpreted:
        first.left_out.append("bfloat16: Triton's interpreter computes something else")
    scale = quick(device) if options.quick else Scale(device, "bfloat16")
    found = []
    for title, part, share in (
        ("batches", by_tokens, 0.5),
        ("layouts", by_layout, 0.6),
        ("forms of backward", backward_forms, 0.5),
        ("thin products", thin_products, 0.6),
        ("few tokens", launches, 1.0),
    ):
        _say(title)
        found.append(part(scale, deadline.part(share)))
    found[1].left_out.append("bank conflicts, for which a profiler is needed")
    return [first, goals(found[0]), *found], wrong


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(arguments()))
