"""What a measurement finds, as data: the JSON has the same names."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from quanta_compiler.bench.limits import Limits
from quanta_compiler.bench.options import FORWARD, MODES, OPERATOR, TRAINING
from quanta_compiler.bench.timing import WIDE_SPREAD, Timing

MODE_TITLES = {FORWARD: "forward", TRAINING: "forward + backward", OPERATOR: "operator()"}
_RATIO_KEYS = {"circuit": "ratio_to_ours", "adapters": "ratio_to_bare_layer"}
"""By section."""
FORMAT = 1
"""Goes up when a key of the JSON changes its meaning or goes."""


@dataclass(frozen=True, slots=True)
class ModeFigures:
    """One mode of one contestant."""

    timing: Timing
    ratio: float | None
    """Its median over that of the section's base; None where the base has no such mode."""
    flops: float | None
    """Those that its limit is made of; None where no limit is compared with it."""
    matmul_limit_ratio: float | None
    copy_limit_ratio: float | None
    peak_bytes: int

    def to_dict(self, ratio_key: str) -> dict[str, Any]:
        """Return plain data, the ratio under the name that says to what."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        timing, ratio = named.pop("timing"), named.pop("ratio")
        return {**_timing_dict(timing), ratio_key: ratio, **named}


@dataclass(frozen=True, slots=True)
class ContestantFigures:
    """Everything about one contestant."""

    name: str
    title: str
    trained_parameters: int
    saved_bytes: int | None
    """None where it was not measured in training."""
    errors: Mapping[str, float]
    """How far it is from the float64 module, mode by mode; empty where it does not compute the circuit."""
    wrong: tuple[str, ...]
    """The modes whose results are wrong; they are not timed."""
    modes: Mapping[str, ModeFigures]

    def to_dict(self, ratio_key: str) -> dict[str, Any]:
        """Return plain data; an error that is no number is None."""
        errors = {mode: error if math.isfinite(error) else None for mode, error in self.errors.items()}
        return {
            "name": self.name,
            "title": self.title,
            "trained_parameters": self.trained_parameters,
            "saved_bytes": self.saved_bytes,
            "relative_errors": errors,
            "wrong": list(self.wrong),
            "modes": {mode: figures.to_dict(ratio_key) for mode, figures in self.modes.items()},
        }


@dataclass(frozen=True, slots=True)
class Section:
    """Contestants that are compared with the same one among them, `base`."""

    name: str
    base: str
    contestants: tuple[ContestantFigures, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        contestants = [one.to_dict(_RATIO_KEYS[self.name]) for one in self.contestants]
        return {"name": self.name, "base": self.base, "contestants": contestants}

    @property
    def modes(self) -> list[str]:
        """Return the modes that any contestant has, in their usual order."""
        return [mode for mode in MODES if any(mode in one.modes or mode in one.wrong for one in self.contestants)]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A contestant that is missing, or one of its modes, and why."""

    name: str
    mode: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Bench:
    """A whole measurement."""

    circuit: Mapping[str, Any]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    others_cores: float | None
    """How many cores other programs kept busy meanwhile, on average; None where the system does not say."""
    limits: Limits
    tolerance: float
    sections: tuple[Section, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def contestants(self) -> dict[str, ContestantFigures]:
        """Return the contestants of all sections by their names."""
        return {one.name: one for section in self.sections for one in section.contestants}

    @property
    def wrong(self) -> tuple[tuple[str, str, float], ...]:
        """Return the contestants and modes whose results are wrong, and by how much of the norm."""
        return tuple((name, mode, one.errors[mode]) for name, one in self.contestants.items() for mode in one.wrong)

    def wide_spreads(self) -> tuple[tuple[str, float], ...]:
        """Return what varied too much to be believed, the limits included."""
        timings = {
            "the matmul limit": self.limits.matmul,
            "the copy limit": self.limits.copy,
            **{
                f"{name} {MODE_TITLES[mode]}": figures.timing
                for name, one in self.contestants.items()
                for mode, figures in one.modes.items()
            },
        }
        return tuple((name, timing.spread) for name, timing in timings.items() if timing.spread > WIDE_SPREAD)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        limits = self.limits
        return {
            "format": FORMAT,
            "circuit": dict(self.circuit),
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "others_cores": self.others_cores,
            "limits": {
                "matmul": {
                    "side": limits.matmul_side,
                    **_timing_dict(limits.matmul),
                    "flops": limits.matmul_flops,
                    "flops_per_second": limits.flops_per_second,
                },
                "copy": {
                    "bytes": limits.copy_bytes,
                    **_timing_dict(limits.copy),
                    "bytes_per_second": limits.bytes_per_second,
                },
            },
            "tolerance": self.tolerance,
            "sections": [section.to_dict() for section in self.sections],
            "left_out": [asdict(one) for one in self.left_out],
            "too_wide": [{"name": name, "spread": spread} for name, spread in self.wide_spreads()],
        }


def _timing_dict(timing: Timing) -> dict[str, Any]:
    return {
        "seconds_median": timing.seconds_median,
        "seconds_quartiles": list(timing.seconds_quartiles),
        "spread": timing.spread,
        "repetitions": timing.repetitions,
    }
