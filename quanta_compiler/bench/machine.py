"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from quanta_compiler.predict.device import processor_name


def describe_machine() -> dict[str, Any]:
    """Return the processor, its cores, and the versions of what computes."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "opt_einsum": _version("opt_einsum"),
        "peft": _version("peft"),
        "quanta_compiler": _version("quanta-compiler"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
