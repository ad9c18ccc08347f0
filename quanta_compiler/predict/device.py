"""The processor by its name: what was measured on one says little of another."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_INFORMATION = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Return the processor's name as the system tells it."""
    try:
        lines = _CPU_INFORMATION.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
