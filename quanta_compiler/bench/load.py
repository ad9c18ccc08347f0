"""What other programs do meanwhile: they make times long without making them vary.

Threads that wait for each other are slowed most: one that another program keeps from its core holds up all.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_STATISTICS = Path("/proc/stat")
_ROOM = 0.25
"""Cores that other programs may take beyond those that are left to them."""
_SHORTEST = 0.5
"""Seconds: the system counts in hundredths, which say nothing of less."""


class Load:
    """Measures from its making on how many cores other programs keep busy."""

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
