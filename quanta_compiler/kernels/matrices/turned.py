"""Few columns of the matrices of `pauli` gates, by the kernel for CPUs where it may, else by torch as before.

What takes the time by torch is hundreds of small operations, whatever the batch: the kernel turns numbers in place, and
in backward turns them back, so that nothing but the result is kept.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch

from quanta_compiler.kernels.engine import is_left_to_kernel
from quanta_compiler.kernels.engines.cpu.turnings import TurningTable

Whole = Callable[[torch.Tensor], torch.Tensor]


def by_kernel(table: TurningTable, by_torch: Whole) -> Whole:
    """Return what makes `[*per, angles] -> [*per, rows, columns]`: columns of a matrix, or as rows of its transpose."""

    def matrices(angles: torch.Tensor) -> torch.Tensor:
        if not is_left_to_kernel([angles]):
            return by_torch(angles)
        return cast(torch.Tensor, cast(Any, _Turned).apply(angles, table, by_torch))

    return matrices


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: torch.Tensor, table: TurningTable, by_torch: Whole) -> torch.Tensor:
        flat = _stack(angles)
        made = table.forward(flat)
        ctx.table, ctx.by_torch = table, by_torch
        ctx.save_for_backward(angles, made)
        result = made.view(*angles.shape[:-1], *made.shape[1:])
        return result.mT.contiguous() if table.is_transposed else result.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        angles, made = ctx.saved_tensors
        # Gradients of gradients, and those of many outputs at once, are torch's.
        twice, is_batched = torch.is_grad_enabled(), torch._C._functorch.is_legacy_batchedtensor(grad)
        if twice or is_batched or not is_left_to_kernel([angles, grad]):
            with torch.enable_grad():
                angles = angles.view_as(angles) if angles.requires_grad else angles.detach().requires_grad_()
                (found,) = torch.autograd.grad(ctx.by_torch(angles), angles, grad, create_graph=twice)
            return found, None, None
        flat = _stack(angles)
        given = (grad.mT if ctx.table.is_transposed else grad).reshape(made.shape)
        return ctx.table.backward(flat, made, given).view(angles.shape), None, None


def _stack(angles: torch.Tensor) -> torch.Tensor:
    return angles.reshape(math.prod(angles.shape[:-1]), angles.shape[-1]).contiguous()
