"""How well a circuit can be a given weight update: gradient steps on the compiled module, beside LoRA's exact optimum.

The loss is the square of the Frobenius norm of the difference, estimated on random columns where there are many: a unit
vector as input gives a column of the circuit's matrix, and the update's column is there to compare with. The scale of a
circuit is free (any dense gate holds it), so the error that is reported is that of the best multiple.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_compiler.diagnostics import clip, meant, refusal
from quanta_compiler.text.words import some_of

if TYPE_CHECKING:
    import torch

_COLUMNS = 512
"""Columns of the matrix for one gradient step, and for one block of the error."""
_WARM_UP = 0.1
"""The share of the steps in which the learning rate rises; in the others it falls along half a cosine."""
_SHOWN = 4
"""How many of a file's shapes are named."""


@dataclass(frozen=True, slots=True)
class Updates:
    """Where updates `[out_features, in_features]` are: the file, the base to subtract, and the keys in both."""

    file: Path
    base: Path | None
    keys: tuple[str, ...]
    unchanged: tuple[str, ...] = ()
    """Matrices that would be fitted, but are zero: left out."""


def find_updates(file: Path, base: Path | None, keys: Sequence[str], in_features: int, out_features: int) -> Updates:
    """Return the updates of a file for a layer: those of `keys`, or all matrices `[out_features, in_features]`.

    Raises:
        SpecError: a file cannot be read; a key is missing, of another shape, or not in the base; an update holds what
            is not finite; one of `keys`, or all there are, are zero.

    """
    from quanta_compiler.adapters.tensor_file import open_tensors

    for path in (file, base):
        if path is not None:
            _refuse_index(path, keys)
    opened = open_tensors(file)
    wanted = (out_features, in_features)
    for key in keys:
        if key not in opened.shapes:
            hint = meant(key, opened.shapes, f"it has {some_of(sorted(opened.shapes))}", mark="")
            raise refusal(file, f"there is no tensor {clip(key)!r}", hint=hint)
        if opened.shapes[key] != wanted:
            message = f"it is {_shape(opened.shapes[key])}, the layer's weight is {_shape(wanted)} (out x in)"
            raise refusal(file, message, place=key, hint="choose --in and --out to match, or another --key")
    chosen = tuple(keys) or tuple(key for key in sorted(opened.shapes) if opened.shapes[key] == wanted)
    if not chosen:
        shapes = sorted({shape for shape in opened.shapes.values() if len(shape) == 2})
        hint = "its matrices are " + (", ".join(map(_shape, shapes[:_SHOWN])) or "none")
        raise refusal(file, f"it has no matrix of {_shape(wanted)} (out x in)", hint=hint)
    before = opened if base is None else open_tensors(base)
    for key in chosen:
        shape = before.shapes.get(key)
        if shape is None:
            raise refusal(before.name, f"the base has no tensor {clip(key)!r}", hint="choose with --key what both have")
        if shape != wanted:
            message = f"in the base it is {_shape(shape)}, and should be {_shape(wanted)}"
            raise refusal(before.name, message, place=key, hint="is it the base of this model?")
    updates = Updates(file, base, chosen)
    zero = tuple(key for key in chosen if not read_update(updates, key).any())
    if keys or len(zero) == len(chosen):
        for key in zero[:1]:
            message = f"it is zero{' beside its base' if base else ''}"
            raise refusal(file, message, place=key, hint="there is nothing to fit: choose another --key")
    return Updates(file, base, tuple(key for key in chosen if key not in zero), zero)


def _refuse_index(path: Path, keys: Sequence[str]) -> None:
    if path.suffix != ".json" or not path.is_file():
        return
    try:
        shards = json.loads(path.read_bytes())["weight_map"]
        names = {str(shards[key]) for key in keys if key in shards}
    except (OSError, ValueError, LookupError, TypeError):
        return
    shard = f" ({', '.join(sorted(names))})" if names else ""
    raise refusal(path, "it is the index of a sharded checkpoint", hint=f"give the shard that holds the key{shard}")


@lru_cache(maxsize=2)
def read_update(updates: Updates, key: str) -> torch.Tensor:
    """Return an update `[out_features, in_features]` in float32, not scaled.

    Raises:
        SpecError: it cannot be read, or is not finite.

    """
    from quanta_compiler.adapters.tensor_file import open_tensors

    weight = open_tensors(updates.file).read(key).float()
    if updates.base is not None:
        weight = weight - open_tensors(updates.base).read(key).float()
    if not weight.isfinite().all():
        fact = f"it holds numbers that are not finite{' beside its base' if updates.base else ''}"
        raise refusal(updates.file, fact, place=key, hint="choose another --key")
    return weight


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a circuit is fitted; the same numbers give the same error on every worker."""

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
