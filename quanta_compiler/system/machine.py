"""The machine that something is measured on, what else runs on it, and how much memory it has."""

import ctypes
import mmap
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_CPU_INFORMATION = Path("/proc/cpuinfo")
_STATISTICS = Path("/proc/stat")
_LARGE_PAGE = 2**21
"""Bytes."""
_ROOM = 0.25
"""Cores that other programs may take beyond those that are left to them."""
_SHORTEST = 0.5
"""Seconds: the system counts in hundredths, which say nothing of less."""


def processor_name() -> str:
    """Return the processor's name as the system tells it: what was measured on one says little of another."""
    try:
        lines = _CPU_INFORMATION.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def expect_writes(address: int, size_bytes: int) -> None:
    """Ask for large pages under memory that is about to be written for the first time: to be given it takes less time.

    Nothing changes where a system has none, or refuses.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    first = -(-address // _LARGE_PAGE) * _LARGE_PAGE
    size = (address + size_bytes) // _LARGE_PAGE * _LARGE_PAGE - first
    if advice is not None and size > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), ctypes.c_int(advice))


def installed_version(package: str) -> str | None:
    """Return the version of a package as it is installed; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine() -> dict[str, Any]:
    """Return the processor, its cores, and the versions of what computes."""
    packages = ("torch", "opt_einsum", "peft", "quanta_compiler")
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: installed_version(package) for package in packages},
    }


class Load:
    """Measures from its making on how many cores other programs keep busy.

    They make times long without making them vary. Threads that wait for each other are slowed most: one that another
    program keeps from its core holds up all.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def others(self) -> float | None:
        """Return the mean number of cores since then; None where the system does not say, or it was a moment."""
        now = _busy_seconds()
        elapsed = time.monotonic() - self._start
        if now is None or self._busy is None or elapsed < _SHORTEST:
            return None
        return max(0.0, (now - self._busy - (_own_seconds() - self._own)) / elapsed)


def is_crowded(others: float | None, threads: int, cores: int) -> bool:
    """Say whether other programs took cores that the threads measured would have needed."""
    return others is not None and others > max(0, cores - threads) + _ROOM


def _busy_seconds() -> float | None:
    """Return the seconds that all cores together have not been idle since the system started."""
    try:
        first = _STATISTICS.read_text(encoding="ascii").partition("\n")[0].split()
        user, nice, system, _, _, *interrupts = (int(word) for word in first[1:])
        # Guests are counted among the users already; what a hypervisor took away is the last before them.
        return (user + nice + system + sum(interrupts[:3])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class LimitError(Exception):
    """Something would need more than it may have; the message says how much."""


def free_bytes() -> int:
    """Return how much memory could be had now; where the system does not say, a guess of 8 GiB."""
    free = [amount for amount in (_available(), _left_in_group()) if amount is not None]
    return min(free, default=8 << 30)


def _available() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def _left_in_group() -> int | None:
    """Return what a container's limit leaves."""
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text("ascii")) for name in ("max", "current"))
        return max(0, limit - used)
    except (OSError, ValueError):
        return None
