"""Numbers rounded to a few bits by groups, straight through for the gradient, and packed for a file.

A group is `group_size` numbers of a tensor in row-major order. Its least number is code 0, its greatest the last code
N = 2^bits - 1, and the codes between are evenly spaced: zero = least, scale = (greatest - least) / N (uniform affine
quantization, with one bit too). The two ends are stored in place of scale and zero, and both are met exactly: numbers
that are rounded already stay as they are, bit for bit, and a group of zeros is zeros.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from quanta_compiler.text.words import plural

ENDS, FORM = "-ends", "-form"
"""What stands behind a tensor's key: float32 `[groups, 2]`, and int32 `[bits, group_size, *shape]`.

The codes have the key itself, as uint8 with one dimension more than the tensor, so that nothing takes them for it.
"""
MOST_BITS = 8


class Rounding(NamedTuple):
    """How many bits a number has, and how many numbers have a scale and a zero together."""

    bits: int
    group_size: int

    def __str__(self) -> str:
        return f"{plural(self.bits, 'bit')} by groups of {self.group_size:,}"

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rounded tensor in its own dtype; its gradient goes straight through."""
        rounded = _dequantize(*_quantize(tensor.detach(), self), self.bits, tensor.shape)
        # The difference is zero, and has the gradient.
        return rounded.to(tensor.dtype) + (tensor - tensor.detach())

    def packed_bytes(self, shape: Sequence[int]) -> int:
        """Return the bytes of a packed tensor: its codes, two ends for each group, and its form."""
        numbers = math.prod(shape)
        return -(-numbers * self.bits // 8) + 8 * -(-numbers // self.group_size) + 4 * (2 + len(shape))


def described(layer: Any) -> str:
    """Return how the adapters of a layer are rounded, and in how many bytes its own tensors are saved."""
    texts = []
    for adapter, rounding in layer.quanta_circuit_rounding.items():
        if rounding is not None:
            shapes = layer.quanta_circuit_plan[adapter].shapes
            size = sum(rounding.packed_bytes(shapes[name]) for name in layer._holder(adapter)._parameters)
            texts.append(f", {adapter}: {rounding}, saved in {size:,} bytes")
    return "".join(texts)


def pack(tensor: torch.Tensor, rounding: Rounding) -> dict[str, torch.Tensor]:
    """Return a tensor rounded and packed: codes, ends and form, by what stands behind its key."""
    codes, ends = _quantize(tensor.detach(), rounding)
    flat = codes.reshape(-1)[: tensor.numel()].to(torch.uint8)
    # A byte is filled from its lowest bit on, and so is the next: [numbers, bits] -> [bytes, 8]
    bits = (flat[:, None] >> _places(rounding.bits, flat.device)) & 1
    filled = torch.nn.functional.pad(bits.reshape(-1), (0, -bits.numel() % 8)).reshape(-1, 8)
    packed = (filled << _places(8, flat.device)).sum(1, dtype=torch.uint8)
    form = [rounding.bits, min(rounding.group_size, tensor.numel()), *tensor.shape]
    return {
        "": packed.reshape([1] * tensor.dim() + [-1]),
        ENDS: ends,
        FORM: torch.tensor(form, dtype=torch.int32, device=tensor.device),
    }


def unpack(parts: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
    """Return the numbers of a packed tensor, in float32.

    Raises:
        ValueError: the parts do not belong together.

    """
    packed, ends, form = (parts.get(behind) for behind in ("", ENDS, FORM))
    if packed is None or ends is None or form is None:
        raise ValueError("its codes, its ends or its form are missing")
    bits, group_size, *shape = form.tolist() if form.dim() == 1 and len(form) > 1 else (0, 0)
    if not 1 <= bits <= MOST_BITS or group_size < 1 or min(shape, default=1) < 1:
        raise ValueError(f"its form is {form.tolist()}, not [bits, group_size, *shape]")
    numbers = math.prod(shape)
    size, groups = -(-numbers * bits // 8), -(-numbers // group_size)
    if packed.numel() != size or tuple(ends.shape) != (groups, 2):
        raise ValueError(
            f"it has {packed.numel()} bytes and ends {list(ends.shape)}, and {bits} bits for {shape} by groups of "
            f"{group_size} make {size} and {[groups, 2]}"
        )
    lone = (packed.reshape(-1)[:, None] >> _places(8, packed.device)) & 1
    flat = (lone.reshape(-1)[: numbers * bits].reshape(-1, bits) << _places(bits, packed.device)).sum(1)
    return _dequantize(_grouped(flat.to(torch.float32), group_size), ends.to(torch.float32), bits, shape)


def _quantize(tensor: torch.Tensor, rounding: Rounding) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes, as whole numbers in float32 `[groups, group_size]`, and ends, `[groups, 2]`."""
    rows = _grouped(tensor.to(torch.float32).reshape(-1), rounding.group_size)
    least, greatest = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    span = greatest - least
    codes = (rows - least) / torch.where(span > 0, span, 1) * (2**rounding.bits - 1)
    return codes.round(), torch.cat([least, greatest], dim=1)


def _dequantize(codes: torch.Tensor, ends: torch.Tensor, bits: int, shape: Sequence[int]) -> torch.Tensor:
    """Return the numbers of codes, each computed from the end that it is nearer to: so both ends are exact."""
    last, (least, greatest) = 2**bits - 1, torch.split(ends, 1, dim=1)
    span = greatest - least
    rows = torch.where(codes <= last // 2, least + span * (codes / last), greatest - span * ((last - codes) / last))
    return rows.reshape(-1)[: math.prod(shape)].reshape(shape)


def _grouped(flat: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return numbers by groups, the last one filled with its last number, which moves no end."""
    size = min(group_size, flat.numel())
    return torch.cat([flat, flat[-1:].expand(-flat.numel() % size)]).reshape(-1, size)


def _places(count: int, device: torch.device) -> torch.Tensor:
    return torch.arange(count, dtype=torch.uint8, device=device)
