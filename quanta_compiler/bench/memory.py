"""Bytes that a contestant keeps for backward, and those that are alive at once, counted tensor by tensor.

Every operation that torch dispatches is seen, and of each result how long its storage lives. Unlike hooks on saved
tensors this finds what a recomputed block keeps as well. What a kernel allocates and frees within one operation is
not seen.
"""

import gc
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from quanta_compiler.bench.contestants import Contestant


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


def peak_forward_bytes(contestant: Contestant, x: torch.Tensor) -> int:
    """Return the most bytes alive at once in a forward pass without gradient, `x` included, parameters not."""
    meter = StorageMeter(contestant.own)
    with torch.no_grad(), meter:
        meter.note(x)
        contestant.forward(x)
    return meter.peak


def peak_training_bytes(contestant: Contestant, x: torch.Tensor, gradient: torch.Tensor) -> int:
    """Return the same for forward and backward: the output's gradient and all gradients that come out included."""
    meter = StorageMeter(contestant.own)
    with meter:
        meter.note(x)
        meter.note(gradient)
        run_training(contestant, training_inputs(contestant, x), gradient)
    return meter.peak


def peak_operator_bytes(contestant: Contestant) -> int:
    """Return the most bytes alive at once while the matrix is made, parameters aside."""
    assert contestant.operator is not None
    meter = StorageMeter(contestant.own)
    with torch.no_grad(), meter:
        contestant.operator()
    return meter.peak


def training_inputs(contestant: Contestant, x: torch.Tensor) -> list[torch.Tensor]:
    """Return what gradients are taken with respect to: the input, as in the middle of a model, and what trains."""
    return [x.detach().requires_grad_(), *contestant.parameters]


def run_training(
    contestant: Contestant, inputs: Sequence[torch.Tensor], gradient: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients with respect to `inputs`, the first of which is the input; None: it has no part."""
    result = contestant.forward(inputs[0])
    return torch.autograd.grad(result, inputs, gradient, allow_unused=True)
