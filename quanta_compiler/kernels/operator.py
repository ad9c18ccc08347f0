"""The circuit as torch operators: `quanta_compiler::apply`, and `apply_backward` for its gradients.

Both are registered with fake and autograd implementations, so that torch.compile, torch.export, checkpointing and
distributed training treat them as any operator of torch. A circuit is named by its JSON text: an exported program holds
all that it needs, and another process that imports this package runs it.

On the CPU they run the project's kernel (circuit.cpp), on other devices, for dtypes that the kernel does not know, and
where it could not be built, the same table carried out by torch (portable.py). Neither keeps more than the input.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, cast

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels import portable
from quanta_compiler.kernels.build import kernel_library
from quanta_compiler.kernels.library import KINDS, KernelTable, is_autocast, matrix_dtype, without_autocast
from quanta_compiler.lowering.table import GateTable, MatrixSource, lower_table
from quanta_compiler.spec import load_spec

# Untyped in torch.
_LIBRARY: Any = cast(Any, torch.library.Library)("quanta_compiler", "DEF")
_LIBRARY.define("apply(Tensor x, Tensor[] matrices, str circuit) -> Tensor")
_LIBRARY.define("apply_backward(Tensor grad, Tensor? x, Tensor[] matrices, str circuit, bool[] needed) -> Tensor[]")

Matrices = Sequence[torch.Tensor]
Lookup = Callable[[str, str], torch.Tensor]
"""Returns a stored tensor by its gate and part: "" the matrix, `A` and `B` the factors, `value` of a constant gate."""


class Executable:
    """A circuit's table with all that is derived from it once."""

    def __init__(self, text: str) -> None:
        spec = load_spec(json.loads(text))
        circuit = build_circuit(spec)
        self.tokens = spec.tokens
        self.table: GateTable = lower_table(circuit)
        self.in_features, self.out_features = circuit.in_features, circuit.out_features
        sources = [entry.matrix for entry in self.table.entries if entry.matrix is not None]
        self._readers = [_reader(source) for source in sources]
        self.first_stored = _stored_by(sources[0]) if sources else None
        """A tensor that the circuit stores, by its gate and part: all have one dtype. None where it stores none."""
        self.numbers = [
            entry.blocks * entry.rows * entry.columns for entry in self.table.entries if entry.matrix is not None
        ]

    @cached_property
    def kernel(self) -> KernelTable | None:
        """The table for the compiled kernel; None where that could not be built."""
        library = kernel_library()
        return None if library is None else KernelTable(library, self.table)

    def matrices(self, lookup: Lookup) -> list[torch.Tensor]:
        """Return the matrices of all entries that have one, from the tensors that a circuit stores."""
        return [reader(lookup) for reader in self._readers]


def _stored_by(source: MatrixSource) -> tuple[str, str]:
    """Return a tensor that an entry's matrices come from."""
    if source.gate.kind == "constant":
        return source.gate.name, "value"
    return source.gate.parameter, source.factor or ("B" if source.gate.kind == "lowrank" else "")


def _reader(source: MatrixSource) -> Callable[[Lookup], torch.Tensor]:
    """Return what makes an entry's matrices, `[blocks, rows, columns]` in any shape, from stored tensors."""
    gate, owner = source.gate, source.gate.parameter
    if gate.kind == "constant":
        return lambda lookup: lookup(gate.name, "value")
    if gate.kind == "lowrank" and not source.factor:
        if gate.transpose:
            return lambda lookup: _product(lookup(owner, "B"), lookup(owner, "A")).mT
        return lambda lookup: _product(lookup(owner, "B"), lookup(owner, "A"))
    if gate.transpose and gate.kind != "diagonal":
        return lambda lookup: lookup(owner, source.factor).mT
    return lambda lookup: lookup(owner, source.factor)


def _product(b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Return B A in the dtype of the sums: it is no rounding of its own."""
    dtype = matrix_dtype(b.dtype)
    with without_autocast(b.device):
        return b.to(dtype) @ a.to(dtype)


@lru_cache(maxsize=512)
def executable(circuit: str) -> Executable:
    """Return a circuit's executable form, made once for every text."""
    return Executable(circuit)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def kernel_runs() -> bool:
    """Say whether there is a kernel; the first call in a process may build it."""
    return kernel_library() is not None


def _prepared(
    found: Executable, like: torch.Tensor, matrices: Matrices
) -> tuple[KernelTable | None, list[torch.Tensor]]:
    """Return the kernel, None where it cannot take tensors like these, and the matrices in the dtype of the sums."""
    kernel = found.kernel if like.device.type == "cpu" and like.dtype in KINDS else None
    dtype = matrix_dtype(like.dtype)
    # Asked first, because one token is over in the time that a dozen calls without effect take.
    return kernel, [m if m.dtype == dtype and m.is_contiguous() else m.to(dtype).contiguous() for m in matrices]


def _apply(x: torch.Tensor, matrices: Matrices, circuit: str) -> torch.Tensor:
    found = executable(circuit)
    _check(found, x, matrices)
    flat = x.reshape(-1, found.in_features).contiguous()
    kernel, prepared = _prepared(found, flat, matrices)
    y = portable.forward_blocks(found.table, flat, prepared) if kernel is None else kernel.forward(flat, prepared)
    return y.view(*x.shape[:-1], found.out_features)


def _apply_backward(
    grad: torch.Tensor,
    x: torch.Tensor | None,
    matrices: Matrices,
    circuit: str,
    needed: Sequence[bool],
) -> list[torch.Tensor]:
    found = executable(circuit)
    _check_backward(found, grad, x, matrices, needed)
    flat_grad = grad.detach().reshape(-1, found.out_features).contiguous()
    flat = None if x is None else x.detach().reshape(-1, found.in_features).contiguous()
    kernel, prepared = _prepared(found, flat_grad, matrices)
    if kernel is not None:
        dx, sums = kernel.backward(flat_grad, flat, prepared, needed)
    else:
        dx, sums = portable.backward_blocks(found.table, flat_grad, flat, prepared, needed)
    results = [] if dx is None else [dx.view(*grad.shape[:-1], found.in_features)]
    for total, matrix in zip(sums, matrices, strict=True):
        if total is not None:
            results.append(total.to(matrix.dtype).view(matrix.shape))
    return results


def _check(found: Executable, x: torch.Tensor, matrices: Matrices) -> None:
    """Raise ValueError where the tensors do not go together."""
    if x.shape[-1:] != (found.in_features,):
        raise ValueError(f"expected [..., {found.in_features}], got {list(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"expected vectors of a floating-point dtype, got {x.dtype}")
    _check_matrices(found, x.device, matrices)


def _check_matrices(found: Executable, device: torch.device, matrices: Matrices) -> None:
    if len(matrices) != len(found.numbers):
        raise ValueError(f"expected {len(found.numbers)} matrices, got {len(matrices)}")
    for matrix, numbers in zip(matrices, found.numbers, strict=True):
        if matrix.device != device:
            raise ValueError(f"the input is on {device}, the gates are on {matrix.device}")
        if matrix.numel() != numbers:
            raise ValueError(f"expected a gate of {numbers} numbers, got {list(matrix.shape)}")


def _check_backward(
    found: Executable, grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, needed: Sequence[bool]
) -> None:
    """Raise ValueError where the tensors do not go together, as those of autograd do: the kernel would not see it."""
    if grad.shape[-1:] != (found.out_features,):
        raise ValueError(f"expected a gradient [..., {found.out_features}], got {list(grad.shape)}")
    if len(needed) != 1 + len(matrices):
        raise ValueError(f"expected to be asked for {1 + len(matrices)} gradients, got {len(needed)}")
    if x is None:
        if any(needed[1:]):
            raise ValueError("the gradient of a gate needs the input")
        _check_matrices(found, grad.device, matrices)
        return
    _check(found, x, matrices)
    if x.shape[:-1] != grad.shape[:-1]:
        raise ValueError(f"the input is {list(x.shape)}, the gradient of the result {list(grad.shape)}")
    if x.dtype != grad.dtype:
        raise ValueError(f"the input is {x.dtype}, the gradient of the result {grad.dtype}")
    if x.device != grad.device:
        raise ValueError(f"the input is on {x.device}, the gradient of the result on {grad.device}")


def _fake_apply(x: torch.Tensor, matrices: Matrices, circuit: str) -> torch.Tensor:
    found = executable(circuit)
    _check(found, x, matrices)
    return x.new_empty((*x.shape[:-1], found.out_features))


def _fake_backward(
    grad: torch.Tensor,
    x: torch.Tensor | None,
    matrices: Matrices,
    circuit: str,
    needed: Sequence[bool],
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
    _check(found, x, matrices)
    dtype = matrix_dtype(x.dtype)
    flat = x.reshape(-1, found.in_features).to(dtype)
    with without_autocast(x.device):
        y = portable.apply_table(found.table, flat, [matrix.to(dtype) for matrix in matrices]).to(x.dtype)
    return y.reshape(*x.shape[:-1], found.out_features)


def _differentiable_backward(
    grad: torch.Tensor,
    x: torch.Tensor | None,
    matrices: Matrices,
    circuit: str,
    needed: Sequence[bool],
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


def _nobody_watches(x: torch.Tensor, matrices: Matrices) -> bool:
    """Say whether a call can be answered at once: no mode, no subclass and no lazy view has a say in it."""
    if _get_current_dispatch_mode() is not None:
        return False
    return all(type(tensor) in (torch.Tensor, torch.nn.Parameter) and not tensor.is_neg() for tensor in (x, *matrices))


def _apply_with_gradient(x: torch.Tensor, matrices: Matrices, circuit: str) -> torch.Tensor:
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        # Neither torch.func nor forward differentiation has a place for an autograd implementation of our own.
        return _differentiable_apply(x, matrices, circuit)
    if torch.is_grad_enabled() and (x.requires_grad or any(matrix.requires_grad for matrix in matrices)):
        return cast(torch.Tensor, cast(Any, _Apply).apply(circuit, x, *matrices))
    if _nobody_watches(x, matrices):
        # A second dispatch would take a tenth of the time of one token.
        return _apply(x, matrices, circuit)
    with torch._C._AutoDispatchBelowAutograd():
        return cast(torch.Tensor, APPLY(x, matrices, circuit))


def _apply_batched(
    info: Any, dims: tuple[Any, ...], x: torch.Tensor, matrices: Matrices, circuit: str
) -> tuple[torch.Tensor, int]:
    """Apply the circuit under torch.vmap."""
    x_dim, matrix_dims, _ = dims
    if all(dim is None for dim in matrix_dims):
        return cast(torch.Tensor, APPLY(x.movedim(x_dim, 0), matrices, circuit)), 0
    results = [
        APPLY(
            x if x_dim is None else x.select(x_dim, place),
            [m if dim is None else m.select(dim, place) for m, dim in zip(matrices, matrix_dims, strict=True)],
            circuit,
        )
        for place in range(info.batch_size)
    ]
    return torch.stack(results), 0


def _backward_batched(
    info: Any, dims: tuple[Any, ...], grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, *rest: Any
) -> tuple[list[torch.Tensor], list[int]]:
    """Compute gradients under torch.vmap, one after the other: of several outputs, say, for a Jacobian."""
    grad_dim, x_dim, matrix_dims = dims[:3]

    def at(tensor: Any, dim: int | None, place: int) -> Any:
        return tensor if dim is None else tensor.select(dim, place)

    results = [
        APPLY_BACKWARD(
            at(grad, grad_dim, place),
            at(x, x_dim, place),
            [at(matrix, dim, place) for matrix, dim in zip(matrices, matrix_dims, strict=True)],
            *rest,
        )
        for place in range(info.batch_size)
    ]
    stacked = [torch.stack(tensors) for tensors in zip(*results, strict=True)]
    return stacked, [0] * len(stacked)


def _apply_flops(x: tuple[int, ...], matrices: Any, circuit: str, *_: Any, **__: Any) -> int:
    """Return the FLOPs of the matrix products, from shapes, as FlopCounterMode asks for them."""
    return executable(circuit).table.flops_per_token * math.prod(x[:-1])


def _backward_flops(
    grad: tuple[int, ...], x: Any, matrices: Any, circuit: str, needed: Sequence[bool], *_: Any, **__: Any
) -> int:
    """Return the FLOPs of backward: the states computed again, the gradient passed on, and those of the matrices."""
    passes = 3 if any(needed[1:]) else 1
    return passes * executable(circuit).table.flops_per_token * math.prod(grad[:-1])


_LIBRARY.impl("apply", _apply, "CompositeExplicitAutograd")
_LIBRARY.impl("apply", _apply_with_gradient, "Autograd")
_LIBRARY.impl("apply_backward", _apply_backward, "CompositeExplicitAutograd")
torch.library.register_fake("quanta_compiler::apply", _fake_apply, lib=_LIBRARY)
torch.library.register_fake("quanta_compiler::apply_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_vmap("quanta_compiler::apply", _apply_batched, lib=_LIBRARY)
torch.library.register_vmap("quanta_compiler::apply_backward", _backward_batched, lib=_LIBRARY)
register_flop_formula(torch.ops.quanta_compiler.apply)(_apply_flops)
register_flop_formula(torch.ops.quanta_compiler.apply_backward)(_backward_flops)

APPLY = torch.ops.quanta_compiler.apply.default
APPLY_BACKWARD = torch.ops.quanta_compiler.apply_backward.default


def apply_circuit(circuit: str, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
    """Apply a circuit given by its JSON text: `[..., in_features] -> [..., out_features]`, in the dtype of `x`.

    `matrices`, one for every entry of the table that has one, may be more precise than `x`; sums are in float32 at
    least, and the result is rounded once. Under autocast `x` is rounded to autocast's dtype first.

    Raises:
        ValueError: the tensors have other sizes or devices than the circuit and each other.

    """
    if is_autocast(x.device) and x.is_floating_point() and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return cast(torch.Tensor, APPLY(x, list(matrices), circuit))
