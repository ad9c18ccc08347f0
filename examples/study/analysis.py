"""What the runs have learned: ranks of their updates, and which circuits could have been those updates.

    python examples/study/analysis.py --updates DIR --tasks words,headlines

DIR is what `study.py --updates DIR` wrote. Ranks and similarities are those of `quanta analyze`, the fits those of
`quanta search --fit`. Printed as Markdown; `results/updates.json` has the numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What the study has in common with the examples of fine-tuning lies there.
sys.path.insert(0, str(Path(__file__).parents[1] / "finetune"))

from families import FAMILIES
from fits import Fitted, fit_families
from journal import read_records
from summary import summarize
from tasks import TASKS

RESULTS = Path(__file__).parent / "results"
LARGER, SMALLER, FULL = "lora-r16", "lora-r8", "full"
SHAPES = ((384, 384), (384, 1536), (1536, 384))


def analyze(folders: Sequence[Path]) -> dict[str, Any]:
    """Return what `quanta analyze --json` prints of some adapters."""
    command = [sys.executable, "-m", "quanta_compiler", "analyze", *map(str, folders), "--json"]
    figures: dict[str, Any] = json.loads(subprocess.check_output(command, text=True))
    return figures


def rank_lines(analyses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of the median effective and stable rank of each adapter's layers, by their shape."""
    shapes = " | ".join(f"{columns} -> {rows}" for columns, rows in SHAPES)
    lines = [f"| task | method | {shapes} |", f"|---|---|{'--:|' * len(SHAPES)}"]
    for task, analysis in analyses.items():
        for method, adapter in zip((LARGER, SMALLER, FULL), analysis["adapters"], strict=True):
            cells = [_ranks([one for one in adapter["layers"] if _shape(one) == shape]) for shape in SHAPES]
            lines.append(f"| `{task}` | `{method}` | {' | '.join(cells)} |")
    return lines


def similarity_lines(analyses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of the mean phi(i, i) over the layers, of LoRA r=16 with r=8 and with full fine-tuning."""
    points = (1, 2, 4, 8)
    lines = [
        f"| task | r=16 and | {' | '.join(f'phi({i}, {i})' for i in points)} |",
        f"|---|---|{'--:|' * len(points)}",
    ]
    for task, analysis in analyses.items():
        for other, method in ((1, SMALLER), (2, FULL)):
            layers = [one["phi"] for one in analysis["similarities"] if one["adapters"][1] == other]
            cells = [_similarity(layers, point) for point in points]
            lines.append(f"| `{task}` | `{method}` | {' | '.join(cells)} |")
    return lines


def fit_lines(task: str, fits: Sequence[Fitted], accuracies: Mapping[str, float]) -> list[str]:
    """Return a table of how well each family fits the updates, and how its order and that of the accuracies agree."""
    lines = [
        f"| `{task}` | numbers a layer | relative error | test accuracy |",
        "|---|--:|--:|--:|",
    ]
    for fitted in sorted(fits, key=lambda one: one.error):
        accuracy = accuracies.get(fitted.method)
        tested = "" if accuracy is None else f"{100 * accuracy:.2f}"
        lines.append(f"| `{fitted.method}` | {fitted.numbers:,} | {fitted.error:.3f} | {tested} |")
    lines.append("")
    for budget in ("85k", "330k"):
        both = [one for one in fits if one.method in accuracies and FAMILIES[one.method].budget == budget]
        if len(both) > 2:
            agreement = rank_correlation([-one.error for one in both], [accuracies[one.method] for one in both])
            lines.append(f"At {budget}: rank correlation {agreement:+.2f} over {len(both)} methods.")
    return lines


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's correlation; ties share the mean of their ranks. Nothing varies: 0."""

    def ranks(values: Sequence[float]) -> list[float]:
        return [
            sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2
            for value in values
        ]

    try:
        return statistics.correlation(ranks(first), ranks(second))
    except statistics.StatisticsError:
        return 0.0


def _shape(layer: Mapping[str, Any]) -> tuple[int, int]:
    return layer["in_features"], layer["out_features"]


def _ranks(layers: Sequence[Mapping[str, Any]]) -> str:
    if not layers:
        return ""
    effective, stable = (statistics.median(one[name] for one in layers) for name in ("effective_rank", "stable_rank"))
    return f"{effective:.1f} (stable {stable:.1f})"


def _similarity(layers: Sequence[Sequence[Mapping[str, float]]], size: int) -> str:
    found = [one["phi"] for layer in layers for one in layer if one["i"] == one["j"] == size]
    return f"{statistics.fmean(found):.2f}" if found else ""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Look at the updates of the study's runs.")
    parser.add_argument("--updates", type=Path, required=True, help="folder that `study.py --updates` filled")
    parser.add_argument("--tasks", default="words", help=f"some of {','.join(TASKS)}")
    parser.add_argument("--seed", type=int, default=1, help="of the runs that are looked at (1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results (results/ beside this)")
    options = parser.parse_args(arguments)
    options.tasks = options.tasks.split(",")
    return options


def report(options: argparse.Namespace) -> str:
    """Return all tables, and write the numbers."""
    analyses, tables, numbers = {}, [], {}
    for task in options.tasks:
        folders = {
            method: options.updates / f"{task}-{method}-seed{options.seed}" for method in (LARGER, SMALLER, FULL)
        }
        analyses[task] = analyze(list(folders.values()))
        fits = fit_families(folders[FULL])
        records = read_records(options.results / f"{task}.jsonl")
        accuracies = {one.method: statistics.fmean(one.test.values()) for one in summarize(records) if one.test}
        tables += ["", *fit_lines(task, fits, accuracies)]
        numbers[task] = {"analysis": analyses[task], "errors": {one.method: one.error for one in fits}}
    (options.results / "updates.json").write_text(json.dumps(numbers) + "\n", encoding="utf-8")
    chance = ["", "Random subspaces have a phi(i, i) of i / n, n being the features that come in: 0.02 at most."]
    return "\n".join([*rank_lines(analyses), "", *similarity_lines(analyses), *chance, *tables])


def main() -> None:
    """Print the tables."""
    print(report(parse_arguments()))


if __name__ == "__main__":
    main()
