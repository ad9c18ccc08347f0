"""The engine `triton`: kernels for NVIDIA GPUs, generated for each circuit and compiled by Triton.

Triton comes with torch's CUDA wheels and brings its own assembler: nothing else is needed. What a kernel takes is known
before it is launched; where no segmentation fits the device, a circuit runs as the engine `portable` runs it.
"""

from functools import lru_cache

import torch

from quanta_compiler.kernels.engines.triton.architectures import DTYPES, OLDEST, is_too_old
from quanta_compiler.kernels.engines.triton.launches import arch_of, interpreting
from quanta_compiler.kernels.engines.triton.resources import NOT_INSTALLED, import_problem
from quanta_compiler.kernels.engines.triton.run import TritonTable
from quanta_compiler.lowering.table import GateTable

name = "triton"

OLDEST_ARCH = 75


def takes(device: str, dtype: torch.dtype) -> bool:
    """Say whether there are kernels for vectors of this dtype."""
    return str(dtype).removeprefix("torch.") in DTYPES and (device == "cuda" or (device == "cpu" and interpreting()))


def ready() -> bool:
    """Say whether kernels can be made and run here."""
    return problem() is None


def problem() -> str | None:
    """Return why they cannot, as a clause."""
    if not interpreting():
        # Asked first: most machines have no GPU, and need not import Triton to learn it.
        if not torch.cuda.is_available():
            return "there is no CUDA device"
        if torch.version.hip is not None:
            return "it is for NVIDIA GPUs"
        arch = arch_of(torch.device("cuda"))
        if arch < OLDEST_ARCH:
            return f"the GPU is sm_{arch}, older than sm_{OLDEST_ARCH}"
    return _triton_problem()


@lru_cache(maxsize=1)
def _triton_problem() -> str | None:
    found = import_problem()
    if found is not None:
        remedy = "; torch's CUDA wheels bring it" if found == NOT_INSTALLED else ""
        return f"Triton {found}{remedy}"
    import triton

    if is_too_old(triton.__version__):
        return f"Triton {triton.__version__} is older than {'.'.join(map(str, OLDEST))}"
    return None


def prefers(table: GateTable, tokens: int) -> bool | None:
    """Return None where there is a GPU: nothing is known of it before it is measured.

    Asking it, for its architecture say, would make a context on it, after which a process cannot be forked.
    """
    return None if interpreting() or torch.cuda.is_available() else False


prepare = TritonTable
