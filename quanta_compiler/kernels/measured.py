"""The choice of `auto` where nobody can predict it: the first call of a kind times both ways, and the faster is kept.

A kind is a circuit and its form (T x - S x, say), a device, the dtypes, whether there is a backward pass, and a bucket
of token counts: the power of two above. The engine first tries in which of its own ways it is fastest. What is timed
are copies of one's own, so that neither the caller's gradients nor a sharded parameter takes part. Results are kept for
the process, and in the cache folder for the next ones; whoever cannot write there measures in every process.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from quanta_compiler.kernels.by_parts import Tilings
from quanta_compiler.kernels.engine import engine_name
from quanta_compiler.kernels.executable import executable
from quanta_compiler.kernels.precision import is_autocast
from quanta_compiler.system.cache_folder import cache_folder, check_owner
from quanta_compiler.system.machine import installed_version

Way = Callable[[Any, Any, torch.Tensor], torch.Tensor]
"""From a module, one that is frozen, of which a difference is made, and an input."""


class Ways(NamedTuple):
    """Two ways to do the same."""

    form: str
    """What is done: another form takes other times, of the same circuit."""
    engine: Way
    torch: Way


class Times(NamedTuple):
    """What both ways take, in seconds, and how the engine was launched for that."""

    engine: float
    torch: float
    tilings: Tilings


ROUNDS = 5
"""How often each way is timed; the medians are compared."""
_LOG = logging.getLogger("quanta_compiler")
_KNOWN: dict[tuple[Any, ...], bool] = {}


def is_faster(base: Any, gates: list[torch.Tensor], x: torch.Tensor, ways: Ways) -> bool:
    """Say whether the engine is faster than torch for inputs like `x`; False where it cannot be measured now.

    It is where torch alone has no memory, which keeps more for backward.

    Args:
        base: The emitted class.
        gates: The tensors of its gates that are in use.
        x: The input.
        ways: The forward pass by the engine, and by torch.

    """
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None or type(x) is not torch.Tensor:
        return False  # What is traced or counted is the emitted forward pass, which every tool understands.
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0 or not x.numel():
        return False  # Under these either way is torch's; and no tokens take no time.
    dtype = next((gate.dtype for gate in gates), x.dtype)
    trains = torch.is_grad_enabled() and any(one.requires_grad for one in (x, *gates))
    autocast = torch.get_autocast_dtype(x.device.type) if is_autocast(x.device) else None
    bucket = (x.numel() // max(1, x.shape[-1])).bit_length()
    exact = torch.backends.cuda.matmul.fp32_precision  # of products of float32, by either way
    kind = base, ways.form, x.device, x.dtype, dtype, autocast, exact, trains, bucket
    if kind not in _KNOWN:
        with torch.cuda.device(x.get_device()):
            if x.is_cuda and torch.cuda.is_current_stream_capturing():
                return False
        versions = (torch.__version__, installed_version("triton"), installed_version("quanta-compiler"))
        named = (base.circuit, engine_name(x.device.type, x.dtype), *_card(x.device), ways.form, *kind[3:], *versions)
        key = hashlib.sha256("\n".join(map(str, named)).encode()).hexdigest()[:24]
        times = _read(key)
        if times is not None:
            executable(base.circuit).runner(x.device, x.dtype).choose(x.device, times.tilings)
        else:
            times = _measured(base, x, dtype, ways, trains=trains)
            if math.isfinite(times.engine) and math.isfinite(times.torch):
                _write(key, times)
        name = json.loads(base.circuit)["name"]
        what = ", ".join(map(str, (*named[1:], *times.tilings.items())))
        _LOG.debug("%s: the engine takes %.3g s, torch %.3g s (%s)", name, times.engine, times.torch, what)
        # Where memory is short too: every call would be as slow as this one.
        _KNOWN[kind] = times.engine < times.torch
    return _KNOWN[kind]


def outcomes(base: Any) -> list[bool]:
    """Return for every kind of call of an emitted class that this process knows whether the engine is faster."""
    return [faster for (one, *_), faster in _KNOWN.items() if one is base]


def _card(device: torch.device) -> tuple[str, ...]:
    """Return what the card is: two of one name may be of two kinds."""
    if device.type != "cuda":
        return (device.type,)
    return torch.cuda.get_device_name(device), str(torch.cuda.get_device_capability(device))


def _measured(base: Any, x: torch.Tensor, dtype: torch.dtype, ways: Ways, *, trains: bool) -> Times:
    """Return the times of both ways, in a module and on numbers of our own; infinite where there is no memory."""
    try:
        # Events are recorded on the current device.
        with torch.enable_grad() if trains else torch.no_grad(), _unhooked(), torch.cuda.device(x.get_device()):
            modules = [base(device="meta", dtype=dtype).to_empty(device=x.device) for _ in range(2)]
            for tensor in (one for module in modules for one in (*module.parameters(), *module.buffers())):
                tensor.detach().fill_(0.01)
            modules[1].requires_grad_(False)
            given = torch.full_like(x, 0.01).requires_grad_(trains)
            both = ways.engine, ways.torch
            steps: list[Callable[[], None]] = [partial(_step, modules, given, way, trains) for way in both]
            runner = executable(base.circuit).runner(x.device, x.dtype)
            tilings = runner.tune(lambda: _seconds(steps[:1], x.device)[0])
            engine, plainly = _seconds(steps, x.device)
            return Times(engine, plainly, tilings)
    except torch.OutOfMemoryError:
        return Times(math.inf, math.inf, {})


def _seconds(steps: list[Callable[[], None]], device: torch.device) -> list[float]:
    """Return the median of what each step takes, in turn with the others; a first round compiles and warms up."""
    rounds = [[_tried(step, device) for step in steps] for _ in range(ROUNDS + 1)]
    return [statistics.median(seconds) for seconds in zip(*rounds[1:], strict=True)]


def _tried(step: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of a step; it takes for ever where there is no memory for it."""
    try:
        return _time(step, device)
    except torch.OutOfMemoryError:
        return math.inf


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


def _read(key: str) -> Times | None:
    """Return what another process has measured; None where there is nothing, or nothing that can be read."""
    try:
        path = _path(key)
        check_owner(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        tilings = {str(name): (int(tokens), int(warps)) for name, (tokens, warps) in found["tilings"].items()}
        return Times(float(found["engine"]), float(found["torch"]), tilings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(key: str, times: Times) -> None:
    """Keep what was measured, whole or not at all; that it cannot be written is no failure."""
    with contextlib.suppress(OSError):
        path = _path(key)
        # Of this writer alone: processes on other machines and threads may have its number.
        handle, unfinished = tempfile.mkstemp(prefix="choice-", suffix=".tmp", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(times._asdict()))
            # Whatever the umask: what others may write to is not read.
            os.chmod(unfinished, 0o644)
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
