"""A clock for single operations on any device, for what is measured once and kept."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Run = Callable[[], object]
Point = tuple[int, ...]
Key = tuple[str, Point]
"""What is measured: a table, and a place in it."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What is measured, and how often."""

    sides: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096, 32768)
    """Of a product's rows, inner dimension and columns."""
    gradient_sides: tuple[tuple[int, ...], ...] = (
        *((1, 8, 64, 512, 4096), (16, 128, 1024, 8192, 65536), (1, 8, 64, 512, 4096)),
    )
    """Likewise of a sum over tokens, which the inner dimension is then."""
    batched_sides: tuple[int, ...] = (1, 4, 16, 64, 256)
    most_flops: int = 2**29
    """Of a product; what has more takes as long per FLOP as the nearest that has not."""
    most_numbers: int = 2**23
    """In an operand or a result."""
    stream_bytes: tuple[int, ...] = tuple(2**power for power in range(12, 28, 2))
    fresh_bytes: int = 2**26
    """Of a result that is so large that the system gives it anew every time."""
    numbers: tuple[int, ...] = (2**14, 2**18, 2**22)
    """In a tensor that is copied into another order."""
    inner: tuple[int, ...] = (1, 2, 4, 8, 16, 64, 256)
    between: tuple[int, ...] = (64, 1024, 16384, 131072)
    gathered: tuple[int, int, int] = (512, 64, 64)
    """Rows, columns and matrices, the latter innermost."""
    restarted: int = 2**18
    """Numbers in a tensor of many short dimensions."""
    tokens: tuple[int, ...] = (32, 512)
    """Of the batches that the kernel is measured on."""
    rounds: int = 2
    """How often everything is gone through, in an order drawn anew: nothing depends on one bad moment."""
    samples: int = 3
    """In a row."""
    sample_seconds: float = 1e-3


@dataclass(slots=True)
class Clock:
    """Times what is run on a device: the least of some samples, since what disturbs only takes longer."""

    device: torch.device
    effort: Effort

    def seconds(self, run: Run) -> float:
        """Return the seconds of one run, warmed up."""
        run()
        count = self._count(run)
        return max(1e-9, min(self._sample(run, count) for _ in range(self.effort.samples)) / count)

    def _count(self, run: Run) -> int:
        """Return how often something is run within a sample."""
        wanted, count = self.effort.sample_seconds, 1
        while (elapsed := self._sample(run, count)) < wanted:
            count = min(10 * count, max(count + 1, math.ceil(1.2 * count * wanted / max(elapsed, 1e-9))))
        return count

    def _sample(self, run: Run, count: int) -> float:
        self._wait()
        start = time.perf_counter()
        for _ in range(count):
            run()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
