"""Bytes that a contestant keeps for backward, and those that are alive at once, counted tensor by tensor.

Every operation that torch dispatches is seen, and of each result how long its storage lives. Unlike hooks on saved
tensors this finds what a recomputed block keeps as well. What a kernel allocates and frees within one operation is
not seen.
"""

import gc
from collections.abc import Iterable
from typing import Any

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


def saved_bytes(contestant: Contestant, x: torch.Tensor) -> int:
    """Return the bytes that are alive after a forward pass for backward alone; parameters are not counted.

    `x` is counted where it is kept. For that it is no leaf here, which autograd would keep in any case.
    """
    leaf = x.detach().requires_grad_()
    meter = StorageMeter(contestant.own)
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
    meter = StorageMeter(contestant.own)
    with meter:
        for tensor in read:
            meter.note(tensor)
        run(1)
    return meter.peak
