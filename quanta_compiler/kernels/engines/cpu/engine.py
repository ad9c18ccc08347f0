"""The engine `cpu`: one C++ kernel for all circuits (circuit.cpp), built by the user's compiler on first use."""

import torch

from quanta_compiler.kernels.engines.cpu.build import build_problem as problem
from quanta_compiler.kernels.engines.cpu.build import kernel_library
from quanta_compiler.kernels.engines.cpu.library import KINDS, KernelTable
from quanta_compiler.lowering.table import GateTable
from quanta_compiler.predict.engines.cpu import prefers

__all__ = ["name", "prefers", "prepare", "problem", "ready", "takes"]

name = "cpu"


def takes(device: str, dtype: torch.dtype) -> bool:
    """Say whether the kernel knows vectors of this dtype."""
    return device == "cpu" and dtype in KINDS


def ready() -> bool:
    """Say whether there is a kernel; the first call in a process may build it."""
    return kernel_library() is not None


def prepare(table: GateTable) -> KernelTable:
    """Return the table in the kernel's form."""
    library = kernel_library()
    assert library is not None
    return KernelTable(library, table)
