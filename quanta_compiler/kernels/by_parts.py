"""The difference of two circuits of one table by an engine that applies them one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch

from quanta_compiler.kernels.precision import Gradients, Matrices, matrix_dtype

Tilings = Mapping[str, tuple[int, int]]
"""Tokens and warps of a program, by what the engine calls a kernel."""


class ByParts(ABC):
    """A `Runner` that has one way to apply one circuit."""

    @abstractmethod
    def forward(self, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
        """Return `[..., in_features] -> [..., out_features]`."""

    @abstractmethod
    def backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the input and of the matrices."""

    def in_words(self) -> str:
        """Return nothing: there is one way only."""
        return ""

    def tune(self, seconds: Callable[[], float]) -> Tilings:
        """Try nothing: there is one way only."""
        return {}

    def choose(self, device: torch.device, tilings: Tilings) -> None:
        """Choose nothing: there is one way only."""
        assert not tilings, tilings

    def forward_difference(self, x: torch.Tensor, matrices: Matrices, minus: Matrices) -> torch.Tensor:
        """Return T x - S x, rounded once."""
        wide = x.to(matrix_dtype(x.dtype))
        return (self.forward(wide, matrices) - self.forward(wide, minus)).to(x.dtype)

    def backward_difference(
        self, grad: torch.Tensor, x: torch.Tensor | None, sides: tuple[Matrices, Matrices], needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the input, rounded once, and of the matrices of T and of S."""
        dtype = matrix_dtype(grad.dtype)
        wide, given = grad.to(dtype), None if x is None else x.to(dtype)
        count = len(sides[0])
        dx, sums = self.backward(wide, given, sides[0], needed[: 1 + count])
        other, negative = self.backward(wide, given, sides[1], (needed[0], *needed[1 + count :]))
        if dx is not None and other is not None:
            dx = (dx - other).to(grad.dtype)
        return dx, [*sums, *(None if one is None else -one for one in negative)]
