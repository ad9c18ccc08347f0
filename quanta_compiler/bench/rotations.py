"""The matrices of gates that are made of what they store, for an einsum."""

import torch

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kernels.matrices.rotations import made_by
from quanta_compiler.kinds.kind import Form
from quanta_compiler.runtime.rotation_functions import ry


def rotation_matrix(gate: Gate, numbers: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return what a gate stores, `[*per, ...]`, as its matrices `[*per, rows, columns]`, contiguous."""
    if gate.form is Form.ANGLE:
        return ry(numbers.flatten()).view(*numbers.shape[:-1], 2, 2)
    return made_by(gate.matrix, rows, columns)(numbers).contiguous()
