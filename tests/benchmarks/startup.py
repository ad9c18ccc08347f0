"""How long the commands take that never import torch, beside what importing the libraries alone takes.

    python tests/benchmarks/startup.py [--rounds 7]

Whole processes, interleaved, medians of wall seconds; run it on a quiet machine. The goals: 0.7 s for five axes, 2 s
for seven axes and for 200 gates on 12 axes.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIBRARIES = "import pydantic, typer, opt_einsum, networkx"
COMMANDS = ("check", "expand", "draw", "report", "compile")


def main() -> None:
    """Time every command on every circuit and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        files = write_circuits(Path(folder))
        jobs = {("libraries alone", ""): [sys.executable, "-c", LIBRARIES]}
        for name, file in files.items():
            for command in COMMANDS:
                output = ["-o", folder] if command == "compile" else []
                jobs[name, command] = [sys.executable, "-m", "quanta_compiler", command, str(file), *output]
        seconds: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
        for turn in range(rounds + 1):
            for job, words in jobs.items():
                elapsed = run(words)
                if turn:  # the first round fills caches
                    seconds[job].append(elapsed)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for (name, command), times in seconds.items():
        print(f"{name:28s} {command:8s} {statistics.median(times):5.2f} s  ({min(times):.2f} to {max(times):.2f})")


def run(words: list[str]) -> float:
    """Return the wall seconds of one process; byte code is cached, as it is for users."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def write_circuits(folder: Path) -> dict[str, Path]:
    """Write the circuits that the goals name."""
    generator = random.Random(0)
    pairs = "".join(f"  - {sorted(generator.sample(range(12), 2))}\n" for _ in range(200))
    texts = {
        "all_pairs on five axes": "layout: 8x8x4x4x4\ngates: [all_pairs]\n",
        "all_pairs on seven axes": "layout: 4x4x4x4x2x2x2\ngates: [all_pairs]\n",
        "200 gates on 12 axes": f"layout: {'x'.join('2' * 12)}\ninit: orthogonal\ngates:\n{pairs}",
    }
    files: dict[str, Path] = {}
    for place, (name, text) in enumerate(texts.items()):
        files[name] = folder / f"circuit{place}.yaml"
        files[name].write_text(f"version: 1\nname: circuit{place}\n{text}", encoding="utf-8")
    return files


if __name__ == "__main__":
    main()
