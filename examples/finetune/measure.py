"""What a training step costs: its time, all methods in one process in turn; its peak memory, a process for each."""

from __future__ import annotations

import logging
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from methods import Method, build_model, trained_parameters
from rows import Row, plan_batches
from tqdm import tqdm
from training import Settings, encode, make_optimizer, take_step
from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

MEMORY_STEPS = 10


class Stepper:
    """Takes training steps with one method on given batches."""

    def __init__(self, method: Method, settings: Settings, classes: int = 2) -> None:
        self.model = build_model(method, settings.model, 0, classes)
        self.model.train()
        self.parameters = trained_parameters(self.model)
        self.optimizer = make_optimizer(self.parameters, rate=1e-5, weight_decay=settings.weight_decay)

    def step(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> float:
        """Take a step on an encoded batch and return its seconds."""
        start = time.perf_counter()
        take_step(self.model, self.parameters, self.optimizer, batch)
        return time.perf_counter() - start


def measure_speed(
    methods: Mapping[str, Method],
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: Settings,
    *,
    rounds: int = 20,
    classes: int = 2,
) -> dict[str, dict[str, float]]:
    """Return seconds per step of each method: the median, and the quartiles around it.

    All models live in one process; every batch is given to each of them in turn, so that whatever else the machine
    does strikes them alike. The first batch warms up and is not counted.
    """
    drawn = rows[: settings.batch_size * (rounds + 1)]
    batches = [
        encode(tokenizer, batch, settings.max_tokens) for batch in plan_batches(drawn, settings.batch_size, seed=0)
    ]
    steppers = {name: Stepper(method, settings, classes) for name, method in methods.items()}
    names = list(methods)
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for turn, batch in enumerate(tqdm(batches, desc="speed", unit="round", leave=False)):
        order = [*names[turn % len(names) :], *names[: turn % len(names)]]
        for method in order:
            seconds[method].append(steppers[method].step(batch))
    figures = {}
    for method in methods:
        low, median, high = statistics.quantiles(seconds[method][1:], n=4)
        figures[method] = {"median": median, "lower_quartile": low, "upper_quartile": high}
    return figures


def measure_memory(methods: Sequence[str], command: Sequence[str]) -> dict[str, int]:
    """Return the peak resident memory in bytes of a process that does nothing but train with one method.

    Args:
        methods: names of methods.
        command: the script's own arguments; `--memory-of METHOD` is added to them.

    The figure includes Python, torch and the encoder's weights, so the differences between methods are what counts.

    """
    script = str(Path(__file__).with_name("encoder.py"))
    figures = {}
    for method in tqdm(methods, desc="memory", unit="method", leave=False):
        result = subprocess.run(
            [sys.executable, script, *command, "--memory-of", method], stdout=subprocess.PIPE, text=True, check=True
        )
        figures[method] = int(result.stdout.split()[-1])
    return figures


def peak_memory(method: Method, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], settings: Settings) -> int:
    """Take a few steps with the longest headlines and return the peak resident memory of this process in bytes."""
    stepper = Stepper(method, settings)
    longest = plan_batches(rows, settings.batch_size, seed=None)[-MEMORY_STEPS:]
    for batch in longest:
        stepper.step(encode(tokenizer, batch, settings.max_tokens))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
