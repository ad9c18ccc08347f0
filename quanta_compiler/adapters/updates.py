"""The update of a layer's weight that a saved adapter is, and its singular values.

Everything is computed in float64: T - S of a short training is far smaller than T, and rounding T in float32 would be
noise of full rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from quanta_compiler.nn import FittedCircuit


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Singular values in descending order, `[min(in, out)]`, and right singular vectors, `[in_features, count]`."""

    values: torch.Tensor
    right: torch.Tensor


class Update(Protocol):
    """The update `W' - W` of one layer, `[out_features, in_features]`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return `(out_features, in_features)`."""

    def matrix(self, device: torch.device) -> torch.Tensor:
        """Return the update in float64."""

    def decompose(self, vectors: int, device: torch.device) -> Decomposition:
        """Return all singular values and at most `vectors` right singular vectors, in float64 on the CPU."""


@dataclass(frozen=True, slots=True)
class FactoredUpdate:
    """LoRA's update: `scale * left @ right`, `[out, r]` and `[r, in]`."""

    left: torch.Tensor
    right: torch.Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Return `(out_features, in_features)`."""
        return self.left.shape[0], self.right.shape[1]

    def matrix(self, device: torch.device) -> torch.Tensor:
        """Return the update in float64."""
        return self.scale * (self.left.to(device, torch.float64) @ self.right.to(device, torch.float64))

    def decompose(self, vectors: int, device: torch.device) -> Decomposition:
        """Return singular values and right vectors by way of the factors: the matrix itself is never made.

        With B = Q R and A^T = P L, the update is Q (scale R L^T) P^T; only what stands in the middle is decomposed.
        """
        _, upper = torch.linalg.qr(self.left.to(device, torch.float64))  # [out, r] -> [p, r]
        basis, lower = torch.linalg.qr(self.right.to(device, torch.float64).T)  # [in, r] -> [in, q], [q, r]
        _, values, right = torch.linalg.svd(self.scale * upper @ lower.T, full_matrices=False)
        padded = torch.zeros(min(self.shape), dtype=torch.float64)
        padded[: len(values)] = values.cpu()
        return Decomposition(padded, (basis @ right[:vectors].T).cpu())


@dataclass(frozen=True, slots=True)
class CircuitUpdate:
    """A circuit's update: `scale * (T - S)`, or `scale * T` where there is no frozen copy."""

    circuit: FittedCircuit
    trained: Mapping[str, torch.Tensor]
    """All tensors of T by name."""
    frozen: Mapping[str, torch.Tensor] | None
    """All tensors of S by name."""
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Return `(out_features, in_features)`."""
        return self.circuit.out_features, self.circuit.in_features

    def matrix(self, device: torch.device) -> torch.Tensor:
        """Return the update in float64: the circuits applied to blocks of unit vectors."""
        matrix = torch.zeros(self.shape, dtype=torch.float64, device=device)
        for sign, tensors in ((1.0, self.trained), (-1.0, self.frozen)):
            if tensors is not None:
                moved = {name: tensor.to(device) for name, tensor in tensors.items()}
                for columns, block in self.circuit.operator_blocks(moved, dtype=torch.float64, device=device):
                    matrix[:, columns] += sign * block.T
        return self.scale * matrix

    def decompose(self, vectors: int, device: torch.device) -> Decomposition:
        """Return singular values and right vectors by the eigenvalues of the smaller of M M^T and M^T M.

        In float64 that resolves singular values down to 1.5e-8 sqrt(n) of the largest, an eighth or less of what the
        numerical rank counts as zero, in a fraction of the time of a full decomposition.
        """
        matrix = self.matrix(device)
        is_wide = matrix.shape[0] < matrix.shape[1]
        gram = matrix @ matrix.T if is_wide else matrix.T @ matrix
        if vectors == 0:
            values = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()
            return Decomposition(values.cpu(), torch.zeros(self.shape[1], 0, dtype=torch.float64))
        squares, basis = torch.linalg.eigh(gram)
        values = squares.flip(0).clamp(min=0).sqrt()
        first = basis.flip(1)[:, : min(vectors, len(values))]
        if is_wide:
            # V = M^T U / s; a vector of a value that is zero means nothing, and is left zero.
            first = matrix.T @ (first / values[: first.shape[1]].clamp(min=torch.finfo(torch.float64).tiny))
        return Decomposition(values.cpu(), first.cpu())
