"""What a trained update looks like: ranks, norms, singular values, and how far two updates share their subspaces."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from quanta_compiler.adapters.updates import Update

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
    found = update.decompose(vectors, device)
    values = found.values
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
        effective_rank=effective_rank(values),
        stable_rank=squared / largest**2 if rank else 0.0,
        frobenius_norm=math.sqrt(squared),
        values=values,
        right=found.right[:, : min(rank, vectors)],
    )


def effective_rank(values: torch.Tensor) -> float:
    """Return exp(-sum p ln p), p being the singular values divided by their sum; 0 for a zero matrix."""
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


@dataclass(frozen=True, slots=True)
class Similarity:
    """The subspace similarity of one layer's updates in two adapters."""

    layer: str
    first: int
    second: int
    """The places of the two adapters in the command line."""
    in_features: int
    phi: torch.Tensor
    """float64 `[count of the first, count of the second]`: at `[i - 1, j - 1]` that of the first i and j vectors."""

    def at(self, i: int, j: int) -> float | None:
        """Return phi(i, j), or None where an update has fewer singular vectors."""
        if i > self.phi.shape[0] or j > self.phi.shape[1]:
            return None
        return float(self.phi[i - 1, j - 1])

    def to_dict(self, points: Sequence[int]) -> dict[str, Any]:
        """Return plain data for `--json`: phi(i, j) for all i and j of `points` that both updates have."""
        rows, columns = self.phi.shape
        return {
            "layer": self.layer,
            "adapters": [self.first, self.second],
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
