"""Two limits, measured in the same rounds as everything else: how fast torch multiplies and how fast it copies here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from quanta_compiler.bench.contestants import Setting
from quanta_compiler.bench.options import FORWARD, TRAINING
from quanta_compiler.bench.timing import Job, Timing

MATMUL_SIDE, MATMUL_SIDE_GPU = 2048, 4096
MATMUL, COPY = "limit: matmul", "limit: copy"
_COPIES = {FORWARD: 1, TRAINING: 2}
"""A forward pass reads the input and writes the output; backward does the same with their gradients."""


@dataclass(frozen=True, slots=True)
class Limits:
    """One large matrix product, and as many bytes read and written as the input and the output have."""

    matmul: Timing
    matmul_side: int
    copy: Timing
    copy_bytes: int

    @property
    def matmul_flops(self) -> float:
        """Return the FLOPs of the product."""
        return 2.0 * self.matmul_side**3

    @property
    def flops_per_second(self) -> float:
        """Return the rate of the product."""
        return self.matmul_flops / self.matmul.seconds_median

    @property
    def bytes_per_second(self) -> float:
        """Return the rate of copying, bytes read and bytes written counted."""
        return self.copy_bytes / self.copy.seconds_median

    def matmul_seconds(self, flops: float) -> float:
        """Return the seconds of this many FLOPs in the large product."""
        return flops / self.flops_per_second

    def copy_seconds(self, mode: str) -> float | None:
        """Return how long input and output take to be read and written; None for a matrix, which has neither."""
        return _COPIES[mode] * self.copy.seconds_median if mode in _COPIES else None


def limits_of(timings: Mapping[Any, Timing], setting: Setting) -> Limits:
    """Return the limits from the timings of `limit_jobs`."""
    return Limits(timings[MATMUL], matmul_side(setting.device), timings[COPY], copy_bytes(setting))


def matmul_side(device: torch.device) -> int:
    """Return the side of the matrices of the large product."""
    return MATMUL_SIDE_GPU if device.type == "cuda" else MATMUL_SIDE


def matmul_bytes(setting: Setting) -> int:
    """Return what the large product holds."""
    return 3 * matmul_side(setting.device) ** 2 * setting.dtype.itemsize


def limit_jobs(setting: Setting) -> list[Job]:
    """Return the jobs that time both limits; they write into memory that is there already."""
    place, dtype, side = setting.device, setting.dtype, matmul_side(setting.device)
    left, right = (torch.randn(side, side, device=place).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    # Half of them read, half of them written.
    source = torch.randn(copy_bytes(setting) // (2 * dtype.itemsize), device=place).to(dtype)
    target = torch.empty_like(source)

    def multiply(count: int) -> None:
        for _ in range(count):
            torch.mm(left, right, out=product)

    def copy(count: int) -> None:
        for _ in range(count):
            target.copy_(source)

    return [Job(MATMUL, multiply), Job(COPY, copy)]


def copy_bytes(setting: Setting) -> int:
    """Return the bytes of the input and the output, rounded up so that half of them are whole numbers."""
    numbers = setting.tokens * sum(setting.features)
    return setting.dtype.itemsize * (numbers + numbers % 2)
