"""Few columns of the matrices of `pauli` gates, by the kernel: a sequence of turnings, forward and backward."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from quanta_compiler.kernels.engines.cpu.build import kernel_library
from quanta_compiler.lowering.turnings import Turning


class _Turning(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int32) for name in ("kind", "angle", "place", "count", "stride", "other"))


class TurningTable:
    """A sequence of turnings as the kernel reads it, applied to the first unit vectors; or its transpose."""

    def __init__(self, turnings: Sequence[Turning], size: int, columns: int, *, transpose: bool) -> None:
        found = (_Turning(one.kind, one.angle, one.place, one.numbers, one.stride, one.other) for one in turnings)
        self._turnings = (_Turning * len(turnings))(*found)
        self._shape, self.is_transposed = (size, columns), transpose

    def forward(self, angles: torch.Tensor) -> torch.Tensor:
        """Return `[stack, angles] -> [stack, size, columns]`, in float32 or float64."""
        made = angles.new_empty((len(angles), *self._shape))
        self._run(angles, made, None, None)
        return made

    def backward(self, angles: torch.Tensor, made: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the angles from that of what was made; neither is written to."""
        found = torch.zeros_like(angles)
        self._run(angles, made.clone(), grad.clone(memory_format=torch.contiguous_format), found)
        return found

    def _run(
        self, angles: torch.Tensor, made: torch.Tensor, grad: torch.Tensor | None, found: torch.Tensor | None
    ) -> None:
        library: Any = kernel_library()
        addresses = (None if tensor is None else ctypes.c_void_p(tensor.data_ptr()) for tensor in (made, grad, found))
        library.quanta_turnings(
            self._turnings,
            len(self._turnings),
            int(self.is_transposed),
            2 if angles.dtype == torch.float64 else 0,
            ctypes.c_void_p(angles.data_ptr()),
            *map(ctypes.c_int64, (*angles.shape, *self._shape)),
            *addresses,
            torch.get_num_threads(),
        )
