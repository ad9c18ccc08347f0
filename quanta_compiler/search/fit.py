"""How well a circuit can be a given weight update: gradient steps on the compiled module, beside LoRA's exact optimum.

The loss is the square of the Frobenius norm of the difference, estimated on random columns where there are many: a unit
vector as input gives a column of the circuit's matrix, and the update's column is there to compare with. The scale of a
circuit is free (any dense gate holds it), so the error that is reported is that of the best multiple.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from quanta_compiler.search.updates import Updates, read_update

if TYPE_CHECKING:
    import torch

_COLUMNS = 512
"""Columns of the matrix for one gradient step, and for one block of the error."""
_WARM_UP = 0.1
"""The share of the steps in which the learning rate rises; in the others it falls along half a cosine."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a circuit is fitted; the same numbers give the same error, whoever computes."""

    updates: Updates
    steps: int = 200
    learning_rate: float = 0.5
    """Adam's largest step, in units of the numbers that a gate begins with: those of larger matrices are smaller."""
    seed: int = 0

    def digest(self) -> str:
        """Return a few letters that change with the numbers and with the files."""
        files = [path for path in (self.updates.file, self.updates.base) if path is not None]
        written = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return sha256(repr((self, written)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class FitTask:
    """One circuit and one update."""

    document: dict[str, Any]
    key: str

    @property
    def name(self) -> str:
        """Return what the journal calls it."""
        return f"{self.document['name']}/{self.key}"


@dataclass(frozen=True, slots=True)
class Fit:
    """What came out: `error` is the norm of what the circuit does not reach over that of the update."""

    name: str
    error: float
    lora_rank: int
    """The rank of the LoRA with at most as many parameters."""
    lora_error: float
    """Of the best matrix of that rank (Eckart and Young, Psychometrika 1, 1936)."""


def run_fit(options: FitOptions, task: FitTask) -> Fit:
    """Fit one circuit to one update."""
    from quanta_compiler.bench.timing import torch_threads
    from quanta_compiler.driver import compile_circuit

    # Sums are taken in an order that depends on how many threads there are.
    with torch_threads(1):
        update = read_update(options.updates, task.key)
        compiled = compile_circuit(task.document)
        error = _fit(compiled, update, options)
        parameters = compiled.report.parameters.trainable
        rank = parameters // sum(update.shape)
        return Fit(task.name, error, rank, lora_error(options.updates, task.key, rank))


def _fit(compiled: Any, update: torch.Tensor, options: FitOptions) -> float:
    """Return the relative error of the circuit after the gradient steps."""
    import torch

    columns = update.shape[1]
    # The module begins orthogonal: its matrix has about this norm. Squares of float32 are none of it.
    norm = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    target = (update.double() * (math.sqrt(min(update.shape)) / norm)).float()
    module = compiled.module(seed=options.seed, dtype=torch.float32, backend="torch")
    groups = [{"params": [one], "size": float(one.detach().square().mean().sqrt())} for one in module.parameters()]
    optimizer = torch.optim.Adam(groups)
    generator = torch.Generator().manual_seed(options.seed)
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * group["size"] * _schedule(step, options.steps)
        if columns <= _COLUMNS:
            chosen = torch.arange(columns)
        else:
            chosen = torch.randperm(columns, generator=generator)[:_COLUMNS]
        loss = (_columns(module, chosen, columns) - target.t()[chosen]).square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return _error(module, target)


def _schedule(step: int, steps: int) -> float:
    rise = max(1, round(_WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _columns(module: torch.nn.Module, chosen: torch.Tensor, columns: int) -> torch.Tensor:
    """Return columns of the module's matrix: `[chosen, out_features]`."""
    import torch

    unit = torch.zeros(len(chosen), columns)
    unit[torch.arange(len(chosen)), chosen] = 1.0
    found: torch.Tensor = module(unit)
    return found


def _error(module: torch.nn.Module, target: torch.Tensor) -> float:
    """Return how far the best multiple of the module's matrix is from the target, relative to its norm."""
    import torch

    own = cross = whole = 0.0
    with torch.no_grad():
        for first in range(0, target.shape[1], _COLUMNS):
            chosen = torch.arange(first, min(first + _COLUMNS, target.shape[1]))
            found, wanted = _columns(module, chosen, target.shape[1]).double(), target.t()[chosen].double()
            own += float(found.square().sum())
            cross += float((found * wanted).sum())
            whole += float(wanted.square().sum())
    if not math.isfinite(own) or own == 0:
        return 1.0
    return math.sqrt(max(0.0, 1 - cross * cross / (own * whole)))


def lora_error(updates: Updates, key: str, rank: int) -> float:
    """Return the relative error of the best matrix of a rank."""
    squares = _singular_squares(updates, key)
    return math.sqrt(sum(squares[rank:]) / sum(squares))


@lru_cache(maxsize=16)
def _singular_squares(updates: Updates, key: str) -> tuple[float, ...]:
    import torch

    return tuple(torch.linalg.svdvals(read_update(updates, key).double()).square().tolist())
