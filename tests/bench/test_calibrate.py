"""`quanta bench --calibrate`: what is measured, kept and said, on a grid of a few points."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import quanta

from quanta_compiler.bench import calibrate as calibrating
from quanta_compiler.bench import small_modules
from quanta_compiler.bench.calibrate import Clock, calibrate
from quanta_compiler.bench.operations import Effort, Key, product_grid
from quanta_compiler.bench.small_modules import nonnegative_fit
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.predict.calibration import Calibration, load_calibration
from quanta_compiler.predict.engines.cpu import FEATURES
from quanta_compiler.predict.grid import rising
from quanta_compiler.system.machine import Load
from quanta_compiler.text.console import Progress

QUICK = Effort(
    sides=(1, 16, 64),
    gradient_sides=((1, 16), (16, 64), (1, 16)),
    batched_sides=(1, 16),
    most_flops=2**15,
    stream_bytes=(2**10, 2**14),
    fresh_bytes=2**12,
    numbers=(2**10, 2**13),
    inner=(1, 4, 16),
    between=(16, 256),
    restarted=2**10,
    gathered=(4, 4, 4),
    tokens=(16,),
    rounds=1,
    samples=1,
    sample_seconds=1e-6,
)
CIRCUITS = (("4x4", ("all_pairs",)), ("4x8", ({"axes": [0]},)))


class Counter(Progress):
    """Counts what it is told."""

    total = done = 0

    def begin(self, what: str, total: int | None = None) -> None:
        self.total = total or 0

    def advance(self, remark: str = "") -> None:
        self.done += 1


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]) -> None:
    # With a stand-in for the kernel, which is not to be built into this cache.
    monkeypatch.setattr(cpu, "ready", lambda: True)
    monkeypatch.setattr(cpu, "prepare", portable.prepare)
    name_engine("")
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(small_modules, "CIRCUITS", CIRCUITS)
    monkeypatch.setattr(calibrating, "Effort", lambda: QUICK)
    monkeypatch.setattr(Load, "others", lambda load: 0.0)


def test_everything_is_measured_once_a_round() -> None:
    counter = Counter()
    found = calibrate(progress=counter)
    assert counter.done == counter.total > 50
    assert (found.device, found.threads, found.torch) == ("cpu", torch.get_num_threads(), torch.__version__)
    assert found.grids.products.axes == ((1, 16, 64),) * 3
    for grid in (found.grids.products, found.grids.gradients, found.grids.batched, found.grids.stream):
        assert rising(grid) == grid
    assert found.kernel is not None
    assert Calibration.from_json(found.to_json()).grids.runs.axes == ((1, 4, 16), (16, 256), (2**10, 2**13))


def test_what_is_too_large_takes_as_long_per_flop_as_the_nearest() -> None:
    axes = ((1, 16, 64),) * 3
    seconds: dict[Key, float] = {}
    seconds |= {("products", (rows, inner, 16)): 1.0 + rows * inner for rows in (1, 16, 64) for inner in (1, 16, 64)}
    seconds |= {("products", (rows, inner, 1)): 1.0 for rows in (1, 16, 64) for inner in (1, 16, 64)}
    found = product_grid(axes, seconds, "products")
    assert found.at(16, 16, 16) == 257
    assert found.at(16, 16, 64) == 4 * 257
    # The largest side is cut first: that is 16 x 64 x 64, then 16 x 16 x 64, then 16 x 16 x 16.
    assert found.at(64, 64, 64) == 64 * 257


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    assert calibrate(threads=3).threads == 3
    assert torch.get_num_threads() == before


def test_without_the_kernel_there_is_none(name_engine: Callable[[str], None]) -> None:
    name_engine("portable")
    assert calibrate().kernel is None


def test_a_clock_takes_the_least_and_repeats_what_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("quanta_compiler.bench.calibrate.time.perf_counter", lambda: now[0])
    costs = iter([9.0, *[1e-4] * 15, *[3e-4] * 12, *[2e-4] * 1000])

    def run() -> None:
        now[0] += next(costs)

    clock = Clock(torch.device("cpu"), Effort(samples=3, sample_seconds=1e-3))
    assert clock.seconds(run) == pytest.approx(2e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_finds_what_times_are_made_of(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rates = torch.rand(4, generator=generator) * torch.tensor([1.0, 0.0, 1e-3, 1.0])
    counts = torch.rand(30, 4, generator=generator) * torch.tensor([1.0, 5.0, 1e3, 2.0])
    rows = [(tuple(row.tolist()), float(row @ rates)) for row in counts]
    assert nonnegative_fit(rows) == pytest.approx(rates.tolist(), abs=1e-3 * float(rates.max()))


def test_the_fit_gives_no_negative_rate() -> None:
    assert nonnegative_fit([((1.0, 1.0, 0.0), 1.0), ((1.0, 2.0, 0.0), 0.5)])[1] == 0


def test_the_command_keeps_what_it_measures(tmp_path: Path) -> None:
    result = quanta("bench", "--calibrate", "--threads", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.isascii()
    (path,) = (tmp_path / "cache" / "calibration").iterdir()
    assert f"kept in {path}" in result.stdout
    assert "a large matrix product" in result.stdout
    found = load_calibration()
    assert found.calibrated
    assert found == Calibration.from_json(path.read_text(encoding="utf-8"))


def test_json_has_all_of_it(tmp_path: Path) -> None:
    result = quanta("bench", "--calibrate", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert set(data) == {"path", "others_cores", "calibration"}
    assert Calibration.from_json(json.dumps(data["calibration"])) == load_calibration()
    assert set(data["calibration"]["kernel"]) == set(FEATURES)


def test_other_programs_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "others", lambda load: 1000.0)
    result = quanta("bench", "--calibrate", "--threads", "1")
    assert result.exit_code == 0
    assert result.stderr.startswith("quanta: warning: other programs kept 1,000 of ")
    assert result.stderr.endswith("calibrate again: predicted times are too long by what they took\n")


def test_a_missing_kernel_is_warned_of(name_engine: Callable[[str], None]) -> None:
    name_engine("portable")
    result = quanta("bench", "--calibrate")
    assert result.exit_code == 0
    assert "warning: the kernel does not run here and was not measured" in result.stderr


def test_an_unknown_engine_is_an_error(name_engine: Callable[[str], None]) -> None:
    name_engine("cuda")
    result = quanta("bench", "--calibrate")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "QUANTA_ENGINE names no engine, 'cuda': choose one of cpu, portable, or unset it" in result.stderr


def test_an_interruption_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Clock, "seconds", interrupted)
    assert quanta("bench", "--calibrate").exit_code == 130
    assert list((tmp_path / "cache" / "calibration").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(calibrating, "calibrate", lambda *_, **__: pytest.fail("something was measured"))
    result = quanta("bench", "--calibrate")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("quanta: cannot keep a calibration in the cache folder: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a circuit file, or --calibrate"),
        (["circuit.yaml", "--calibrate"], "it goes with --threads, --device and --json alone"),
        (["--calibrate", "--tokens", "8"], "it goes with --threads, --device and --json alone"),
        (["circuit.yaml", "--device", "cpu"], "it says what to calibrate: add --calibrate"),
        (["--calibrate", "--device", "cuda:99"], "torch sees no device 'cuda:99' here"),
        (["--calibrate", "--device", "meta"], "'meta' cannot be calibrated: cpu or cuda"),
        (["--calibrate", "--device", "gpu"], "'gpu' is no device: cpu or cuda"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    result = quanta("bench", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())
