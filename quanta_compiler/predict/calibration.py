"""What a machine was measured to do, and where that is kept: in the user's cache folder, one file for each setting."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from quanta_compiler.predict.engines import MODELS, EngineRates, engine_on
from quanta_compiler.predict.grid import AXES, Grid, Grids
from quanta_compiler.system.cache_folder import cache_folder
from quanta_compiler.system.files import write_file
from quanta_compiler.system.machine import processor_name

FORMAT = 1
"""Goes up when the meaning of a number changes: what an older version measured is measured again."""
_MOST_DIGITS = 18
REMEDY = "`quanta bench --calibrate` measures yours"
_FOLDER = "calibration"
PREDICTED = {
    "measured": "predicted for this machine",
    "typical": "predicted for a typical machine",
    "computed": "computed and not measured",
}
"""What is said of times, by the origin of the calibration."""
_SECONDS = ("fresh", "restart", "gathered", "forward_launch", "recording", "backward_launch")
_TEXTS = ("device", "name", "torch", "measured")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The rates of a device in float32; every time is in seconds."""

    device: str
    """`cpu` or `cuda`."""
    name: str
    """What it is called: the processor's or the accelerator's name."""
    threads: int
    torch: str
    measured: str
    """The day, as `2025-01-31`."""
    grids: Grids
    fresh: float
    """Of a byte of a result that is so large that the system gives it anew every time."""
    restart: float
    """Of a copy into another order, for every index but those of its last two dimensions."""
    gathered: float
    """Of a number of matrices that are copied one after the other from where all of them lie side by side."""
    kernel: EngineRates | None
    """Of the engine for this device; None where there is none, or it could not be had."""
    forward_launch: float = 0.0
    """Of calling an operation, its views included, beside what it does."""
    recording: float = 0.0
    """Of keeping in mind what backward needs, for an operation of forward."""
    backward_launch: float = 0.0
    origin: str = "measured"
    """`measured` on this machine, of a `typical` one, or `computed` from a data sheet."""
    remark: str = ""
    """Why it is not of this machine, in a sentence; empty where it is."""

    @property
    def calibrated(self) -> bool:
        """Say whether it was measured on this machine."""
        return self.origin == "measured"

    def to_json(self) -> str:
        """Return the text of a calibration's file."""
        data: dict[str, Any] = {"format": FORMAT, "dtype": "float32", "threads": self.threads}
        data |= {key: getattr(self, key) for key in _TEXTS}
        data |= {key: float(f"{getattr(self, key):.4g}") for key in _SECONDS}
        rates = self.kernel
        data["kernel"] = rates and {
            name: float(f"{one:.4g}") for name, one in zip(MODELS[rates.engine].features, rates.seconds, strict=True)
        }
        data |= {name: getattr(self.grids, name).to_dict() for name in AXES}
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Return the calibration of a file's text.

        Raises:
            ValueError: it is none, or one of another format; the message says what is wrong.

        """
        data = json.loads(text, parse_int=_integer)
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("dtype") != "float32":
            raise ValueError(f"it is no calibration of format {FORMAT}")
        missing = {"threads", "kernel", *_TEXTS, *_SECONDS, *AXES} - set(data)
        if missing:
            raise ValueError(f"it lacks {sorted(missing)[0]!r}")
        if not all(isinstance(data[key], str) for key in _TEXTS):
            raise ValueError("a name is no text")
        if type(data["threads"]) is not int or data["threads"] < 1:
            raise ValueError("the number of threads is none")
        if not all(type(data[key]) in (int, float) and 0 <= data[key] < math.inf for key in _SECONDS):
            raise ValueError("a time is no number of seconds")
        plain: dict[str, Any] = {key: data[key] for key in ("threads", *_TEXTS)}
        plain |= {key: float(data[key]) for key in _SECONDS}
        kernel = _kernel(data["kernel"], engine_on(data["device"]))
        grids = {name: Grid.from_dict(data[name]) for name in AXES}
        for name, grid in grids.items():
            if len(grid.axes) != AXES[name]:
                raise ValueError(f"the grid {name!r} has {len(grid.axes)} axes, not {AXES[name]}")
        return cls(**plain, kernel=kernel, grids=Grids(**grids))


def _integer(digits: str) -> int:
    """Refuse what arithmetic with floats cannot take."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)


def _kernel(data: Any, engine: str | None) -> EngineRates | None:
    """Return the rates of a device's engine, which its file does not name: there is one a device."""
    if data is None:
        return None
    if engine is None:
        raise ValueError("it has times of a kernel for a device that has none")
    features = MODELS[engine].features
    if not isinstance(data, dict) or set(data) != set(features):
        raise ValueError("the kernel has a time for everything that is counted")
    if not all(type(one) in (int, float) for one in data.values()):
        raise ValueError("a time of the kernel is no number")
    return EngineRates(engine, tuple(float(data[name]) for name in features))


@lru_cache(maxsize=1)
def typical_calibration() -> Calibration:
    """Return the calibration that comes with the package, of one thread of a server's processor."""
    text = files("quanta_compiler.predict").joinpath("typical.json").read_text(encoding="utf-8")
    remark = f"times of a typical machine; {REMEDY}"
    return replace(Calibration.from_json(text), origin="typical", remark=remark)


def load_calibration(device: str = "cpu", threads: int | None = None) -> Calibration:
    """Return what this machine was last measured to do, with `threads` threads where given.

    Where nothing was measured, or what is stored is damaged or of another machine, it is the typical calibration, and
    its `remark` says so.
    """
    problem = ""
    for path in _stored(device, threads):
        try:
            found = Calibration.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            problem = problem or f"the calibration {path} cannot be used ({reason}): "
            continue
        if found.device == device and (device != "cpu" or found.name == processor_name()):
            return found
        problem = problem or f"the calibration {path} is of another machine ({found.name}): "
    typical = typical_calibration()
    return replace(typical, remark=f"{problem}{typical.remark}")


def require_storage() -> Path:
    """Return the folder in which calibrations are kept, made if it is missing.

    Raises:
        OSError: nothing can be written there.

    """
    folder = cache_folder() / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} can only be read")
    return folder


def store_calibration(calibration: Calibration) -> Path:
    """Write a calibration to its place in the user's cache folder, whole or not at all; return the path.

    Raises:
        OSError: there is no such folder, or it can only be read.
        OutputError: the file cannot be written.

    """
    folder = require_storage()
    path = folder / f"{_stem(calibration.device, calibration.name)}-{calibration.threads}.json"
    write_file(path, calibration.to_json())
    return path


def _stored(device: str, threads: int | None) -> Iterable[Path]:
    """Return the files of a device, those of this machine first, then the latest."""
    try:
        paths = list((cache_folder() / _FOLDER).glob(f"{device}-*.json"))
        times = {path: path.stat().st_mtime for path in paths}
    except OSError:
        return []
    own = f"{_stem(device, processor_name())}-"
    wanted = [path for path in paths if threads is None or path.stem.rpartition("-")[2] == str(threads)]
    return sorted(wanted, key=lambda path: (not path.name.startswith(own), -times[path], path.name))


def _stem(device: str, name: str) -> str:
    return f"{device}-{re.sub('[^A-Za-z0-9]+', '-', name).strip('-')[:80]}"
