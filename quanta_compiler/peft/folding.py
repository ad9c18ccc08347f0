"""The folded weight W - scale S, and whether the W and the S of which it was made are still there."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

_SAMPLES = 64


class _Source(NamedTuple):
    """What is remembered of a tensor: which one it was, in which version, and its numbers."""

    identity: int
    version: int
    dtype: torch.dtype
    device: torch.device
    samples: torch.Tensor
    sums: torch.Tensor


class FoldedWeight(nn.Module):
    """A weight that stands in the place of the base layer's.

    It is a snapshot. Where its sources are other tensors than before, or autograd has counted a change of theirs, the
    sums of their rows and columns say whether the numbers are the same (FSDP2 gathers the same ones anew). A change of
    W that autograd does not count (`weight.data.mul_(2)`) is seen by some of its numbers, and with `closely` by all;
    reading numbers would make other devices than the CPU wait, so there it is seen with `closely` alone. The folded
    weight itself is watched too: once FSDP2 has sent W and S to a process that had others, accelerate puts back the
    buffers of before.
    """

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, sources: Sequence[torch.Tensor]) -> None:
        super().__init__()
        # Computed again after loading.
        self.register_buffer("weight", weight, persistent=False)
        self._sources = [_source(tensor) for tensor in (*sources, weight)]

    def is_made_of(self, sources: Sequence[torch.Tensor], *, closely: bool) -> bool:
        """Say whether the sources, W first and in the same order, are what they were."""
        for position, (tensor, then) in enumerate(zip((*sources, self.weight), self._sources, strict=True)):
            if tensor.is_meta:
                continue
            if tensor.dtype != then.dtype or tensor.device != then.device:
                return False
            if closely or id(tensor) != then.identity or _version(tensor) != then.version:
                if not torch.equal(_sums(tensor), then.sums):
                    return False
                self._sources[position] = then._replace(identity=id(tensor), version=_version(tensor))
            elif position == 0 and tensor.is_cpu and not torch.equal(_samples(tensor), then.samples):
                return False
        return True


def _source(tensor: torch.Tensor) -> _Source:
    samples = _samples(tensor).clone()
    return _Source(id(tensor), _version(tensor), tensor.dtype, tensor.device, samples, _sums(tensor))


def _version(tensor: Any) -> int:
    # Tensors of inference mode count no versions.
    return -1 if tensor.is_inference() else int(tensor._version)


def _samples(tensor: torch.Tensor) -> torch.Tensor:
    # An odd stride meets all columns of the usual widths.
    step = max(1, tensor.numel() // _SAMPLES) | 1
    flat = tensor.detach() if tensor.is_contiguous() else tensor.detach().reshape(-1)
    return flat.as_strided((flat.numel() // step,), (step,))


def _sums(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sums of the columns and of the rows, in float64."""
    rows = tensor.detach().reshape(tensor.shape[0] if tensor.dim() > 1 else 1, -1)
    return torch.cat([rows.sum(dim, dtype=torch.float64) for dim in (0, 1)])
