"""Bytes that a contestant keeps for backward, and those that are alive at once.

On a GPU torch's allocator counts them. Elsewhere they are counted tensor by tensor: every operation that torch
dispatches is seen, and of each result how long its storage lives. Unlike hooks on saved tensors this finds what a
recomputed block keeps as well. What a kernel allocates and frees within one operation is not seen then.
"""

import gc
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from quanta_compiler.bench.contestants import Contestant, runs
from quanta_compiler.bench.options import FORWARD, OPERATOR, TRAINING


class StorageMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operations make, but for those of `own` tensors."""

    def __init__(self, own: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def note(self, tensor: torch.Tensor) -> None:
        """Count a tensor from now on, until its storage is freed."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._own:
            return
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        self._live[reference.cdata] = (reference, storage.nbytes())
        self.peak = max(self.peak, self.live())

    def live(self) -> int:
        """Return the bytes that are alive now."""
        expired = [key for key, (reference, _) in self._live.items() if reference.expired()]  # type: ignore[no-untyped-call]
        for key in expired:
            del self._live[key]
        return sum(size for _, size in self._live.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.note(tensor)
        return result


class Allocator(Protocol):
    """What `torch.cuda` knows of the memory of a GPU."""

    def memory_allocated(self, device: Any) -> int:
        """Return the bytes of all tensors."""

    def max_memory_allocated(self, device: Any) -> int:
        """Return the most that they ever were since the last reset."""

    def reset_peak_memory_stats(self, device: Any) -> None:
        """Let the peak begin anew."""


class AllocatorMeter:
    """Follows what is allocated on a GPU while it is entered; like `StorageMeter`."""

    def __init__(self, device: torch.device, allocator: Allocator = torch.cuda) -> None:
        self._device = device
        self._allocator = allocator
        self._noted = self._before = self._most = 0

    def __enter__(self) -> "AllocatorMeter":
        # What is freed meanwhile would be missing.
        gc.collect(1)
        self._allocator.reset_peak_memory_stats(self._device)
        self._before = self._allocator.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        self._most = self._allocator.max_memory_allocated(self._device) - self._before

    def note(self, tensor: torch.Tensor) -> None:
        """Count a tensor that was there before."""
        self._noted += tensor.untyped_storage().nbytes()

    def live(self) -> int:
        """Return the bytes that are alive now."""
        return self._noted + self._allocator.memory_allocated(self._device) - self._before

    @property
    def peak(self) -> int:
        """Return the most that were alive at once."""
        return self._noted + self._most


def meter_for(device: torch.device, own: Iterable[torch.Tensor]) -> StorageMeter | AllocatorMeter:
    """Return what counts the memory of a device, all but that of `own` tensors, which are there already."""
    return AllocatorMeter(device) if device.type == "cuda" else StorageMeter(own)


def saved_bytes(contestant: Contestant, x: torch.Tensor) -> int:
    """Return the bytes that are alive after a forward pass for backward alone; parameters are not counted.

    `x` is counted where it is kept. For that it is no leaf here, which autograd would keep in any case.
    """
    leaf = x.detach().requires_grad_()
    meter = meter_for(x.device, contestant.own)
    with meter:
        given = leaf.clone()
        result = contestant.forward(given)
        graph = result.grad_fn
        del given, result
        # The graph is young, and so is what hangs together with it in circles.
        gc.collect(1)
        kept = meter.live()
        del graph
    return kept


def peak_bytes(contestant: Contestant, mode: str, x: torch.Tensor, gradient: torch.Tensor) -> int:
    """Return the most bytes alive at once in one run of a mode, what it reads and returns included, parameters not."""
    read = {FORWARD: (x,), TRAINING: (x, gradient), OPERATOR: ()}[mode]
    run = runs(contestant, x, gradient)[mode]
    meter = meter_for(x.device, contestant.own)
    with meter:
        for tensor in read:
            meter.note(tensor)
        run(1)
    return meter.peak
