"""The circuit as torch operators: `quanta_compiler::apply`, and `apply_backward` for its gradients.

Both are registered with fake and autograd implementations, so that torch.compile, torch.export, checkpointing and
distributed training treat them as any operator of torch. A circuit is named by its JSON text: an exported program holds
all that it needs, and another process that imports this package runs it.

What computes is the engine for the device and the dtype (engines/). None keeps more than the input.
"""

import math
import sys
from collections.abc import Sequence
from itertools import repeat
from typing import Any, cast

import torch
from torch._decomp import register_decomposition
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from quanta_compiler.kernels.engines.portable.engine import apply_table
from quanta_compiler.kernels.executable import executable
from quanta_compiler.kernels.precision import Matrices, is_autocast, matrix_dtype, without_autocast

# Untyped in torch.
_LIBRARY: Any = cast(Any, torch.library.Library)("quanta_compiler", "DEF")
_LIBRARY.define("apply(Tensor x, Tensor[] matrices, str circuit) -> Tensor")
_LIBRARY.define("apply_backward(Tensor grad, Tensor? x, Tensor[] matrices, str circuit, bool[] needed) -> Tensor[]")


def _apply(x: torch.Tensor, matrices: Matrices, circuit: str) -> torch.Tensor:
    return executable(circuit).forward(x, matrices)


def _apply_backward(
    grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, circuit: str, needed: Sequence[bool]
) -> list[torch.Tensor]:
    return executable(circuit).backward(grad, x, matrices, needed)


def _fake_apply(x: torch.Tensor, matrices: Matrices, circuit: str) -> torch.Tensor:
    found = executable(circuit)
    found.check(x, matrices)
    _keep_whole_in_inductor()
    return x.new_empty((*x.shape[:-1], found.out_features))


def _keep_whole_in_inductor() -> None:
    """Let torch.compile call the operator though it has a decomposition: where `CI` is set, inductor refuses to.

    Its list of such operators is there as soon as it compiles, which is when it asks for shapes; to import it with
    this package would take a second.
    """
    if inductor := sys.modules.get("torch._inductor.lowering"):
        inductor.FALLBACK_ALLOW_LIST.add("quanta_compiler::apply")


def _fake_backward(
    grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, circuit: str, needed: Sequence[bool]
) -> list[torch.Tensor]:
    results = [grad.new_empty((*grad.shape[:-1], executable(circuit).in_features))] if needed[0] else []
    return results + [matrix.new_empty(matrix.shape) for matrix, one in zip(matrices, needed[1:], strict=True) if one]


class _Apply(torch.autograd.Function):
    """Keeps the input, and that only where a matrix needs a gradient."""

    # In the older form with `ctx`, which takes a third of the time of `setup_context` on a single token.
    @staticmethod
    def forward(ctx: Any, circuit: str, x: torch.Tensor, *matrices: torch.Tensor) -> torch.Tensor:
        ctx.circuit = circuit
        ctx.save_for_backward(x if any(ctx.needs_input_grad[2:]) else None, *matrices)
        with torch._C._AutoDispatchBelowAutograd():
            return cast(torch.Tensor, APPLY(x, matrices, circuit))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *matrices = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        # Gradients of many outputs at once (`is_grads_batched`) come in a batch that only torch's own operators know.
        is_batched = torch._C._functorch.is_legacy_batchedtensor(grad)
        backward = _differentiable_backward if torch.is_grad_enabled() or is_batched else APPLY_BACKWARD
        found = iter(backward(grad, x, matrices, ctx.circuit, needed))
        return None, *(next(found) if one else None for one in needed)


def _differentiable_apply(x: torch.Tensor, matrices: Matrices, circuit: str) -> torch.Tensor:
    """Return what the operator does, by operators of torch that can be differentiated any number of times."""
    found = executable(circuit)
    found.check(x, matrices)
    dtype = matrix_dtype(x.dtype)
    flat = x.reshape(-1, found.in_features).to(dtype)
    with without_autocast(x.device):
        own, minus = found.sides([matrix.to(dtype) for matrix in matrices])
        y = apply_table(found.table, flat, own)
        if minus:
            y = y - apply_table(found.table, flat, minus)
    y = y.to(x.dtype).reshape(*x.shape[:-1], found.out_features)
    # What only moves data may have found nothing to move.
    return y if matrices else y.clone()


def _differentiable_backward(
    grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, circuit: str, needed: Sequence[bool]
) -> list[torch.Tensor]:
    """Return the same gradients in a form that can be differentiated again, at the memory of plain autograd."""
    if x is None:
        # The gradient of a linear map does not depend on where it is taken.
        x = grad.new_zeros((*grad.shape[:-1], executable(circuit).in_features)).requires_grad_()
    twice = torch.is_grad_enabled()
    with torch.enable_grad(), without_autocast(grad.device):
        # By names of their own: one tensor may be the matrix of several gates, or be made of another one.
        x, *matrices = (tensor.view_as(tensor) for tensor in (x, *matrices))
        y = _differentiable_apply(x, matrices, circuit)
        wanted = [tensor for tensor, one in zip((x, *matrices), needed, strict=True) if one]
        return list(torch.autograd.grad(y, wanted, grad, create_graph=twice))


def _apply_with_gradient(x: torch.Tensor, matrices: Matrices, circuit: str) -> torch.Tensor:
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        # Neither torch.func nor forward differentiation has a place for an autograd implementation of our own.
        return _differentiable_apply(x, matrices, circuit)
    if torch.is_grad_enabled() and (x.requires_grad or any(matrix.requires_grad for matrix in matrices)):
        return cast(torch.Tensor, cast(Any, _Apply).apply(circuit, x, *matrices))
    if _get_current_dispatch_mode() is None and all(
        type(tensor) in (torch.Tensor, torch.nn.Parameter) and not tensor.is_neg() for tensor in (x, *matrices)
    ):
        # No mode, subclass or lazy view has a say in it; a second dispatch would take a tenth of the time of one token.
        return _apply(x, matrices, circuit)
    with torch._C._AutoDispatchBelowAutograd():
        return cast(torch.Tensor, APPLY(x, matrices, circuit))


def _apply_batched(
    info: Any, dims: tuple[Any, ...], x: torch.Tensor, matrices: Matrices, circuit: str
) -> tuple[torch.Tensor, int]:
    x_dim, matrix_dims, _ = dims
    if all(dim is None for dim in matrix_dims):
        return cast(torch.Tensor, APPLY(x.movedim(x_dim, 0), matrices, circuit)), 0
    results = [
        APPLY(_at(x, x_dim, place), list(map(_at, matrices, matrix_dims, repeat(place))), circuit)
        for place in range(info.batch_size)
    ]
    return torch.stack(results), 0


def _backward_batched(
    info: Any, dims: tuple[Any, ...], grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, *rest: Any
) -> tuple[list[torch.Tensor], list[int]]:
    """Compute gradients under torch.vmap, one after the other: of several outputs, say, for a Jacobian."""
    grad_dim, x_dim, matrix_dims = dims[:3]
    results = [
        APPLY_BACKWARD(
            _at(grad, grad_dim, place),
            _at(x, x_dim, place),
            list(map(_at, matrices, matrix_dims, repeat(place))),
            *rest,
        )
        for place in range(info.batch_size)
    ]
    stacked = [torch.stack(tensors) for tensors in zip(*results, strict=True)]
    return stacked, [0] * len(stacked)


def _at(tensor: Any, dim: int | None, place: int) -> Any:
    return tensor if dim is None else tensor.select(dim, place)


def _apply_flops(x: tuple[int, ...], matrices: Any, circuit: str, *_: Any, **__: Any) -> int:
    """Return the FLOPs of the matrix products, from shapes, as FlopCounterMode asks for them."""
    found = executable(circuit)
    return (2 if found.sides(matrices)[1] else 1) * found.table.flops_per_token * math.prod(x[:-1])


def _backward_flops(
    grad: tuple[int, ...], x: Any, matrices: Any, circuit: str, needed: Sequence[bool], *_: Any, **__: Any
) -> int:
    """Return the FLOPs of backward: the states computed again, the gradient passed on, and those of the matrices."""
    found = executable(circuit)
    sides = found.sides(needed[1:])
    passes = sum(3 if any(side) else 1 for side in sides if side) or 1
    return passes * found.table.flops_per_token * math.prod(grad[:-1])


_LIBRARY.impl("apply", _apply, "CompositeExplicitAutograd")
_LIBRARY.impl("apply", _apply_with_gradient, "Autograd")
_LIBRARY.impl("apply_backward", _apply_backward, "CompositeExplicitAutograd")
torch.library.register_fake("quanta_compiler::apply", _fake_apply, lib=_LIBRARY)
torch.library.register_fake("quanta_compiler::apply_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_vmap("quanta_compiler::apply", _apply_batched, lib=_LIBRARY)
torch.library.register_vmap("quanta_compiler::apply_backward", _backward_batched, lib=_LIBRARY)
# ONNX knows no operator of ours: torch.onnx takes what this does instead.
register_decomposition(torch.ops.quanta_compiler.apply.default)(_differentiable_apply)
register_flop_formula(torch.ops.quanta_compiler.apply)(_apply_flops)
register_flop_formula(torch.ops.quanta_compiler.apply_backward)(_backward_flops)

APPLY = torch.ops.quanta_compiler.apply.default
APPLY_BACKWARD = torch.ops.quanta_compiler.apply_backward.default


def apply_circuit(circuit: str, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
    """Apply a circuit given by its JSON text: `[..., in_features] -> [..., out_features]`, in the dtype of `x`.

    `matrices`, one for every entry of the table that has one, may be more precise than `x`; sums are in float32 at
    least, and the result is rounded once. With twice as many, those of T and those of S, it is T x - S x. Under
    autocast `x` is rounded to autocast's dtype first.

    Raises:
        ValueError: the tensors have other sizes or devices than the circuit and each other.

    """
    if is_autocast(x.device) and x.is_floating_point() and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return cast(torch.Tensor, APPLY(x, list(matrices), circuit))
