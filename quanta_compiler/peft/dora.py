"""DoRA: a trained magnitude for every output feature, over the rows of W + update.

    y = f (W x + update x) + b,    f = magnitude / norm of the rows of W + update

The norms are constant in backward, as in PEFT's LoRA (section 4.3 of arXiv 2402.09353). They are computed in float32 at
least and always alike, so that the magnitude, which begins as them, gives f = 1 exactly at the start.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from quanta_compiler.nn import whole, wide
from quanta_compiler.peft.bases import away
from quanta_compiler.peft.errors import AdapterError


def begin_magnitude(layer: Any, adapter: str) -> None:
    """Give an adapter its magnitude: the norms of the rows of W + update."""
    if any(parameter.is_meta for parameter in layer._holder(adapter).values()):
        # Loaded later, or there are no numbers at all.
        norms = torch.empty(layer.out_features, device="meta")
    else:
        norms = _row_norms(layer, adapter)
    layer.quanta_circuit_magnitude[adapter] = nn.Parameter(norms)


def row_factors(layer: Any, adapter: str) -> torch.Tensor:
    """Return f, `[out_features]`; 1 for a row of zeros."""
    return _over(layer, adapter, _row_norms(layer, adapter)).detach()


def scaled_result(layer: Any, adapter: str, x: torch.Tensor, result: torch.Tensor, with_copy: bool) -> torch.Tensor:
    """Return f (W x + update x) + b, `result` being W x + b, or what other adapters have made of it.

    Where numbers of x are dropped, they are for both terms that f makes beside `result`, as PEFT has it.
    """
    factors, bias = _over(layer, adapter, _known_norms(layer, adapter)), getattr(layer.get_base_layer(), "bias", None)
    dropout, plain = layer.quanta_circuit_dropout[adapter], result
    if layer.training and isinstance(dropout, nn.Dropout):
        x = dropout(x)
        plain = layer._apply_base(x, None)
    if bias is not None:
        plain = plain - bias
    scaled: torch.Tensor = result + (factors - 1) * plain + factors * layer._update(adapter, x, with_copy, True)
    return scaled


def scale_rows(
    weight: torch.Tensor, layer: Any, adapter: str, scale: float, factors: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Make f (W + update) of a weight, `[out_features, in_features]`, in place, and yield it part by part."""
    for place, block in layer.delta_blocks(adapter, scale):
        part = weight[place]
        yield part.copy_((part.to(block.dtype) + block) * factors[place[0], None])


def unscale_rows(weight: torch.Tensor, layer: Any, adapter: str, scale: float, factors: torch.Tensor) -> None:
    """Undo `scale_rows` in place.

    Raises:
        AdapterError: a magnitude is zero.

    """
    if not bool(factors.all()):
        raise AdapterError(
            f"{layer._layer_name}: a magnitude of {adapter!r} is zero, and what it was multiplied by cannot be divided "
            "out again\nhint: load the base model anew"
        )
    for place, block in layer.delta_blocks(adapter, scale):
        part = weight[place]
        part.copy_(part.to(block.dtype) / factors[place[0], None] - block)


def _over(layer: Any, adapter: str, norms: torch.Tensor) -> torch.Tensor:
    magnitude = whole(layer.quanta_circuit_magnitude[adapter]).to(norms.dtype)
    return torch.where(norms > 0, magnitude / norms.where(norms > 0, 1), 1)


def _known_norms(layer: Any, adapter: str) -> torch.Tensor:
    """Return the norms; in evaluation they are kept while the tensors are the same in the same versions."""
    if layer.training or torch.compiler.is_compiling():
        return _row_norms(layer, adapter)
    own = (layer._holder(adapter), layer.quanta_circuit_frozen[adapter])
    tensors = [*layer.get_base_layer().parameters(), *(tensor for holder in own for tensor in holder.values())]
    tensors += layer.shared_tensors(adapter, "trained").values()
    key = (layer.quanta_circuit_scale[adapter], *map(_version, tensors))
    known = layer.row_norms.get(adapter)
    if known is None or known[0] != key:
        known = layer.row_norms[adapter] = key, _row_norms(layer, adapter)
    norms: torch.Tensor = known[1]
    return norms


def _version(tensor: torch.Tensor) -> tuple[int, int, int]:
    return id(tensor), tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version


@torch.no_grad()
def _row_norms(layer: Any, adapter: str) -> torch.Tensor:
    """Return the norms of the rows of W + update, `[out_features]`, W without what is merged into it."""
    if reason := away(layer.get_base_layer()):
        raise AdapterError(
            f"{layer._layer_name}: `dora` reads the base weight in every forward pass, and {reason}\n"
            "hint: leave `dora` out"
        )
    weight = layer._as_matrix(layer.unmerged_weight())
    squares: torch.Tensor | None = None
    for place, block in layer.delta_blocks(adapter, layer.quanta_circuit_scale[adapter]):
        if squares is None:
            squares = torch.zeros(len(weight), dtype=block.dtype, device=block.device)
        squares[place[0]] += (wide(weight[place]) + block).square().sum(dim=1)
    assert squares is not None, "a circuit has outputs"
    return squares.sqrt()
