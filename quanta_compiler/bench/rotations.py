"""Matrices of `ry` and `orthogonal` gates in plain torch, as one would write them by hand."""

from __future__ import annotations

import torch

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kinds.kind import Form


def rotation_matrix(gate: Gate, numbers: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return what a gate stores, `[*per, count]`, as its matrices `[*per, rows, columns]`, contiguous."""
    if gate.form is Form.ANGLE:
        cosine, sine = torch.cos(numbers / 2), torch.sin(numbers / 2)
        return torch.cat([cosine, -sine, sine, cosine], dim=-1).view(*numbers.shape[:-1], 2, 2)
    size, trained = max(rows, columns), min(rows, columns)
    if gate.rank_parameters is not None:
        trained = min(trained, gate.rank_parameters)
    # Row-major places of the transpose are column-major ones of the matrix.
    column, row = torch.triu_indices(trained, size, 1)
    # Exponentials and quotients know no 16-bit numbers.
    wide = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
    below = wide.new_zeros(*numbers.shape[:-1], size, size)
    below[..., row, column] = wide
    skew = below - below.mT
    if gate.map == "cayley":
        one = torch.eye(size, dtype=wide.dtype)
        whole: torch.Tensor = torch.linalg.solve(one - skew / 2, one + skew / 2)
    else:
        whole = torch.matrix_exp(skew)
    return whole[..., :rows, :columns].to(numbers.dtype).contiguous()
