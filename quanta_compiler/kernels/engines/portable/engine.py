"""The engine `portable`: a gate table carried out by torch alone, on any device, where no other engine runs.

The memory contract is the kernel's: nothing is kept for backward but the input, and the states of a few tokens at a
time are computed again.
"""

import math
from collections.abc import Iterator, Sequence

import torch

from quanta_compiler.kernels.by_parts import ByParts
from quanta_compiler.kernels.precision import Gradients, Matrices, matrix_dtype, sum_matrices, without_autocast
from quanta_compiler.lowering.table import GateTable, Walk

_CHUNK_NUMBERS = 2**24
"""Numbers in all states of the tokens that are taken at a time."""


def apply_table(table: GateTable, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
    """Return `[tokens, in_features] -> [tokens, out_features]`, differentiable; `matrices` have the dtype of `x`."""
    return _resized(_states(table, x, matrices)[-1], table.out_features)


name = "portable"


def takes(device: str, dtype: torch.dtype) -> bool:
    """Return True: torch computes anywhere, with anything."""
    return True


def ready() -> bool:
    """Return True."""
    return True


def problem() -> None:
    """Return None."""


def prefers(table: GateTable, tokens: int) -> bool:
    """Return False: it is as slow as the emitted file, and only keeps less."""
    return False


class PortableTable(ByParts):
    """A gate table as a `Runner`: some tokens at a time, so that few states are in memory at once."""

    def __init__(self, table: GateTable) -> None:
        self._table = table

    def forward(self, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
        """Return `[..., in_features] -> [..., out_features]` in the dtype of `x`."""
        table, matrices = self._table, sum_matrices(matrices, x.dtype)
        y = x.new_empty((*x.shape[:-1], table.out_features))
        given, found = x.view(-1, table.in_features), y.view(-1, table.out_features)
        with without_autocast(x.device):
            for chunk in _chunks(table, len(given)):
                found[chunk] = apply_table(table, given[chunk].to(matrix_dtype(x.dtype)), matrices).to(y.dtype)
        return y

    def backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the input and of the matrices, in this order."""
        table, matrices = self._table, sum_matrices(matrices, grad.dtype)
        dx = grad.new_empty((grad.shape[0], table.in_features)) if needed[0] else None
        sums = [torch.zeros_like(matrix) if one else None for matrix, one in zip(matrices, needed[1:], strict=True)]
        with without_autocast(grad.device):
            for chunk in _chunks(table, grad.shape[0]):
                states = None
                if x is not None:
                    states = _states(table, x[chunk].to(matrix_dtype(x.dtype)), matrices)
                flow = _backward_chunk(table, grad[chunk].to(matrix_dtype(grad.dtype)), states, matrices, sums)
                if dx is not None:
                    dx[chunk] = _resized(flow, table.in_features).to(dx.dtype)
        return dx, sums


prepare = PortableTable


def _backward_chunk(
    table: GateTable,
    grad: torch.Tensor,
    states: list[torch.Tensor] | None,
    matrices: Matrices,
    sums: Sequence[torch.Tensor | None],
) -> torch.Tensor:
    """Walk the entries in reverse: add to `sums`, return the gradient of the first state, the input in order."""
    flow = _placed(_resized(grad, table.out_size), table.read_grad)
    place = len(matrices)
    for number in reversed(range(len(table.entries))):
        entry = table.entries[number]
        flow = flow.reshape(-1, entry.blocks, entry.rest, entry.rows)
        if entry.matrix is None:
            flow = _resized(flow, entry.columns)
        else:
            place -= 1
            matrix = matrices[place].reshape(entry.blocks, entry.rows, entry.columns)
            total = sums[place]
            if total is not None:
                assert states is not None, "a gradient of a matrix needs the input"
                state = states[number].reshape(-1, entry.blocks, entry.rest, entry.columns)
                total += torch.einsum("nbsi,nbsj->bij", flow, state).reshape(total.shape)
            flow = torch.einsum("nbsi,bij->nbsj", flow, matrix)
        flow = _placed(flow, entry.grad_rest + entry.grad_column)
    return flow


def _chunks(table: GateTable, tokens: int) -> Iterator[slice]:
    numbers = table.in_size + sum(entry.blocks * entry.rest * entry.rows for entry in table.entries)
    step = max(1, _CHUNK_NUMBERS // max(1, numbers))
    return (slice(first, first + step) for first in range(0, tokens, step))


def _states(table: GateTable, x: torch.Tensor, matrices: Matrices) -> list[torch.Tensor]:
    """Return the states that the entries read, and the last one: `[tokens, numbers]` each."""
    states = [_placed(_resized(x, table.in_size), table.read)]
    given = iter(matrices)
    for entry in table.entries:
        lines = states[-1].reshape(-1, entry.blocks, entry.rest, entry.columns)
        if entry.matrix is None:
            made = _resized(lines, entry.rows)
        elif entry.blocks == 1:
            made = lines @ next(given).reshape(entry.rows, entry.columns).T
        else:
            matrix = next(given).reshape(entry.blocks, entry.rows, entry.columns)
            made = torch.einsum("nbsj,bij->nbsi", lines, matrix)
        states.append(_placed(made, entry.write_rest + entry.write_row))
    return states


def _placed(values: torch.Tensor, walk: Walk) -> torch.Tensor:
    """Return values in the order of the places that a walk over them gives: `[tokens, ...] -> [tokens, numbers]`."""
    tokens = values.shape[0]
    order = sorted(range(len(walk)), key=lambda loop: -walk[loop][1])
    sizes = [size for size, _ in walk]
    return values.reshape(tokens, *sizes).permute(0, *(loop + 1 for loop in order)).reshape(tokens, math.prod(sizes))


def _resized(values: torch.Tensor, size: int) -> torch.Tensor:
    """Return values with the last dimension cut, or padded with zeros."""
    if size <= values.shape[-1]:
        return values[..., :size]
    return torch.nn.functional.pad(values, (0, size - values.shape[-1]))
