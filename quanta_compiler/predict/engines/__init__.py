"""What is known of the engines of the `fused` backend before anything runs, by their names, and without torch.

An engine here says what it counts in a call, so that its times can be predicted, and when it is expected to be faster
than the emitted file. `portable` is missing: nobody chooses it for its speed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quanta_compiler.lowering.table import GateTable
from quanta_compiler.predict.engines import cpu, triton


@dataclass(frozen=True, slots=True)
class EngineModel:
    """What an engine counts, and when it pays."""

    device: str
    """The type of the devices that it computes on, one engine for each."""
    features: tuple[str, ...]
    """What is counted; a calibration has the seconds of one of each."""
    counts: Callable[[GateTable, int, bool, int], tuple[tuple[float, ...], ...]]
    """From table, tokens, whether it is backward, threads: how much there is of each feature, kernel by kernel."""
    prefers: Callable[[GateTable, int], bool | None]
    """From table and tokens: whether the emitted file is expected to be slower; None: as the times say."""
    overlaps: bool = False
    """Whether what is counted of a kernel happens at the same time, so that it takes the longest of it, not the sum."""


MODELS: Mapping[str, EngineModel] = {
    "cpu": EngineModel("cpu", cpu.FEATURES, lambda *call: (cpu.counts(*call),), cpu.prefers),
    "triton": EngineModel("cuda", triton.FEATURES, triton.counts, triton.prefers, overlaps=True),
}


def engine_on(device: str) -> str | None:
    """Return the name of the engine that predictions for a type of devices are made of; None where there is none."""
    return next((name for name, model in MODELS.items() if model.device == device), None)


@dataclass(frozen=True, slots=True)
class EngineRates:
    """Seconds of one of each feature of an engine; on the CPU, of one thread. ValueError where one is missing."""

    engine: str
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        features = MODELS[self.engine].features
        if len(self.seconds) != len(features) or not all(0 <= one < math.inf for one in self.seconds):
            raise ValueError("the kernel has a time for everything that is counted")

    def time(self, kernels: Sequence[Sequence[float]]) -> float:
        """Return the seconds of what was counted."""
        whole = max if MODELS[self.engine].overlaps else sum
        return sum(whole(rate * count for rate, count in zip(self.seconds, counts, strict=True)) for counts in kernels)
