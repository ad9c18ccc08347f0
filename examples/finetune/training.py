"""One training run: deterministic by its seed, and resumed from its last checkpoint after an interruption."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from methods import SentenceClassifier, trained_parameters
from rows import Row, plan_batches
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

WARMUP = 0.06
"""Part of the steps over which the learning rate rises from zero; it then falls linearly to zero."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all runs of a comparison share."""

    model: str
    search_rows: int = 5000
    final_rows: int = 10_000
    test_rows: int = 2000
    validation_rows: int = 1000
    batch_size: int = 32
    max_tokens: int = 48
    weight_decay: float = 0.01
    checkpoint_steps: int = 50


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: a method with a learning rate and a seed, in the search or in the final comparison."""

    stage: str
    method: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """A name that can be a file's."""
        return f"{self.stage}-{self.method}-{self.rate:g}-seed{self.seed}"


class SettingsError(ValueError):
    """The output folder holds runs that these options would not give."""


class Trainer:
    """Trains one model for one epoch over planned batches, keeping a checkpoint in `folder`."""

    def __init__(
        self,
        model: SentenceClassifier,
        tokenizer: PreTrainedTokenizerBase,
        run: Run,
        settings: Settings,
        folder: Path,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.run = run
        self.settings = settings
        self.checkpoint = checkpoint_path(folder, run)
        self.metrics = folder / "metrics.jsonl"
        self.parameters = trained_parameters(model)
        self.optimizer = make_optimizer(self.parameters, run.rate, settings.weight_decay)
        self.losses: list[float] = []

    def train(self, rows: Sequence[Row], stop_after: int | None = None) -> None:
        """Train from the last checkpoint, or from the start, to the end of the epoch.

        Args:
            rows: the headlines of the epoch, the same ones in every call.
            stop_after: stop as if interrupted once so many steps are done in all (for tests).

        """
        batches = plan_batches(rows, self.settings.batch_size, self.run.seed)
        self._resume()
        self.model.train()
        bar = tqdm(total=len(batches), initial=len(self.losses), desc=self.run.name, unit="step", leave=False)
        with bar:
            for step in range(len(self.losses), len(batches)):
                if stop_after is not None and step >= stop_after:
                    return
                self._step(batches[step], step, len(batches))
                bar.set_postfix(loss=f"{_mean(self.losses[-20:]):.3f}")
                bar.update()
                if (step + 1) % self.settings.checkpoint_steps == 0 and step + 1 < len(batches):
                    self._save()

    def _step(self, batch: Sequence[Row], step: int, steps: int) -> None:
        rate = self.run.rate * schedule(step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        encoded = encode(self.tokenizer, batch, self.settings.max_tokens)
        self.losses.append(take_step(self.model, self.parameters, self.optimizer, encoded))
        line = {
            "time": round(time.time(), 3),
            "run": self.run.name,
            "step": step,
            "rate": rate,
            "loss": self.losses[-1],
        }
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "run": asdict(self.run),
            "losses": self.losses,
            "parameters": {name: parameter.detach() for name, parameter in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "generator": torch.get_rng_state(),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and moved: an interruption while writing leaves the checkpoint before it.
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        if state["run"] != asdict(self.run) or state["parameters"].keys() != self.parameters.keys():
            raise ValueError(f"{self.checkpoint} belongs to another run; delete it or name another folder with --out")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["generator"])
        self.losses = state["losses"]
        logger.info("%s goes on from step %d", self.run.name, len(self.losses))


def make_optimizer(parameters: dict[str, nn.Parameter], rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW in its fused form, which takes a fifth of the time of the other for all of the encoder."""
    return torch.optim.AdamW(parameters.values(), lr=rate, weight_decay=weight_decay, fused=True)


def checkpoint_path(folder: Path, run: Run) -> Path:
    """Return where a run keeps its checkpoint while it is not finished."""
    return folder / "checkpoints" / f"{run.name}.pt"


def schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate: a linear rise over the warm-up, then a linear fall to zero."""
    warmup = max(1, math.ceil(WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def encode(
    tokenizer: PreTrainedTokenizerBase, batch: Sequence[Row], max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids and mask, `[batch, tokens]`, padded to the longest headline of the batch, and labels, `[batch]`."""
    tokens = tokenizer(
        [row.text for row in batch], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    return tokens["input_ids"], tokens["attention_mask"], torch.tensor([row.label for row in batch])


def take_step(
    model: SentenceClassifier,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> float:
    """Take one step on an encoded batch and return the mean cross-entropy before it."""
    ids, mask, labels = batch
    loss = nn.functional.cross_entropy(model(ids, mask), labels)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(parameters.values(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


@torch.no_grad()
def evaluate(
    model: SentenceClassifier, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], settings: Settings
) -> dict[str, float]:
    """Return the accuracy and the mean loss over `rows`."""
    model.eval()
    correct, loss = 0, 0.0
    for batch in plan_batches(rows, 4 * settings.batch_size, seed=None):
        ids, mask, labels = encode(tokenizer, batch, settings.max_tokens)
        logits = model(ids, mask)
        correct += int((logits.argmax(-1) == labels).sum())
        loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return {"accuracy": correct / len(rows), "loss": loss / len(rows)}


def keep_settings(folder: Path, settings: Any) -> None:
    """Write the settings, a dataclass, into the output folder, or compare them with those that are there.

    Raises:
        SettingsError: the folder holds runs with other settings.

    """
    path = folder / "settings.json"
    content = asdict(settings)
    if path.exists():
        former = json.loads(path.read_text(encoding="utf-8"))
        different = {key: (former.get(key), value) for key, value in content.items() if former.get(key) != value}
        if different:
            listed = ", ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in different.items())
            raise SettingsError(f"{folder} holds runs with other settings ({listed}); use another --out")
    write_json(path, content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that an interruption leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return sum(values) / len(values)
