"""The device that is measured: whether it is there, how time passes on it, its memory, and what is said of it."""

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from quanta_compiler.bench.timing import Clock
from quanta_compiler.system.machine import describe_machine, free_bytes, installed_version, processor_name


class DeviceError(ValueError):
    """There is no such device here; the message says what there is."""


class Mark(Protocol):
    """A moment of a device, as `torch.cuda.Event` has it: it has come by the time that somebody gets it."""

    def elapsed_time(self, end_event: Any) -> float:
        """Return the milliseconds from this moment to a later one."""


class EventClock:
    """The seconds of a GPU by its events.

    A reading waits until everything that was launched before it is done. So what lies between two readings are the
    launches in between and their kernels, as one comes after the other; nothing else waits for the host.
    """

    def __init__(self, mark: Callable[[], Mark]) -> None:
        self._mark = mark
        self._last: Mark | None = None
        self._seconds = 0.0

    def __call__(self) -> float:
        """Return the seconds since the first reading, summed up from one to the next: events have 24 bits."""
        mark = self._mark()
        if self._last is not None:
            self._seconds += 1e-3 * self._last.elapsed_time(mark)
        self._last = mark
        return self._seconds


def find_device(name: str) -> torch.device:
    """Return the device of a name, a GPU with its number.

    Raises:
        DeviceError: torch has no such device here, or nothing is measured on such devices.

    """
    try:
        place = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"{name!r} is no device: cpu or cuda") from None
    if place.type == "cpu":
        return torch.device("cpu")
    if place.type != "cuda":
        raise DeviceError(f"nothing is measured on {name!r}: cpu or cuda")
    if not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count():
        reason = "" if torch.version.cuda else ": it was built without CUDA"
        raise DeviceError(f"torch sees no device {name!r} here{reason}")
    return torch.device("cuda", torch.cuda.current_device() if place.index is None else place.index)


def clock_for(device: torch.device) -> Clock:
    """Return what tells the time of a device."""
    if device.type != "cuda":
        return time.perf_counter

    def mark() -> Mark:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        event.synchronize()
        return event

    return EventClock(mark)


def working_on(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a device is the current one of its type."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def free_on(device: torch.device) -> int:
    """Return how many bytes could be had now; on a GPU also what torch's allocator holds and nobody uses."""
    if device.type != "cuda":
        return free_bytes()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)


def device_name(device: torch.device) -> str:
    """Return the processor's name, or the card's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return what `describe_machine` does, and of a GPU the card and the versions of what computes on it."""
    machine = describe_machine()
    if device.type != "cuda":
        return machine
    major, minor = torch.cuda.get_device_capability(device)
    return {
        **machine,
        "card": device_name(device),
        "capability": f"sm_{major}{minor}",
        "card_bytes": torch.cuda.get_device_properties(device).total_memory,
        "driver": _driver_version(),
        "cuda": torch.version.cuda,
        "triton": installed_version("triton"),
    }


def _driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None where its tool does not say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None
