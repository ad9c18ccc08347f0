"""A training step of MiniLM with adapters over one with LoRA r=8, as ratios measured in turn in one process.

    python tests/benchmarks/encoder_step.py [--rounds 15] [--threads 1]

Prints one table in Markdown. Model, circuits, batches and lengths are those of examples/finetune, on all 36 linear
layers. In `identity` and `input` the square circuits begin as the identity; those that widen or narrow end, there, in
a gate of zeros. Medians of the rounds, quartiles in brackets. With one thread the seconds are those of the process,
which other programs hardly change.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from making import in_turn, ratio

from quanta_compiler.peft import QuantaConfig
from quanta_compiler.system.machine import describe_machine

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "finetune"))
from headlines import load_headlines, split_headlines
from methods import FOUR_AXES, METHODS, TARGETS, THREE_AXES, Method, build_model, trained_parameters
from rows import plan_batches
from training import Settings, encode, make_optimizer, take_step
from transformers import AutoTokenizer
from wheels import DEFAULT_CACHE, MINILM, unpack_folder


def from_identity(circuits: dict[str, str]) -> dict[str, Any]:
    """Return the circuits of a method, of which each begins as the identity or, where it is no square, at zero."""
    found = {}
    for pattern, path in circuits.items():
        circuit = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if pattern.startswith("attention"):
            circuit["init"] = "identity"
        else:
            last = circuit["gates"][-1]
            circuit["gates"][-1] = {**(last if isinstance(last, dict) else {"axes": last}), "init": "zeros"}
        found[pattern] = circuit
    return found


def _always(config: QuantaConfig, seed: int) -> QuantaConfig:
    return config


def entrants() -> dict[str, Method]:
    """Return LoRA, and both layouts in every way that an update can be laid out."""
    found = {"LoRA r=8": METHODS["lora-r8"]}
    for name, circuits in (("8x8x6", THREE_AXES), ("6x4x4x4", FOUR_AXES)):
        found[f"{name}, `frozen_copy`"] = METHODS[f"quanta-{name}-copy"]
        found[f"{name}, `folded`"] = METHODS[f"quanta-{name}"]
        config = QuantaConfig(circuit=from_identity(circuits), **TARGETS)
        found[f"{name}, `identity`"] = Method("", (), partial(_always, config))
    return found


class Steps:
    """Takes one step after the other, each on the next batch."""

    def __init__(self, method: Method, folder: str, batches: list[Any], settings: Settings) -> None:
        self.model = build_model(method, folder, seed=0).train()
        self.parameters = trained_parameters(self.model)
        self.optimizer = make_optimizer(self.parameters, 1e-5, settings.weight_decay)
        self.batches = batches
        self.taken = 0

    def __call__(self) -> None:
        """Take a step."""
        take_step(self.model, self.parameters, self.optimizer, self.batches[self.taken % len(self.batches)])
        self.taken += 1


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = str(unpack_folder(MINILM, DEFAULT_CACHE))
    settings = Settings(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = split_headlines(load_headlines(DEFAULT_CACHE)).train[: settings.batch_size * (arguments.rounds + 2)]
    planned = plan_batches(rows, settings.batch_size, seed=0)
    batches = [encode(tokenizer, batch, settings.max_tokens) for batch in planned]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = {name: Steps(method, folder, batches, settings) for name, method in entrants().items()}
    seconds = dict(zip(runs, in_turn(list(runs.values()), arguments.rounds), strict=True))
    machine = describe_machine()
    print(f"{machine['processor']}, torch {machine['torch']}, PEFT {machine['peft']}, threads: {arguments.threads}\n")
    print("| a step with | over LoRA r=8 (quartiles) | ms |\n|---|--:|--:|")
    for name, taken in seconds.items():
        print(f"| {ratio(name, taken, seconds['LoRA r=8'])} |")


if __name__ == "__main__":
    main()
