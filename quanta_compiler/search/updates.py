"""The weight updates that candidates are fitted to: matrices of a file, less those of a base where one is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from quanta_compiler.diagnostics import clip, did_you_mean

if TYPE_CHECKING:
    import torch

    from quanta_compiler.adapters.tensor_file import TensorFile

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Updates:
    """Where updates `[out_features, in_features]` are: the file, the base to subtract, and the keys in both."""

    file: Path
    base: Path | None
    keys: tuple[str, ...]


def find_updates(file: Path, base: Path | None, keys: Sequence[str], in_features: int, out_features: int) -> Updates:
    """Return the updates of a file for a layer: those of `keys`, or all matrices `[out_features, in_features]`.

    Raises:
        SpecError: a file cannot be read, or a key is missing, of another shape, or not in the base.

    """
    from quanta_compiler.adapters.problems import refusal, some_of
    from quanta_compiler.adapters.tensor_file import open_tensors

    opened = open_tensors(file)
    wanted = (out_features, in_features)
    for key in keys:
        if key not in opened.shapes:
            meant = did_you_mean(key, opened.shapes)
            hint = f"did you mean {meant}?" if meant else f"it has {some_of(sorted(opened.shapes))}"
            raise refusal(file, f"there is no tensor {clip(key)!r}", hint=hint)
        if opened.shapes[key] != wanted:
            message = f"it is {_shape(opened.shapes[key])}, the layer's weight is {_shape(wanted)} (out x in)"
            raise refusal(file, message, place=key, hint="choose --in and --out to match, or another --key")
    chosen = tuple(keys) or tuple(key for key in sorted(opened.shapes) if opened.shapes[key] == wanted)
    if not chosen:
        shapes = sorted({shape for shape in opened.shapes.values() if len(shape) == 2})
        hint = "its matrices are " + (", ".join(map(_shape, shapes[:_SHOWN])) or "none")
        raise refusal(file, f"it has no matrix of {_shape(wanted)} (out x in)", hint=hint)
    if base is not None:
        _check_base(open_tensors(base), chosen, wanted)
    return Updates(file, base, chosen)


def _check_base(base: TensorFile, keys: Sequence[str], wanted: tuple[int, int]) -> None:
    from quanta_compiler.adapters.problems import refusal

    for key in keys:
        shape = base.shapes.get(key)
        if shape is None:
            raise refusal(base.name, f"the base has no tensor {clip(key)!r}", hint="choose with --key what both have")
        if shape != wanted:
            message = f"in the base it is {_shape(shape)}, and should be {_shape(wanted)}"
            raise refusal(base.name, message, place=key, hint="is it the base of this model?")


@lru_cache(maxsize=2)
def read_update(updates: Updates, key: str) -> torch.Tensor:
    """Return an update `[out_features, in_features]` in float32, not scaled.

    Raises:
        SpecError: it cannot be read, or is zero or not finite.

    """
    from quanta_compiler.adapters.problems import refusal
    from quanta_compiler.adapters.tensor_file import open_tensors

    weight = open_tensors(updates.file).read(key).float()
    if updates.base is not None:
        weight = weight - open_tensors(updates.base).read(key).float()
    norm = float(weight.norm())
    if norm == 0 or not math.isfinite(norm):
        fact = "it is zero" if norm == 0 else "it holds numbers that are not finite"
        hint = "there is nothing to fit: choose another --key"
        raise refusal(updates.file, f"{fact}{' beside its base' if updates.base else ''}", place=key, hint=hint)
    return weight


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
