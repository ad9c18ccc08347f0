"""What an adapted layer computes with: its circuits, from what it holds of them, and their update as a matrix."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from quanta_compiler.kernels.precision import without_autocast
from quanta_compiler.nn import FittedCircuit, Place, is_sharded
from quanta_compiler.peft.rounding import Rounding
from quanta_compiler.peft.shared import SharingLayer
from quanta_compiler.peft.tensors import Tensors

COPYING = ("frozen_copy", "folded")
"""The residuals that keep a frozen copy."""


class ComputingLayer(SharingLayer):
    """The circuits of a layer as they are applied, beside the base layer."""

    active_adapters: list[str]
    get_base_weight: Callable[[], torch.Tensor]
    get_base_layer: Callable[[], Any]
    quanta_circuit_plan: dict[str, FittedCircuit]
    quanta_circuit_residual: dict[str, str]
    quanta_circuit_rounding: dict[str, Rounding | None]
    quanta_circuit_computed_in: dict[str, torch.dtype]
    _base_device: Callable[[], torch.device]

    def circuits(self, adapter: str) -> tuple[Tensors, Tensors | None]:
        """Return the tensors of T, and those of S where it is a copy; T = S + D, both in `compute_dtype`."""
        frozen, own = self._as_computed(adapter)
        dtype, residual = self.compute_dtype(adapter), self.quanta_circuit_residual[adapter]
        copy, own = _cast(frozen, dtype), _cast(own, dtype)
        rounding = self.quanta_circuit_rounding[adapter]
        if rounding is not None:
            own = {name: rounding.apply(tensor) for name, tensor in own.items()}
        if residual == "identity":
            own = self.quanta_circuit_plan[adapter].from_identity(own)
        elif adapter in self.quanta_circuit_delta:
            own = {name: copy[name] + tensor for name, tensor in own.items()}
        return {**copy, **own}, copy if residual in COPYING else None

    def _as_computed(self, adapter: str) -> tuple[Tensors, Tensors]:
        """Return S and what trains, rounded as the forward pass has them.

        FSDP2 keeps parameters as they are and casts what it gathers for a forward pass: merging reads the former.
        """
        frozen, own = self.frozen_tensors(adapter), self.trained_tensors(adapter)
        if torch.compiler.is_compiling():
            return frozen, own
        if not any(map(is_sharded, self.trained_parameters(adapter))):
            self.quanta_circuit_computed_in[adapter] = next(iter(own.values())).dtype
            return frozen, own
        dtype = self.quanta_circuit_computed_in.get(adapter, torch.float64)
        if dtype.itemsize >= next(iter(own.values())).dtype.itemsize:
            return frozen, own
        return _cast(frozen, dtype), _cast(own, dtype)

    def compute_dtype(self, adapter: str) -> torch.dtype:
        """Return the dtype that the circuits are applied in: at least float32 where the update is a difference."""
        dtype = next(self.trained_parameters(adapter)).dtype
        if self.quanta_circuit_residual[adapter] == "none":
            return dtype
        holder: Any = self.quanta_circuit_frozen[adapter]
        frozen = next((tensor.dtype for tensor in holder._parameters.values()), dtype)
        return torch.promote_types(torch.promote_types(dtype, frozen), torch.float32)

    def delta_blocks(self, adapter: str, scale: float) -> Iterator[tuple[Place, torch.Tensor]]:
        """Yield the update `scale` (T - S) block by block, and where each stands in it.

        For circuits beside the layer. In float32 or better, without gradient, with at most a few MiB in memory at once.
        """
        fitted = self.quanta_circuit_plan[adapter]
        dtype, device = torch.promote_types(self.compute_dtype(adapter), torch.float32), self._base_device()
        with torch.no_grad(), without_autocast(device):
            trained, frozen = self.circuits(adapter)
            copies = fitted.operator_blocks(frozen, dtype, device) if frozen is not None else None
            for place, block in fitted.operator_blocks(trained, dtype, device):
                if copies is not None:
                    block.sub_(next(copies)[1])
                elif self.quanta_circuit_residual[adapter] == "identity":
                    # One of the two is all of them.
                    rows, columns = place
                    (block[columns] if rows == slice(None) else block[:, rows]).diagonal().sub_(1)
                yield place, block.mul_(scale) if scale != 1 else block
                del block  # before the next is made


def _cast(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    return {name: tensor if tensor.dtype == dtype else tensor.to(dtype) for name, tensor in tensors.items()}
