"""The engine `portable`: a gate table carried out by torch alone, on any device, where no other engine runs."""

import torch

from quanta_compiler.kernels.engines.portable.table import PortableTable
from quanta_compiler.lowering.table import GateTable

name = "portable"
prepare = PortableTable


def takes(device: str, dtype: torch.dtype) -> bool:
    """Return True: torch computes anywhere, with anything."""
    return True


def ready() -> bool:
    """Return True."""
    return True


def problem() -> None:
    """Return None."""


def prefers(table: GateTable, tokens: int) -> bool:
    """Return False: it is as slow as the emitted file, and only keeps less."""
    return False
