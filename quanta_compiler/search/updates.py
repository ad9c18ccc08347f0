"""The weight updates that candidates are fitted to: matrices of a file, less those of a base where one is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from quanta_compiler.diagnostics import clip, meant, refusal
from quanta_compiler.text.words import some_of

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
    if base is not None:
        _check_base(open_tensors(base), chosen, wanted)
    updates = Updates(file, base, chosen)
    zero = tuple(key for key in chosen if not read_update(updates, key).any())
    if keys or len(zero) == len(chosen):
        for key in zero[:1]:
            message = f"it is zero{' beside its base' if base else ''}"
            raise refusal(file, message, place=key, hint="there is nothing to fit: choose another --key")
    return Updates(file, base, tuple(key for key in chosen if key not in zero), zero)


def _refuse_index(path: Path, keys: Sequence[str]) -> None:
    """Raise SpecError where a file is the index of a checkpoint in several files."""
    if path.suffix != ".json" or not path.is_file():
        return
    try:
        shards = json.loads(path.read_bytes())["weight_map"]
        names = {str(shards[key]) for key in keys if key in shards}
    except (OSError, ValueError, LookupError, TypeError):
        return
    shard = f" ({', '.join(sorted(names))})" if names else ""
    raise refusal(path, "it is the index of a sharded checkpoint", hint=f"give the shard that holds the key{shard}")


def _check_base(base: TensorFile, keys: Sequence[str], wanted: tuple[int, int]) -> None:
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
