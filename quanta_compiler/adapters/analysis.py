"""Saved adapters looked at layer by layer: ranks, norms, singular values; and how far two share their subspaces."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from quanta_compiler.adapters.saved import SavedAdapter
from quanta_compiler.adapters.updates import Update
from quanta_compiler.diagnostics import refusal
from quanta_compiler.text.words import some_of

_EPSILON = torch.finfo(torch.float32).eps
"""Weights are trained in float32 or less, whatever they are looked at in."""


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """The figures of one layer's update."""

    layer: str
    in_features: int
    out_features: int
    rank: int
    """The numerical rank: how many singular values are above the tolerance."""
    tolerance: float
    """max(in_features, out_features) * eps(float32) * the largest singular value, as numpy's `matrix_rank` has it."""
    effective_rank: float
    """exp of the Shannon entropy of the singular values divided by their sum (Roy and Vetterli, 2007)."""
    stable_rank: float
    """The squared Frobenius norm over the squared largest singular value."""
    frobenius_norm: float
    values: torch.Tensor
    """All singular values in descending order, float64 `[min(in, out)]`."""
    right: torch.Tensor
    """The first right singular vectors, at most `rank` of them, float64 `[in_features, count]`."""

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain data for `--json`, with the `top` largest singular values."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("values", "right")}
        return {**plain, "singular_values": self.values[:top].tolist()}


def layer_figures(layer: str, update: Update, *, vectors: int, device: torch.device) -> LayerFigures:
    """Compute the figures of one layer, and at most `vectors` right singular vectors; a zero update has rank 0."""
    values, right = update.decompose(vectors, device)
    out_features, in_features = update.shape
    largest = float(values[0]) if len(values) else 0.0
    tolerance = max(in_features, out_features) * _EPSILON * largest
    rank = int((values > tolerance).sum())
    squared = float(values.square().sum())
    return LayerFigures(
        layer=layer,
        in_features=in_features,
        out_features=out_features,
        rank=rank,
        tolerance=tolerance,
        effective_rank=float(torch.special.entr(values / values.sum()).sum().exp()) if values.any() else 0.0,
        stable_rank=squared / largest**2 if rank else 0.0,
        frobenius_norm=math.sqrt(squared),
        values=values,
        right=right[:, : min(rank, vectors)],
    )


@dataclass(frozen=True, slots=True)
class Similarity:
    """The subspace similarity of one layer's updates in two adapters, the first and another."""

    layer: str
    other: int
    """The place of the other adapter in the command line."""
    in_features: int
    phi: torch.Tensor
    """float64 `[count of the first, count of the other]`: at `[i - 1, j - 1]` that of the first i and j vectors."""

    def to_dict(self, points: Sequence[int]) -> dict[str, Any]:
        """Return plain data for `--json`: phi(i, j) for all i and j of `points` that both updates have."""
        rows, columns = self.phi.shape
        return {
            "layer": self.layer,
            "adapters": [0, self.other],
            "in_features": self.in_features,
            "phi": [
                {"i": i, "j": j, "phi": float(self.phi[i - 1, j - 1])}
                for i in points
                for j in points
                if i <= rows and j <= columns
            ],
        }


def subspace_similarity(right: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return phi(i, j) = ||V_i^T W_j||_F^2 / min(i, j) for all i and j, V_i and W_j being the first columns.

    `[n, count], [n, other count] -> [count, other count]`; 1 where one subspace holds the other, 0 where they are
    orthogonal (QuanTA, equation A.1).
    """
    overlap = (right.T @ other).square().cumsum(0).cumsum(1)
    rows = torch.arange(1, overlap.shape[0] + 1, dtype=overlap.dtype)[:, None]
    columns = torch.arange(1, overlap.shape[1] + 1, dtype=overlap.dtype)[None, :]
    return overlap / torch.minimum(rows, columns)


@dataclass(frozen=True, slots=True)
class AnalyzedAdapter:
    """An adapter and the figures of its layers."""

    path: str
    description: str
    layers: tuple[LayerFigures, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What `quanta analyze` finds: every adapter by itself, and the first beside each of the others."""

    adapters: tuple[AnalyzedAdapter, ...]
    similarities: tuple[Similarity, ...]

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "adapters": [
                {
                    "path": adapter.path,
                    "description": adapter.description,
                    "layers": [figures.to_dict(top) for figures in adapter.layers],
                }
                for adapter in self.adapters
            ],
            "similarities": [one.to_dict(similarity_points(self.similarities)) for one in self.similarities],
        }


def analyze(
    adapters: Sequence[SavedAdapter], *, vectors: int, device: torch.device, advance: Callable[[], None]
) -> Analysis:
    """Compute everything; `advance` is called after every layer. At most `vectors` singular vectors are compared."""
    _check_common_layers(adapters)
    analyzed: list[AnalyzedAdapter] = []
    similarities: list[Similarity] = []
    kept = vectors if len(adapters) > 1 else 0
    for place, adapter in enumerate(adapters):
        layers = []
        for layer, update in adapter.updates.items():
            layers.append(layer_figures(layer, update, vectors=kept, device=device))
            advance()
        analyzed.append(AnalyzedAdapter(adapter.path, adapter.description, tuple(layers)))
        by_layer = {figures.layer: figures for figures in layers if place}
        for figures in analyzed[0].layers:
            if figures.layer in by_layer:
                phi = subspace_similarity(figures.right, by_layer[figures.layer].right)
                similarities.append(Similarity(figures.layer, place, figures.in_features, phi))
    return Analysis(tuple(analyzed), tuple(similarities))


def _check_common_layers(adapters: Sequence[SavedAdapter]) -> None:
    """Raise SpecError where the first adapter and another have no layer in common, or one of another shape."""
    first = adapters[0]
    for other in adapters[1:]:
        common = [layer for layer in first.updates if layer in other.updates]
        if not common:
            message = f"it has no layer in common with {first.path}: {some_of(list(other.updates))}"
            hint = f"{first.path} has {some_of(list(first.updates))}; compare adapters of one model"
            raise refusal(other.path, message, hint=hint)
        for layer in common:
            (rows, columns), (known_rows, known_columns) = other.updates[layer].shape, first.updates[layer].shape
            if (rows, columns) != (known_rows, known_columns):
                message = f"it has {columns} -> {rows} features, in {first.path} {known_columns} -> {known_rows}"
                raise refusal(other.path, message, place=layer, hint="compare adapters of one model")


def similarity_points(similarities: Sequence[Similarity]) -> tuple[int, ...]:
    """Return 1, 2, 4, … up to the largest number of vectors that two updates both have."""
    largest = max((min(one.phi.shape) for one in similarities), default=0)
    return tuple(2**power for power in range(largest.bit_length()))
