"""Results of the encoder's runs, gathered into `results.json` and `results.md`."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from methods import METHODS
from training import write_json


def describe_machine() -> dict[str, Any]:
    """Return the processor, its cores, the threads used, the library versions and the date."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def write_tables(folder: Path, methods: Sequence[str]) -> str:
    """Gather all finished runs and measurements of `folder`, write both files, return the text of the table."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "runs").glob("*.json"))]
    results = {
        "machine": _read(folder / "machine.json"),
        "settings": _read(folder / "settings.json"),
        "methods": {method: _summarize(method, runs) for method in methods},
        "speed_seconds_per_step": _read(folder / "speed.json"),
        "peak_resident_bytes": _read(folder / "memory.json"),
        "runs": runs,
    }
    write_json(folder / "results.json", results)
    text = _render(results)
    (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def chosen_rate(method: str, runs: Sequence[dict[str, Any]]) -> float | None:
    """Return the learning rate of best validation accuracy, ties going to the lower loss; None without a search."""
    searched = [run for run in runs if run["stage"] == "search" and run["method"] == method]
    if not searched:
        return None
    best = max(searched, key=lambda run: (run["validation"]["accuracy"], -run["validation"]["loss"]))
    return float(best["rate"])


def _summarize(method: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    final = [run for run in runs if run["stage"] == "final" and run["method"] == method]
    accuracies = [run["test"]["accuracy"] for run in final]
    searched = {
        run["rate"]: run["validation"]["accuracy"]
        for run in runs
        if run["stage"] == "search" and run["method"] == method
    }
    return {
        "summary": METHODS[method].summary,
        "trained_parameters": final[0]["trained_parameters"] if final else None,
        "validation_by_rate": {f"{rate:g}": searched[rate] for rate in sorted(searched)},
        "chosen_rate": chosen_rate(method, runs),
        "seeds": [run["seed"] for run in final],
        "test_accuracies": accuracies,
        "test_mean": statistics.mean(accuracies) if accuracies else None,
        "test_standard_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
    }


def _render(results: dict[str, Any]) -> str:
    lines = [
        "| method | trained parameters | rate: validation accuracy (chosen in bold) | test accuracy "
        "| lowest to highest | s per step | peak memory |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    speed, memory = results["speed_seconds_per_step"] or {}, results["peak_resident_bytes"] or {}
    for method, row in results["methods"].items():
        count = row["trained_parameters"]
        searched = ", ".join(
            f"**{rate}: {100 * accuracy:.1f}**"
            if float(rate) == row["chosen_rate"]
            else f"{rate}: {100 * accuracy:.1f}"
            for rate, accuracy in row["validation_by_rate"].items()
        )
        cells = [
            f"`{method}`: {row['summary']}",
            "" if count is None else f"{count:,}",
            searched,
            _mean_and_spread(row),
            _range(row["test_accuracies"]),
            f"{speed[method]['median']:.2f}" if method in speed else "",
            f"{memory[method] / 2**20:,.0f} MiB" if method in memory else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_legend(results)]) + "\n"


def _mean_and_spread(row: dict[str, Any]) -> str:
    if row["test_mean"] is None:
        return ""
    spread = row["test_standard_deviation"]
    return f"{100 * row['test_mean']:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _range(accuracies: Sequence[float]) -> str:
    return f"{100 * min(accuracies):.2f} to {100 * max(accuracies):.2f}" if accuracies else ""


def _legend(results: dict[str, Any]) -> list[str]:
    settings, machine = results["settings"], results["machine"]
    seeds = sorted({seed for row in results["methods"].values() for seed in row["seeds"]})
    return [
        "Made by `python examples/finetune/encoder.py`.",
        "",
        f"Accuracies in percent. The rate was chosen on {settings['validation_rows']:,} validation headlines after one "
        f"epoch of {settings['search_rows']:,} training headlines with one seed. Test accuracy: one epoch of "
        f"{settings['final_rows']:,} training headlines, measured once a run on {settings['test_rows']:,} headlines; "
        f"mean ± standard deviation over the seeds {', '.join(map(str, seeds))}. A seed draws the headlines, their "
        "order, the head and the adapter. Batches of "
        f"{settings['batch_size']}, at most {settings['max_tokens']} tokens, AdamW with weight decay "
        f"{settings['weight_decay']:g}, no dropout.",
        "",
        "Trained parameters include the head. Seconds per step: median, all methods in turn in one process. Peak "
        "memory: resident set of a process that trains with this method alone on the longest headlines, Python, torch "
        "and the frozen weights included.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; torch "
        f"{machine['torch']}, transformers {machine['transformers']}, Python {machine['python']}; {machine['date']}.",
    ]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
