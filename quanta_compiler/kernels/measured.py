"""The choice of `auto` where nobody can predict it: the first call of a kind times both ways, and the faster is kept.

A kind is a circuit, a device, the dtypes, whether there is a backward pass, and a bucket of token counts: the power of
two above. What is timed are copies of one's own, so that neither the caller's gradients nor a sharded parameter takes
part. Results are kept for the process, and in the cache folder for the next ones; whoever cannot write there measures
in every process.
"""

import contextlib
import hashlib
import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from quanta_compiler.kernels.precision import is_autocast
from quanta_compiler.system.cache_folder import cache_folder, check_owner
from quanta_compiler.system.machine import installed_version

Way = Callable[[Any, Any, torch.Tensor], torch.Tensor]
"""From a module, one that is frozen, of which a difference is made, and an input."""

ROUNDS = 5
"""How often each way is timed; the medians are compared."""
_LOG = logging.getLogger("quanta_compiler")
_KNOWN: dict[tuple[Any, ...], bool] = {}


def is_faster(base: Any, gates: list[torch.Tensor], x: torch.Tensor, ways: tuple[Way, Way]) -> bool:
    """Say whether the engine is faster than torch for inputs like `x`; False where it cannot be measured now.

    Args:
        base: The emitted class.
        gates: The tensors of its gates that are in use.
        x: The input.
        ways: The forward pass by the engine, and the one by torch.

    """
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None or type(x) is not torch.Tensor:
        return False  # What is traced or counted is the emitted forward pass, which every tool understands.
    if torch._C._are_functorch_transforms_active():
        return False
    dtype = next((gate.dtype for gate in gates), x.dtype)
    trains = torch.is_grad_enabled() and any(one.requires_grad for one in (x, *gates))
    autocast = torch.get_autocast_dtype(x.device.type) if is_autocast(x.device) else None
    bucket = (x.numel() // max(1, x.shape[-1])).bit_length()
    kind = base, ways[0].__qualname__, x.device, x.dtype, dtype, autocast, trains, bucket
    if kind not in _KNOWN:
        with torch.cuda.device(x.get_device()):
            if x.is_cuda and torch.cuda.is_current_stream_capturing():
                return False
        device = torch.cuda.get_device_name(x.device) if x.is_cuda else x.device.type
        versions = (torch.__version__, installed_version("triton"), installed_version("quanta-compiler"))
        named = (base.circuit, device, kind[1], *map(str, kind[3:]), *versions)
        key = hashlib.sha256("\n".join(map(str, named)).encode()).hexdigest()[:24]
        kept = _read(key) or _measured(base, x, dtype, ways, trains=trains)
        if kept is None:
            # Not tried again: where memory is short, every call would be as slow as this one.
            _KNOWN[kind] = False
            return False
        name = json.loads(base.circuit)["name"]
        _LOG.debug("%s: the engine takes %.3g s, torch %.3g s (%s)", name, *kept, ", ".join(map(str, named[1:])))
        _write(key, kept)
        _KNOWN[kind] = kept[0] < kept[1]
    return _KNOWN[kind]


def outcomes(base: Any) -> list[bool]:
    """Return for every kind of call of an emitted class that this process knows whether the engine is faster."""
    return [faster for (one, *_), faster in _KNOWN.items() if one is base]


def _measured(
    base: Any, x: torch.Tensor, dtype: torch.dtype, ways: tuple[Way, Way], *, trains: bool
) -> tuple[float, float] | None:
    """Return the seconds of both ways, in a module and on numbers of our own; None where there is no memory for it."""
    seconds: tuple[list[float], list[float]] = ([], [])
    try:
        # Events are recorded on the current device.
        with torch.enable_grad() if trains else torch.no_grad(), _unhooked(), torch.cuda.device(x.get_device()):
            modules = [base(device="meta", dtype=dtype).to_empty(device=x.device) for _ in range(2)]
            for tensor in (one for module in modules for one in (*module.parameters(), *module.buffers())):
                tensor.detach().fill_(0.01)
            modules[1].requires_grad_(False)
            given = torch.full_like(x, 0.01).requires_grad_(trains)
            # The first round compiles and warms up.
            for place in range(ROUNDS + 1):
                for way, found in zip(ways, seconds, strict=True):
                    took = _time(partial(_step, modules, given, way, trains), x.device)
                    if place:
                        found.append(took)
    except torch.OutOfMemoryError:
        return None
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _unhooked() -> AbstractContextManager[object]:
    """Return a context in which saved tensors stay here: activation checkpointing would count ours among its own."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


def _step(modules: list[Any], x: torch.Tensor, way: Way, trains: bool) -> None:
    y = way(*modules, x)  # type: ignore[call-arg]
    if trains:
        wanted = [x, *(one for one in modules[0].parameters() if one.requires_grad)]
        torch.autograd.grad(y, wanted, y.detach(), allow_unused=True)


def _time(run: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of a run on its device."""
    if device.type != "cuda":
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin
    event: Any = torch.cuda.Event  # untyped in torch
    events = [event(enable_timing=True) for _ in range(2)]
    events[0].record()
    run()
    events[1].record()
    torch.cuda.synchronize(device)
    return float(events[0].elapsed_time(events[1])) / 1000


def _path(key: str) -> Path:
    return cache_folder() / f"choice-{key}.json"


def _read(key: str) -> tuple[float, float] | None:
    """Return what another process has measured; None where there is nothing, or nothing that can be read."""
    try:
        path = _path(key)
        check_owner(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        return float(found["fused"]), float(found["torch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(key: str, seconds: tuple[float, float]) -> None:
    """Keep what was measured, whole or not at all; that it cannot be written is no failure."""
    with contextlib.suppress(OSError):
        path = _path(key)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        unfinished.write_text(json.dumps(dict(zip(("fused", "torch"), seconds, strict=True))), encoding="utf-8")
        os.replace(unfinished, path)
