"""A training step of adapted layers over that of the bare layer, as ratios measured in turn in one process.

    python tests/benchmarks/placed.py [--rounds 15] [--threads 1]

Prints one table in Markdown. The layer is 4096 x 4096 in float32, frozen, with random weights; a step is forward and
backward for 512 tokens with gradients of the input and of what trains. Circuits beside the layer and before it, PEFT's
LoRA, and OFT, BOFT and VeRA of PEFT with circuits that have the same numbers of blocks. Medians of the rounds,
quartiles in brackets. With one thread the seconds are those of the process, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from making import adapted, in_turn, ratio, stepping
from peft import BOFTConfig, LoraConfig, OFTConfig, VeraConfig, get_peft_model
from torch import nn

from quanta_compiler.peft import QuantaConfig
from quanta_compiler.system.machine import describe_machine

TOKENS, WIDTH = 512, 4096
PAIRS = {"version": 1, "name": "quanta-16-8-8-4", "layout": "16x8x8x4", "gates": ["all_pairs"]}
FROM_IDENTITY = {**PAIRS, "init": "identity"}


def ours(**keys: Any) -> Any:
    """Return a layer with a circuit."""
    return adapted(QuantaConfig(target_modules=["0"], **keys), WIDTH)


def theirs(config: Any, **keys: Any) -> Any:
    """Return a layer with a method of PEFT."""
    return adapted(config(target_modules=["0"], **keys), WIDTH)


def alone(preset: str) -> Any:
    """Return a layer with a circuit of what layers have together, of a model that has another such layer."""
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2)))
    return get_peft_model(model, QuantaConfig(preset=preset, target_modules=["0", "1"])).base_model.model[0]


def entrants() -> dict[str, tuple[Any, str]]:
    """Return the layers, each with the one that its time is divided by."""
    bare = "the bare layer"
    return {
        bare: (nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False), bare),
        "LoRA r=8": (theirs(LoraConfig, r=8), bare),
        "16x8x8x4, `frozen_copy`": (ours(circuit=PAIRS), bare),
        "16x8x8x4, `folded`": (ours(circuit=PAIRS, residual="folded"), bare),
        "16x8x8x4, `identity`": (ours(circuit=FROM_IDENTITY), bare),
        "16x8x8x4, `placement: input`": (ours(circuit=FROM_IDENTITY, placement="input"), bare),
        "PEFT's OFT, 128 blocks, exact": (theirs(OFTConfig, oft_block_size=32, use_cayley_neumann=False), bare),
        "PEFT's OFT, 128 blocks, its series": (theirs(OFTConfig, oft_block_size=32), bare),
        "`oft:128`": (ours(preset="oft:128", placement="input"), "PEFT's OFT, 128 blocks, exact"),
        "PEFT's BOFT, 512 blocks, one factor": (theirs(BOFTConfig, boft_block_size=8), bare),
        "`boft:blocks=512,factors=1`": (
            ours(preset="boft:blocks=512,factors=1", placement="input"),
            "PEFT's BOFT, 512 blocks, one factor",
        ),
        "`boft:blocks=512,factors=2`": (
            ours(preset="boft:blocks=512,factors=2", placement="input"),
            "PEFT's BOFT, 512 blocks, one factor",
        ),
        "PEFT's VeRA r=256": (theirs(VeraConfig, r=256), bare),
        "`vera:256`": (alone("vera:256"), "PEFT's VeRA r=256"),
        "`lotr:8`": (alone("lotr:8"), "PEFT's VeRA r=256"),
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    x = torch.randn(TOKENS, WIDTH, requires_grad=True)
    gradient = torch.randn(TOKENS, WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = entrants()
    runs = [stepping(layer, x, gradient) for layer, _ in layers.values()]
    seconds = dict(zip(layers, in_turn(runs, arguments.rounds), strict=True))
    machine = describe_machine()
    print(f"{machine['processor']}, torch {machine['torch']}, PEFT {machine['peft']}, threads: {arguments.threads}\n")
    print("| a step of the layer with | over | times (quartiles) | ms |\n|---|---|--:|--:|")
    for name, (_, base) in layers.items():
        row = ratio(f"{name} | {base}", seconds[name], seconds[base])
        print(f"| {row} |")


if __name__ == "__main__":
    main()
