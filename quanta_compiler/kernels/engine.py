"""The engines of the `fused` backend: each is a folder in engines/ that carries out gate tables on some device.

An engine is a module with what `Engine` lists: `engine.py` in its folder. The first in `ENGINES` that takes a device
and a dtype and is ready runs there; `QUANTA_ENGINE` names one by force. To add one: its folder, its line in `ENGINES`,
and for predicted times what it counts, by its name, in `predict/engines/`.
"""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from quanta_compiler.kernels.by_parts import Tilings
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.kernels.engines.triton import engine as triton
from quanta_compiler.kernels.precision import Gradients, Matrices
from quanta_compiler.lowering.table import GateTable
from quanta_compiler.runtime.backends import EngineError

VARIABLE = "QUANTA_ENGINE"


class Runner(Protocol):
    """A gate table made ready on an engine.

    Vectors are contiguous; matrices come as they are stored: of any floating-point dtype and any strides.
    """

    def forward(self, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
        """Return `[..., in_features] -> [..., out_features]`, in memory of its own."""

    def backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the input and of the matrices, from that of the output, `[tokens, out_features]`.

        `needed` says which, the input first; None stands for the others. `x`, `[tokens, in_features]`, is only read for
        a matrix. A matrix's gradient has its numbers in its order, in any shape and any floating-point dtype.
        """

    def forward_difference(self, x: torch.Tensor, matrices: Matrices, minus: Matrices) -> torch.Tensor:
        """Return T x - S x, rounded once; `minus` are the matrices of S."""

    def backward_difference(
        self, grad: torch.Tensor, x: torch.Tensor | None, sides: tuple[Matrices, Matrices], needed: Sequence[bool]
    ) -> Gradients:
        """Return the gradients of the input and of the matrices of both sides, T's first."""

    def in_words(self) -> str:
        """Return how it has carried the table out so far, as a clause; empty where there is only one way, or none yet.

        Nothing is computed or compiled for that.
        """

    def tune(self, seconds: Callable[[], float]) -> Tilings:
        """Try whatever else it could launch in a step, keep the fastest, and return that for other processes.

        `seconds` runs a step and returns what it takes.
        """

    def choose(self, device: torch.device, tilings: Tilings) -> None:
        """Keep on a device what `tune` has found there, here or in another process."""


class Engine(Protocol):
    """What carries out gate tables; its methods hold for the whole process."""

    name: str

    def takes(self, device: str, dtype: torch.dtype) -> bool:
        """Say whether it computes on devices of a type with vectors of a dtype."""

    def ready(self) -> bool:
        """Say whether it can run here; the first call may build it, and warn where that fails."""

    def problem(self) -> str | None:
        """Return why it is not ready, as a clause; None where it is."""

    def prepare(self, table: GateTable) -> Runner:
        """Return what carries out a table; only asked of an engine that is ready."""

    def prefers(self, table: GateTable, tokens: int) -> bool | None:
        """Say whether it is expected to be faster than the emitted file on batches of `tokens`; None: measure it.

        A device is not touched for that: circuits are made ready in processes that never use it.
        """


ENGINES: tuple[Engine, ...] = (cpu, triton, portable)
"""The faster ones first; the last takes everything everywhere."""


@lru_cache(maxsize=64)
def engine_for(device: str, dtype: torch.dtype) -> Engine:
    """Return the engine for devices of a type and vectors of a dtype, the same one for the whole process.

    Raises:
        EngineError: `QUANTA_ENGINE` names an engine that does not exist, or that does not run here.

    """
    named = os.environ.get(VARIABLE, "").strip().lower()
    # Tensors on `meta` have no numbers: nothing is computed there, whatever would do it elsewhere.
    if named and device != "meta":
        return _named(named, device, dtype)
    return next(engine for engine in ENGINES if engine.takes(device, dtype) and engine.ready())


def _named(name: str, device: str, dtype: torch.dtype) -> Engine:
    names = ", ".join(engine.name for engine in ENGINES)
    engine = next((engine for engine in ENGINES if engine.name == name), None)
    if engine is None:
        raise EngineError(f"{VARIABLE} names no engine, {name!r}: choose one of {names}, or unset it")
    if not engine.takes(device, dtype):
        what = f"does not compute in {str(dtype).removeprefix('torch.')} on {device}"
    elif engine.ready():
        return engine
    else:
        what = f"does not run here ({engine.problem()})"
    raise EngineError(f"{VARIABLE} names the engine {name!r}, which {what}: name another one of {names}, or unset it")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def is_measured(device: str, dtype: torch.dtype) -> bool:
    """Say whether the speed of `engine_for` is known only from measuring it: that of a GPU is."""
    return engine_for(device, dtype) is triton


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def engine_name(device: str, dtype: torch.dtype) -> str:
    """Return the name of `engine_for`; torch.compile takes it as settled when it traces a call."""
    return engine_for(device, dtype).name


def is_left_to_kernel(tensors: Sequence[torch.Tensor]) -> bool:
    """Say whether the kernel may read tensors, the first a gate's: no mode, transform or subclass is to see them."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or _get_current_dispatch_mode():
        return False
    if not tensors or forward_ad._current_level >= 0 or tensors[0].dtype not in (torch.float32, torch.float64):
        return False
    plain = (torch.Tensor, torch.nn.Parameter)
    is_plain = all(type(one) in plain and one.is_cpu and not one.is_neg() for one in tensors)
    return is_plain and engine_name("cpu", tensors[0].dtype) == "cpu"
