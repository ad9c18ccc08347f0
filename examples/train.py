"""Fit a compiled circuit to a full-rank matrix, beside a LoRA of the same size.

    quanta compile examples/llama2-7b-16-8-8-4.yaml -o build
    python examples/train.py build/llama2_7b_16_8_8_4.py

The target W turns every axis of the circuit's layout by a random rotation (a Kronecker product). It is orthogonal, so
all its singular values are 1: the best matrix of rank r leaves an error of 1 - r/n, while the circuit can reach it.
Printed is the relative squared error |T x - W x|^2 / |W x|^2 on fresh random vectors; an update of zero has 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Read the command line, fit both, print the losses side by side."""
    parser = argparse.ArgumentParser(description="Fit a compiled circuit and a LoRA of its size to a full-rank matrix.")
    parser.add_argument("module", type=Path, help="a file that `quanta compile` has written")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--tokens", type=int, default=64, help="random vectors a step")
    options = parser.parse_args()

    torch.manual_seed(0)
    circuit = import_circuit(options.module)
    for parameter in circuit.parameters():
        # The circuit begins as the identity, as an adapted layer begins with its frozen weight.
        if parameter.dim() > 1:
            parameter.data = torch.eye(*parameter.shape[-2:]).expand_as(parameter).clone()
    size = sum(parameter.numel() for parameter in circuit.parameters())
    rank = max(1, round(size / (circuit.in_features + circuit.out_features)))
    lora = LoRA(circuit.in_features, circuit.out_features, rank)
    target = rotations(circuit)
    lora_size = sum(parameter.numel() for parameter in lora.parameters())
    print(f"circuit: {size} parameters    LoRA r={rank}: {lora_size} parameters")
    print("step   circuit      LoRA")
    fits = [Fit(circuit, target, lr=1e-2), Fit(lora, target, lr=1e-3)]
    for step in range(options.steps + 1):
        x = torch.randn(options.tokens, circuit.in_features)
        losses = [fit.step(x) for fit in fits]
        if step % max(1, options.steps // 10) == 0:
            print(f"{step:4d}  {losses[0]:8.4f}  {losses[1]:8.4f}")


class LoRA(torch.nn.Module):
    """The update B A, `[..., in_features] -> [..., out_features]`."""

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.A = torch.nn.Parameter(torch.randn(rank, in_features) / math.sqrt(in_features))
        self.B = torch.nn.Parameter(torch.zeros(out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the update."""
        product: torch.Tensor = x @ self.A.t() @ self.B.t()
        return product


class Fit:
    """A module trained towards a matrix by Adam."""

    def __init__(self, module: torch.nn.Module, target: torch.Tensor, lr: float) -> None:
        self.module = module
        self.target = target
        self.optimizer = torch.optim.Adam(module.parameters(), lr=lr)

    def step(self, x: torch.Tensor) -> float:
        """Take one step on `x: [tokens, in_features]`; return the relative squared error before it."""
        wanted = x @ self.target.t()
        loss = (self.module(x) - wanted).square().sum() / wanted.square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def import_circuit(path: Path) -> Any:
    """Import an emitted file by its path and return an instance of its class."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"{path} is no Python file; write it with `quanta compile`")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Circuit()


def rotations(circuit: Any) -> torch.Tensor:
    """Return the Kronecker product of a rotation of each axis of the layout, cut to the circuit's features."""
    layout = json.loads(circuit.circuit)["layout"]
    matrix = torch.ones(1, 1)
    for size in layout.values() if isinstance(layout, dict) else layout:
        generator = torch.randn(size, size) / math.sqrt(size)
        matrix = torch.kron(matrix, torch.linalg.matrix_exp(generator - generator.t()))
    return matrix[: circuit.out_features, : circuit.in_features]


if __name__ == "__main__":
    main()
