"""A circuit before or behind a layer: W M or M W in the place of W, with M = 1 + scale (T - 1)."""

from collections.abc import Iterator
from typing import Any

import torch

from quanta_compiler.kernels.precision import without_autocast
from quanta_compiler.peft.errors import AdapterError

_BLOCK = 256
"""How many rows or columns of a weight are multiplied at once."""


def multiply(weight: torch.Tensor, layer: Any, adapter: str, scale: float) -> Iterator[torch.Tensor]:
    """Multiply a weight, `[out_features, in_features]`, by an adapter's circuit in place, and yield it part by part.

    In float32 or better, and rounded once; a few MiB are in memory at once.
    """
    fitted = layer.quanta_circuit_plan[adapter]
    apply = fitted.apply_transposed if layer.quanta_circuit_placement[adapter] == "input" else fitted.apply
    tensors = {name: tensor.detach().to(_dtype(layer, adapter)) for name, tensor in layer.circuits(adapter)[0].items()}
    for part in torch.split(_vectors(weight, layer, adapter), _BLOCK):
        with torch.no_grad(), without_autocast(weight.device):
            vectors = part.to(_dtype(layer, adapter))
            turned = apply(tensors, vectors)
            part.copy_(turned if scale == 1 else torch.lerp(vectors, turned, scale))
        yield part


@torch.no_grad()
def divide(weight: torch.Tensor, layer: Any, adapter: str, scale: float) -> None:
    """Undo `multiply` in place, by the inverse of M.

    Raises:
        AdapterError: M has no inverse.

    """
    fitted, (circuit, _) = layer.quanta_circuit_plan[adapter], layer.circuits(adapter)
    dtype = torch.float32 if weight.device.type == "mps" else torch.float64
    matrix = torch.empty(fitted.out_features, fitted.in_features, dtype=dtype, device=weight.device)
    with without_autocast(weight.device):
        for place, block in fitted.operator_blocks(circuit, _dtype(layer, adapter), weight.device):
            matrix[place] = block
    matrix = torch.lerp(torch.eye(len(matrix), dtype=dtype, device=weight.device), matrix, scale)
    vectors = _vectors(weight, layer, adapter)
    if layer.quanta_circuit_placement[adapter] == "output":
        matrix = matrix.mT
    try:
        vectors.copy_(torch.linalg.solve(matrix, vectors.to(dtype), left=False))
    except RuntimeError:
        raise AdapterError(
            f"{layer._layer_name}: the circuit of {adapter!r} is singular, and what it was multiplied by cannot be "
            "divided out again\nhint: load the base model anew"
        ) from None


def _vectors(weight: torch.Tensor, layer: Any, adapter: str) -> torch.Tensor:
    """Return a view of the weight whose rows the circuit turns: W's rows by M^T before it, its columns by M behind."""
    return weight if layer.quanta_circuit_placement[adapter] == "input" else weight.mT


def _dtype(layer: Any, adapter: str) -> torch.dtype:
    return torch.promote_types(layer.compute_dtype(adapter), torch.float32)
