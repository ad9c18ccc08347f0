"""Whether tensors are what they were: asked before what was made of them, and kept, is taken again."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from quanta_compiler.peft.bases import FLOATS

_SAMPLES = 64


class _Seen(NamedTuple):
    """What is remembered of a tensor: which one it was, in which version, and its numbers, of a plain tensor."""

    identity: tuple[int, ...]
    samples: torch.Tensor | None
    sums: torch.Tensor | None


class Watch:
    """Tensors as they were.

    Where they are other tensors than before, or autograd has counted a change of theirs, the sums of their rows and
    columns say whether the numbers are the same (FSDP2 gathers the same ones anew). A change that autograd does not
    count (`weight.data.mul_(2)`) is seen by some of the numbers of the first tensors, as many as `sampled`, and after
    `doubt` by all; reading numbers would make other devices than the CPU wait, so there it is seen after `doubt` alone.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], *, sampled: int) -> None:
        self._sampled = sampled
        self._seen = [_seen(tensor) for tensor in tensors]
        self._is_doubted = False

    def doubt(self) -> None:
        """Look at all numbers the next time."""
        self._is_doubted = True

    def holds(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Say whether tensors, in the same order, are what they were."""
        for position, (tensor, then) in enumerate(zip(tensors, self._seen, strict=True)):
            if tensor.is_meta:
                continue
            if then.sums is None or then.samples is None or not _is_plain(tensor):
                if _identity(tensor) != then.identity:
                    return False
            elif tensor.dtype != then.samples.dtype or tensor.device != then.samples.device:
                return False
            elif self._is_doubted or _identity(tensor) != then.identity:
                if not torch.equal(_sums(tensor), then.sums):
                    return False
                self._seen[position] = then._replace(identity=_identity(tensor))
            elif position < self._sampled and tensor.is_cpu and not torch.equal(_samples(tensor), then.samples):
                return False
        self._is_doubted = False
        return True


def _seen(tensor: torch.Tensor) -> _Seen:
    if not _is_plain(tensor):
        return _Seen(_identity(tensor), None, None)
    return _Seen(_identity(tensor), _samples(tensor).clone(), _sums(tensor))


def _is_plain(tensor: torch.Tensor) -> bool:
    """Say whether a tensor's numbers are its own: not codes, a part, or those of another library's tensor."""
    return type(tensor) in (torch.Tensor, nn.Parameter) and tensor.dtype in FLOATS


def _identity(tensor: torch.Tensor) -> tuple[int, ...]:
    # Tensors of inference mode count no versions.
    return id(tensor), tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version


def _samples(tensor: torch.Tensor) -> torch.Tensor:
    # An odd stride meets all columns of the usual widths.
    step = max(1, tensor.numel() // _SAMPLES) | 1
    flat = tensor.detach() if tensor.is_contiguous() else tensor.detach().reshape(-1)
    return flat.as_strided((flat.numel() // step,), (step,))


def _sums(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sums of the columns and of the rows, in float64."""
    rows = tensor.detach().reshape(tensor.shape[0] if tensor.dim() > 1 else 1, -1)
    return torch.cat([rows.sum(dim, dtype=torch.float64) for dim in (0, 1)])
