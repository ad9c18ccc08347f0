"""What adapters cost beside their training: attaching, folding, merging, and how exact they are.

    python tests/benchmarks/adapters.py

Prints one table in Markdown, with the machine that it was measured on. The layer is 4096 x 4096 with random weights
of standard deviation 0.02, the circuit QuanTA's 16x8x8x4, kaiming_uniform as in the paper's code.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from quanta_compiler.peft import QuantaConfig

sys.path.insert(0, str(Path(__file__).parents[1]))
from compiled_circuits import peak_bytes

CIRCUIT = {"version": 1, "name": "quanta-16-8-8-4", "layout": "16x8x8x4", "gates": ["all_pairs"]}


class Layer(nn.Module):
    """One projection of LLaMA2-7B's width."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.proj = nn.Linear(4096, 4096, bias=False)
        nn.init.normal_(self.proj.weight, std=0.02)
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it: `[tokens, 4096] -> [tokens, 4096]`."""
        result: torch.Tensor = self.proj(x)
        return result


def adapted(dtype: torch.dtype, residual: str) -> tuple[Layer, Any]:
    """Return a layer, and a copy of it with an adapter at its start."""
    torch.manual_seed(0)
    layer = Layer(dtype)
    config = QuantaConfig(circuit=CIRCUIT, residual=residual, target_modules=["proj"])
    return layer, get_peft_model(copy.deepcopy(layer), config)


def attaching(rounds: int) -> list[str]:
    """Attach to the 224 linear layers of a 7B configuration on the meta device, the circuits' plans not yet made."""
    from quanta_compiler import nn as plans

    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    lines = []
    for preset in ("quanta", "lotr:8", "vera:256"):
        seconds = []
        for _ in range(rounds):
            base = copy.deepcopy(model)
            plans._fit.cache_clear()
            start = time.process_time()
            get_peft_model(base, QuantaConfig(preset=preset, target_modules="all-linear"))
            seconds.append(time.process_time() - start)
        found = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        lines.append(f"attach `{preset}` to 224 layers of a 7B configuration, s | {found}")
    return lines


def starting_error(dtype: torch.dtype, residual: str) -> str:
    """Return how far the adapted layer is from the base layer before any training, relative to the output's norm."""
    layer, model = adapted(dtype, residual)
    x = torch.randn(256, 4096, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        expected, found = layer(x).double(), model(x).double()
    name = str(dtype).removeprefix("torch.")
    error = float((found - expected).norm() / expected.norm())
    same = "bit for bit" if torch.equal(found, expected) else f"{error:.1e}"
    return f"start, {residual}, {name}: output against the base layer | {same}"


def move(layer: Any, by: float, generator: torch.Generator) -> None:
    """Move the gates by a fraction of what their initial numbers differ by."""
    for name, difference in layer.quanta_circuit_delta["default"].items():
        spread = by * layer.quanta_circuit_frozen["default"][name].std()
        difference.data += spread * torch.randn(difference.shape, generator=generator)


def autocast_error(moved: float) -> str:
    """Return what autocast would round a small update by, and what it does: relative to the update's norm."""
    _, model = adapted(torch.float32, "frozen_copy")
    layer = model.base_model.model.proj
    generator = torch.Generator().manual_seed(3)
    move(layer, moved, generator)
    trained, frozen = layer.circuits("default")
    fitted = layer.quanta_circuit_plan["default"]
    x = torch.randn(256, 4096, generator=generator)
    with torch.no_grad():
        exact = fitted.apply(trained, x) - fitted.apply(frozen, x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = fitted.apply(trained, x, "torch") - fitted.apply(frozen, x, "torch")
            kept = layer._update("default", x, with_copy=True)
    errors = [float((found.float() - exact).norm() / exact.norm()) for found in (rounded, kept)]
    title = f"gates moved by {moved:g}, bfloat16 autocast: error of the update if rounded, and as applied"
    return f"{title} | {errors[0]:.2f}, {errors[1]:.1e}"


def composing(residual: str, rounds: int) -> str:
    """Return what T = S + D costs a step on 512 tokens, against the same step with a T that is there already."""
    _, model = adapted(torch.float32, residual)
    layer = model.base_model.model.proj
    trained, frozen = layer.circuits("default")
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in trained.items()}
    compose = layer.circuits
    ways = {"composed": compose, "there": lambda _: (leaves, frozen)}
    x = torch.randn(512, 4096, generator=torch.Generator().manual_seed(1)).requires_grad_()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 2):
        for name, way in ways.items():
            layer.circuits = way
            start = time.perf_counter()
            model(x).sum().backward()
            if round_ >= 2:
                seconds[name].append(time.perf_counter() - start)
    ratios = sorted(a / b for a, b in zip(seconds["composed"], seconds["there"], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
    title = f"{residual}: a step on 512 tokens that composes T = S + D, against one that has T"
    return f"{title} | {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"


def call_overhead(residual: str, rounds: int) -> str:
    """Return what a call takes where there is next to nothing to compute: one token on a layer of 64 features."""
    torch.manual_seed(0)
    circuit = {"version": 1, "name": "quanta-4-4-4", "layout": "4x4x4", "gates": ["all_pairs"]}
    config = QuantaConfig(circuit=circuit, residual=residual, target_modules=["0"])
    layer = get_peft_model(nn.Sequential(nn.Linear(64, 64)), config).base_model.model[0]
    x, calls = torch.randn(1, 64), 300
    seconds = []
    with torch.no_grad():
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(calls):
                layer(x)
            seconds.append((time.perf_counter() - start) / calls)
    return (
        f"{residual}: a call with one token on a layer of 64 features, ms, least of {rounds} | {1e3 * min(seconds):.3f}"
    )


def merging(dtype: torch.dtype) -> list[str]:
    """Merge and unmerge: memory on top, and what is left of the base weight."""
    layer, model = adapted(dtype, "frozen_copy")
    move(model.base_model.model.proj, 0.1, torch.Generator().manual_seed(2))
    own = layer.proj.weight.untyped_storage().nbytes()
    peak = peak_bytes(model, None, model.merge_adapter)
    model.unmerge_adapter()
    weight, again = (each.weight.detach().double() for each in (layer.proj, model.base_model.model.proj.base_layer))
    left = float((again - weight).norm() / weight.norm())
    name = str(dtype).removeprefix("torch.")
    return [
        f"merge 4096 x 4096, {name}: memory on top, over the weight's own | {peak / own:.2f}",
        f"merge and unmerge, {name}: weight against the base weight | {left:.1e}",
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of attaching, and eight times as many of composing")
    rounds = parser.parse_args().rounds
    rows = attaching(rounds)
    rows += [composing(residual, 8 * rounds) for residual in ("frozen_copy", "folded")]
    rows += [call_overhead(residual, 4 * rounds) for residual in ("frozen_copy", "folded")]
    for dtype in (torch.float32, torch.bfloat16):
        rows += [starting_error(dtype, residual) for residual in ("frozen_copy", "folded")]
    rows += [autocast_error(moved) for moved in (0.1, 0.01)]
    for dtype in (torch.float32, torch.bfloat16):
        rows += merging(dtype)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| figure | measured |\n| :-- | --: |")
    print("\n".join(f"| {row} |" for row in rows))


if __name__ == "__main__":
    main()
