"""The matrices that engines get, the dtypes of sums, and autocast kept out of them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

Matrices = Sequence[torch.Tensor]
"""One for every entry of a gate table that has one."""
Gradients = tuple[torch.Tensor | None, list[torch.Tensor | None]]
"""Of the vectors and of the matrices; None where it is not needed."""


def matrix_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that matrices and sums have beside vectors of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sum_matrices(matrices: Matrices, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return matrices contiguous and in the dtype of the sums beside vectors of `dtype`."""
    wanted = matrix_dtype(dtype)
    # Asked first, because one token is over in the time that a dozen calls without effect take.
    return [m if m.dtype == wanted and m.is_contiguous() else m.to(wanted).contiguous() for m in matrices]


def is_autocast(device: torch.device) -> bool:
    """Say whether autocast is on for a device; `meta` knows no autocast."""
    # `torch.amp.is_autocast_available` knows them all, but torch.compile cannot trace it in 2.10.
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which torch's products are in the dtype of their factors: sums are in `matrix_dtype`."""
    return torch.autocast(device.type, enabled=False) if is_autocast(device) else nullcontext()
