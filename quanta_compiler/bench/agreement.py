"""Do the contestants compute the same? Nothing is timed that does not.

The judge is the compiled module in float64 with the same gates; einsum and opt_einsum share no code with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quanta_compiler.bench.contestants import Contestant, Setting, gradients
from quanta_compiler.bench.options import FORWARD, OPERATOR, TRAINING
from quanta_compiler.bench.ours import our_contestant

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Of the norm. A deep circuit in few bits rounds by some percent; what is wrong differs by all of it."""
ROWS = 64
"""How many vectors of the batch are compared."""
_BLOCK = 1024
"""How many rows of a matrix are brought to float64 at a time."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the float64 module makes of some rows of the batch: outputs, and gradients for the rows as a batch."""

    rows: torch.Tensor
    """Their places in the batch."""
    x: torch.Tensor
    gradient: torch.Tensor
    y: torch.Tensor
    gradients: tuple[torch.Tensor | None, ...]


def expected_results(setting: Setting, x: torch.Tensor, gradient: torch.Tensor) -> Expected:
    """Compute the judge's results for rows spread evenly over the batch, its first and last included."""
    rows = torch.linspace(0, len(x) - 1, min(len(x), ROWS)).round().long().to(x.device)
    gates = {key: value.double() for key, value in setting.gates.items()}
    judge = our_contestant("torch", Setting(setting.compiled, torch.float64, gates, setting.device))
    wide, wide_gradient = x[rows].double(), gradient[rows].double()
    with torch.no_grad():
        y = judge.forward(wide)
    return Expected(rows, x[rows], gradient[rows], y, gradients(judge, wide.requires_grad_(), wide_gradient))


def errors(contestant: Contestant, expected: Expected, x: torch.Tensor, modes: Sequence[str]) -> dict[str, float]:
    """Return how far a contestant is from the judge, mode by mode: relative to the norm, NaN for what is no number."""
    found: dict[str, float] = {}
    if FORWARD in modes:
        with torch.no_grad():
            found[FORWARD] = _error(contestant.forward(x)[expected.rows], expected.y)
    if TRAINING in modes:
        mine = gradients(contestant, expected.x.detach().requires_grad_(), expected.gradient)
        each = [_error(one, wanted) for one, wanted in zip(mine, expected.gradients, strict=True)]
        found[TRAINING] = math.nan if any(map(math.isnan, each)) else max(each)
    if OPERATOR in modes and contestant.operator is not None:
        with torch.no_grad():
            blocks = torch.split(contestant.operator(), _BLOCK)
            product = torch.cat([expected.x.double() @ block.double().T for block in blocks], dim=1)
        found[OPERATOR] = _error(product, expected.y)
    return found


def _error(found: torch.Tensor | None, wanted: torch.Tensor | None) -> float:
    if found is None or wanted is None:
        return 0.0 if found is wanted else math.inf
    if found.numel() != wanted.numel():
        return math.inf
    # Gradients of einsum's tensors have more dimensions than the parameters, and the same numbers.
    difference = float(torch.linalg.vector_norm(found.double().reshape(-1) - wanted.reshape(-1)))
    norm = float(torch.linalg.vector_norm(wanted))
    return difference / norm if norm else difference
