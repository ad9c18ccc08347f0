"""The engine `cpu`: one C++ kernel for all circuits (circuit.cpp), built by the user's compiler on first use."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch

from quanta_compiler.kernels.by_parts import ByParts
from quanta_compiler.kernels.engines.cpu.build import build_problem as problem
from quanta_compiler.kernels.engines.cpu.build import kernel_library
from quanta_compiler.kernels.precision import Gradients, Matrices, sum_matrices
from quanta_compiler.lowering.table import GateTable, TableEntry, Walk, offsets
from quanta_compiler.predict.engines.cpu import prefers

__all__ = ["name", "prefers", "prepare", "problem", "ready", "takes"]

name = "cpu"

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
"""The dtypes of vectors that the kernel knows, by the numbers that it has for them."""


def takes(device: str, dtype: torch.dtype) -> bool:
    """Say whether the kernel knows vectors of this dtype."""
    return device == "cpu" and dtype in KINDS


def ready() -> bool:
    """Say whether there is a kernel; the first call in a process may build it."""
    return kernel_library() is not None


_NO_MEMORY = "there is no memory for one tile of this circuit's states"
_Places = ctypes.POINTER(ctypes.c_int32)


class _Gate(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("has_matrix", "blocks", "rest", "rows", "columns")),
        *((name, _Places) for name in ("write_rest", "write_row", "grad_rest", "grad_column")),
    )


class _Circuit(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("in_features", "out_features", "in_size", "out_size", "gates")),
        *((name, _Places) for name in ("read", "read_grad")),
        ("gate", ctypes.POINTER(_Gate)),
    )


class KernelTable(ByParts):
    """A gate table as the kernel reads it."""

    def __init__(self, library: ctypes.CDLL, table: GateTable) -> None:
        circuit, address, count = ctypes.POINTER(_Circuit), ctypes.c_void_p, ctypes.c_int
        addresses = ctypes.POINTER(address)
        forward = ctypes.CFUNCTYPE(count, circuit, count, address, ctypes.c_int64, addresses, address, count)
        backward = ctypes.CFUNCTYPE(
            count, circuit, count, address, address, ctypes.c_int64, addresses, address, addresses, count
        )
        self._forward = forward(("quanta_forward", library))
        self._backward = backward(("quanta_backward", library))
        self._table = table
        self._kept: list[Any] = []
        """What the structures point to."""
        gates = (_Gate * len(table.entries))(*(self._gate(entry) for entry in table.entries))
        self._kept.append(gates)
        self._circuit = _Circuit(
            table.in_features,
            table.out_features,
            table.in_size,
            table.out_size,
            len(table.entries),
            self._places(table.read),
            self._places(table.read_grad),
            gates,
        )
        self._has_matrix = [entry.matrix is not None for entry in table.entries]

    def _places(self, walk: Walk) -> Any:
        found = offsets(walk)
        array = (ctypes.c_int32 * len(found))(*found)
        self._kept.append(array)
        return ctypes.cast(array, _Places)

    def _gate(self, entry: TableEntry) -> _Gate:
        walks = (entry.write_rest, entry.write_row, entry.grad_rest, entry.grad_column)
        sizes = (entry.blocks, entry.rest, entry.rows, entry.columns)
        return _Gate(entry.matrix is not None, *sizes, *map(self._places, walks))

    def _addresses(self, tensors: Sequence[torch.Tensor | None]) -> Any:
        """Return one address for every entry, from one tensor for every entry that has a matrix."""
        given = iter(tensors)
        found = [next(given) if has_matrix else None for has_matrix in self._has_matrix]
        return (ctypes.c_void_p * len(found))(*(None if tensor is None else tensor.data_ptr() for tensor in found))

    def forward(self, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
        """Return `[..., in_features] -> [..., out_features]`.

        Raises:
            MemoryError: there is none for a tile of the circuit.

        """
        # Named, so that they outlive the call: it is given their addresses alone.
        matrices = sum_matrices(matrices, x.dtype)
        y = x.new_empty((*x.shape[:-1], self._table.out_features))
        status = self._forward(
            self._circuit,
            KINDS[x.dtype],
            x.data_ptr(),
            math.prod(x.shape[:-1]),
            self._addresses(matrices),
            y.data_ptr(),
            torch.get_num_threads(),
        )
        if status:
            raise MemoryError(_NO_MEMORY)
        return y

    def backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the input and of the matrices, from that of the output, as `Runner` says.

        Raises:
            MemoryError: there is none for a tile of the circuit.

        """
        tokens, matrices = grad.shape[0], sum_matrices(matrices, grad.dtype)
        dx = grad.new_empty((tokens, self._table.in_features)) if needed[0] else None
        sums = [torch.empty_like(matrix) if one else None for matrix, one in zip(matrices, needed[1:], strict=True)]
        status = self._backward(
            self._circuit,
            KINDS[grad.dtype],
            None if x is None else x.data_ptr(),
            grad.data_ptr(),
            tokens,
            self._addresses(matrices),
            None if dx is None else dx.data_ptr(),
            self._addresses(sums),
            torch.get_num_threads(),
        )
        if status:
            raise MemoryError(_NO_MEMORY)
        return dx, sums


def prepare(table: GateTable) -> KernelTable:
    """Return the table in the kernel's form."""
    library = kernel_library()
    assert library is not None
    return KernelTable(library, table)
