"""The GPUs that kernels are made for. No torch here: the command line checks names before it loads any."""

import re
from collections.abc import Mapping

SHARED: Mapping[int, int] = {
    **{75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227},
    **{100: 227, 103: 227, 120: 99, 121: 99},
}
"""KiB of shared memory that a program can have, by architecture (CUDA C++ Programming Guide, compute capabilities)."""
TENSOR_COLUMNS = 512
"""Of tensor memory, which sm_100 and sm_103 have."""
NAMES: Mapping[str, int] = {f"sm_{arch}": arch for arch in SHARED}
DTYPES = ("bfloat16", "float16", "float32")
"""Of the vectors that kernels take."""
OLDEST = (3, 6)
"""Of Triton: what the oldest torch with which the package runs brings."""


def is_too_old(version: str) -> bool:
    """Say whether a version of Triton is older than kernels need; whatever stands behind its first two numbers."""
    return tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST
