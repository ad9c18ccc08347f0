"""One run: trained, measured, and written down as what it was and where it ran."""

from __future__ import annotations

import datetime
import math
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from families import FAMILIES
from methods import SentenceClassifier, build_model, trained_parameters
from protocol import Run
from rows import Split, draw_rows, plan_batches
from tables import describe_machine
from tasks import Task
from training import Settings, encode, evaluate, make_optimizer, schedule, take_step
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from updates import save_update

import quanta_compiler

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run takes its model from, how many threads it has, and where its update is kept."""

    model: str
    threads: int
    updates: Path | None


@dataclass(frozen=True, slots=True)
class Training:
    """What a training was like."""

    loss: float | None
    """The mean over the last tenth of the steps; None where it is no number."""
    steps: int
    seconds_per_step: float
    cpu_seconds_per_step: float


def execute(name: str, task: Task, split: Split, run: Run, place: Place) -> dict[str, Any]:
    """Train and measure; return the line for the results."""
    start, processor = time.perf_counter(), time.process_time()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(place.threads)
    family = FAMILIES[run.method]
    settings = Settings(
        place.model, batch_size=BATCH_SIZE, max_tokens=task.max_tokens, weight_decay=family.weight_decay
    )
    tokenizer = AutoTokenizer.from_pretrained(place.model)
    model = build_model(family.method(), place.model, run.seed, task.classes)
    rows = draw_rows(split.train, task.rows(run.stage), run.seed)
    training = train(model, tokenizer, plan_batches(rows, BATCH_SIZE, run.seed), run.rate, settings)
    scores = {"validation": _measured(evaluate(model, tokenizer, split.validation, settings))}
    if run.stage == "final":
        scores["test"] = _measured(evaluate(model, tokenizer, split.test, settings))
        if family.saves_update and place.updates is not None:
            save_update(model, place.model, place.updates / f"{name}-{run.method}-seed{run.seed}")
    return {
        "task": name,
        **asdict(run),
        "definition": family.definition,
        "parameters": sum(parameter.numel() for parameter in trained_parameters(model).values()),
        "rows": len(rows),
        "steps": training.steps,
        "train_loss": training.loss,
        **scores,
        "seconds_per_step": round(training.seconds_per_step, 4),
        "cpu_seconds_per_step": round(training.cpu_seconds_per_step, 4),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - processor, 1),
        "peak_bytes": _peak_bytes(),
        "machine": {**describe_machine(), "peft": peft.__version__, "quanta_compiler": quanta_compiler.__version__},
        "commit": _commit(),
        "ended": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def train(
    model: SentenceClassifier,
    tokenizer: PreTrainedTokenizerBase,
    batches: list[Any],
    rate: float,
    settings: Settings,
) -> Training:
    """Train one epoch over planned batches; a training whose loss is no number any more ends there."""
    parameters = trained_parameters(model)
    optimizer = make_optimizer(parameters, rate, settings.weight_decay)
    model.train()
    losses: list[float] = []
    seconds: list[float] = []
    processor = time.process_time()
    for step, batch in enumerate(batches):
        begun = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, len(batches))
        losses.append(take_step(model, parameters, optimizer, encode(tokenizer, batch, settings.max_tokens)))
        seconds.append(time.perf_counter() - begun)
        if not math.isfinite(losses[-1]):
            break
    loss = statistics.fmean(losses[-max(1, len(losses) // 10) :])
    used = (time.process_time() - processor) / len(losses)
    return Training(_number(loss), len(losses), statistics.median(seconds), used)


def _measured(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in scores.items()}


def _number(value: float) -> float | None:
    """Return what JSON can hold."""
    return round(value, 6) if math.isfinite(value) else None


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _commit() -> str | None:
    """Return the commit that ran, with a + where files of the project differ from it; None outside git."""
    root = Path(__file__).parents[2]
    try:
        commit = subprocess.check_output(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, text=True).strip()
        status = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!examples/study/results"]
        changed = subprocess.check_output(status, cwd=root, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
