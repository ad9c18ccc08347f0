"""What takes part in a measurement: something with a forward pass, and tensors that train."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from quanta_compiler.bench.options import FORWARD, OPERATOR, TRAINING
from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.ir.parameters import all_stored

CPU = torch.device("cpu")


class LeftOutError(Exception):
    """A contestant cannot take part here; the message is a clause that says why."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one mode takes, known before it runs: FLOPs, and about how many bytes beside its own tensors."""

    flops: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something to measure: `forward` maps `[tokens, in_features]` to `[tokens, out_features]`."""

    name: str
    title: str
    forward: Callable[[torch.Tensor], torch.Tensor]
    parameters: tuple[torch.Tensor, ...]
    """Those that train. Of a contestant that computes the circuit: in the order of the file, each as many numbers as
    the circuit stores."""
    own: tuple[torch.Tensor, ...]
    """Every tensor that it holds between two passes, those that train included."""
    costs: Mapping[str, Cost]
    """The modes that it has."""
    operator: Callable[[], torch.Tensor] | None = None
    """Its matrix, `[out_features, in_features]`."""
    is_circuit: bool = False
    """Whether it computes the circuit, so that its numbers can be compared."""


Batch = tuple[torch.Tensor, torch.Tensor]
"""The input, `[tokens, in_features]`, and the output's gradient, `[tokens, out_features]`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all contestants of one measurement share."""

    compiled: CompiledCircuit
    dtype: torch.dtype
    gates: Mapping[str, torch.Tensor]
    """The values of the circuit's stored tensors, keyed as in the state dict after `gates.`."""
    device: torch.device = CPU
    """Where everything lies, the gates included."""

    @property
    def tokens(self) -> int:
        """Return the size of the batch: what the circuit was planned for."""
        return self.compiled.report.apply.planned_tokens

    @property
    def features(self) -> tuple[int, int]:
        """Return `in_features, out_features`."""
        return self.compiled.spec.in_features, self.compiled.spec.out_features

    @property
    def circuit_flops(self) -> tuple[float, float]:
        """Return the FLOPs of the planned circuit: of a forward pass, and of its matrix."""
        report = self.compiled.report
        return report.apply.flops_per_token * self.tokens, float(report.operator.flops)

    @property
    def trained(self) -> tuple[str, ...]:
        """Return the keys of the gates that train, in the order of the file."""
        return tuple(stored.key for stored in all_stored(self.compiled.circuit) if not stored.gate.frozen)


def runs(contestant: Contestant, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, Callable[[int], None]]:
    """Return for each mode the function that runs a contestant `count` times; `gradient` is that of the output."""
    given = x.detach().requires_grad_()

    def forward(count: int) -> None:
        with torch.no_grad():
            for _ in range(count):
                contestant.forward(x)

    def training(count: int) -> None:
        for _ in range(count):
            gradients(contestant, given, gradient)

    def operator(count: int) -> None:
        assert contestant.operator is not None
        with torch.no_grad():
            for _ in range(count):
                contestant.operator()

    return {FORWARD: forward, TRAINING: training, OPERATOR: operator}


def gradients(contestant: Contestant, x: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients of `x`, which requires one, and of what trains; None: it has no part."""
    wanted = [x, *contestant.parameters]
    return torch.autograd.grad(contestant.forward(x), wanted, gradient, allow_unused=True)


def draw_gates(
    compiled: CompiledCircuit, dtype: torch.dtype, seed: int = 0, device: torch.device = CPU
) -> dict[str, torch.Tensor]:
    """Return gates that about keep the scale of a vector.

    Those that the file asks for may begin at zero or shrink the output until numbers are denormal, which some
    processors are slow with, and which agree with anything.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return {
        stored.key: (torch.randn(stored.shape, generator=generator) / math.sqrt(stored.part.fan_in)).to(device, dtype)
        for stored in all_stored(compiled.circuit)
    }
