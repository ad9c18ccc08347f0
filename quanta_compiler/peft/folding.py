"""The folded weight W - scale S, and whether the W and the S of which it was made are still there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

_SAMPLES = 64


class _Source(NamedTuple):
    """What is remembered of a tensor: which one it was, in which version, and some of its numbers."""

    identity: int
    version: int
    dtype: torch.dtype
    device: torch.device
    numbers: torch.Tensor


class FoldedWeight(nn.Module):
    """A weight that stands in the place of the base layer's.

    It is a snapshot. A change of its sources is seen by autograd's version counter, by a cast, and by another tensor
    in their place; a change past all of these (`parameter.data.mul_(2)`) by some of their numbers. On other devices
    than the CPU reading numbers would wait for the device, so there they are read only where `closely` asks for it.
    So is a change of the folded weight itself: once FSDP2 has sent W and S to a process that had others, accelerate
    puts back the buffers of before.
    """

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, sources: Sequence[torch.Tensor]) -> None:
        super().__init__()
        # Computed again after loading.
        self.register_buffer("weight", weight, persistent=False)
        self._sources = [_source(tensor) for tensor in (*sources, weight)]

    def is_made_of(self, sources: Sequence[torch.Tensor], closely: bool) -> bool:
        """Say whether the sources, in the same order, are what they were."""
        for position, (tensor, then) in enumerate(zip((*sources, self.weight), self._sources, strict=True)):
            if tensor.is_meta:
                continue
            if (tensor.dtype, tensor.device) != (then.dtype, then.device):
                return False
            is_same = (id(tensor), _version(tensor)) == (then.identity, then.version)
            if is_same and not closely and tensor.device.type != "cpu":
                continue
            if not torch.equal(_numbers(tensor), then.numbers):
                return False
            if not is_same:
                # Another tensor, or touched, with the same numbers.
                self._sources[position] = _source(tensor)
        return True


def _source(tensor: torch.Tensor) -> _Source:
    return _Source(id(tensor), _version(tensor), tensor.dtype, tensor.device, _numbers(tensor).clone())


def _version(tensor: Any) -> int:
    # Tensors of inference mode count no versions.
    return -1 if tensor.is_inference() else int(tensor._version)


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1)[:: max(1, tensor.numel() // _SAMPLES)]
