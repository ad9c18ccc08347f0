"""How much memory there is, and the error where something would need more."""

from pathlib import Path


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
