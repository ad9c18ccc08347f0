"""What a GPU would be asked, with stand-ins for its events and its allocator: no GPU is needed here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import quanta
from random_circuits import file_of

from quanta_compiler.bench import memory, ours, roster
from quanta_compiler.bench.adapters import adapted_layer, frozen_weight
from quanta_compiler.bench.contestants import Setting, draw_gates, runs
from quanta_compiler.bench.devices import DeviceError, EventClock, clock_for, describe_device, find_device, free_on
from quanta_compiler.bench.limits import limit_jobs
from quanta_compiler.bench.memory import AllocatorMeter, peak_bytes, saved_bytes
from quanta_compiler.bench.operations import Effort, operation_jobs
from quanta_compiler.bench.options import COMPILED, FORWARD, OPERATOR, Options
from quanta_compiler.bench.ours import our_contestant, our_names
from quanta_compiler.bench.roster import batch_of
from quanta_compiler.bench.run import bench
from quanta_compiler.bench.tables import conditions
from quanta_compiler.bench.timing import Job, measure, seconds_of_run
from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.engines.portable import engine as portable

QUICK = Options(rounds=2, threads=1)
CARD = {"card": "NVIDIA Made-Up", "driver": "1.2", "cuda": "13.0", "triton": "3.7.1", "torch": "2.13.0"}


@dataclass
class Moment:
    """An event at a moment of a made-up GPU."""

    milliseconds: float

    def elapsed_time(self, end_event: Any) -> float:
        return float(end_event.milliseconds - self.milliseconds)


class Card:
    """A GPU whose time passes only while jobs run."""

    def __init__(self) -> None:
        self.milliseconds = 0.0

    def mark(self) -> Moment:
        return Moment(self.milliseconds)

    def run(self, count: int) -> None:
        self.milliseconds += 0.25 * count


def small(tokens: int = 8) -> Any:
    return compile_circuit(file_of("4x4x2", ["all_pairs"]), tokens=tokens)


def setting_of(circuit: Any) -> Setting:
    return Setting(circuit, torch.float32, draw_gates(circuit, torch.float32))


def test_an_event_clock_has_what_lies_between_two_events() -> None:
    card = Card()
    clock = EventClock(card.mark)
    assert clock() == 0.0
    assert seconds_of_run(Job("a", card.run), 8, clock) == pytest.approx(2e-3)
    timing = measure([Job("a", card.run)], 3, clock=clock)["a"]
    assert timing.seconds_median == pytest.approx(2.5e-4)


def test_a_measurement_by_events_is_like_any_other() -> None:
    card = Card()

    def mark() -> Moment:
        card.milliseconds += 1.0
        return card.mark()

    found = bench(small(), replace(QUICK, only=("dense",)), clock=EventClock(mark))
    assert found.wrong == ()
    assert found.limits.matmul.seconds_median == pytest.approx(1e-3 / found.limits.matmul.repetitions)


def test_devices_that_are_here_and_those_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("cpu") == find_device("cpu:0") == torch.device("cpu")
    assert free_on(torch.device("cpu")) > 0
    with pytest.raises(DeviceError, match="'gpu' is no device: cpu or cuda"):
        find_device("gpu")
    with pytest.raises(DeviceError, match="nothing is measured on 'meta'"):
        find_device("meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert find_device("cuda") == find_device("cuda:1") == torch.device("cuda", 1)
    assert isinstance(clock_for(find_device("cuda")), EventClock)
    with pytest.raises(DeviceError, match="torch sees no device 'cuda:2' here"):
        find_device("cuda:2")


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "circuit.yaml").write_text("version: 1\nname: small\nlayout: 4x2\ngates: [all_pairs]\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in (("bench", "circuit.yaml", "--device", "cuda"), ("bench", "--calibrate", "--device", "cuda")):
        result = quanta(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "torch sees no device 'cuda' here" in result.stderr


def test_what_is_said_of_a_card() -> None:
    found = bench(small(), replace(QUICK, only=()))
    line = conditions(replace(found, machine={**found.machine, **CARD}))
    assert line.endswith(
        "2 rounds, caches not flushed, NVIDIA Made-Up, driver 1.2, CUDA 13.0, Triton 3.7.1, torch 2.13.0"
    )


class Allocator:
    """Counts in hundreds, as an allocator counts in blocks."""

    def __init__(self, *amounts: int) -> None:
        self.amounts = iter(amounts)
        self.most = 0
        self.resets = 0

    def memory_allocated(self, device: Any) -> int:
        return next(self.amounts)

    def max_memory_allocated(self, device: Any) -> int:
        return self.most

    def reset_peak_memory_stats(self, device: Any) -> None:
        self.resets += 1


def test_a_gpu_s_allocator_counts_what_is_beside_what_was_there() -> None:
    allocator = Allocator(1000, 1500)
    meter = AllocatorMeter(torch.device("cuda"), allocator)
    with meter:
        meter.note(torch.zeros(25))
        allocator.most = 1900
        assert meter.live() == 100 + 500
    assert (meter.peak, allocator.resets) == (100 + 900, 1)


def test_memory_of_a_contestant_by_an_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = setting_of(small())
    x, gradient = batch_of(setting)
    contestant = our_contestant("torch", setting)
    allocator = Allocator(1000, 1700, 1000)
    monkeypatch.setattr(memory, "meter_for", lambda device, own: AllocatorMeter(device, allocator))
    assert saved_bytes(contestant, x) == 700
    allocator.most = 1200
    assert peak_bytes(contestant, FORWARD, x, gradient) == 200 + x.nbytes


def test_torch_compile_takes_part_on_a_gpu_and_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def stand_in(module: Any, **options: Any) -> Any:
        asked.append(options)
        return module

    monkeypatch.setattr(torch, "compile", stand_in)
    assert COMPILED not in {one.name for one in bench(small(), QUICK).sections[0].contestants}
    found = bench(small(), replace(QUICK, only=(COMPILED,)))
    assert asked == [{"fullgraph": True, "dynamic": False}]
    assert OPERATOR not in found.contestants[COMPILED].modes
    assert found.wrong == ()
    monkeypatch.setattr(torch, "compile", lambda module, **_: pytest.fail)
    assert [one.name for one in bench(small(), replace(QUICK, only=(COMPILED,))).left_out] == [COMPILED]


def test_where_auto_measures_the_kernel_is_what_others_are_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    class Measuring:
        name = "third"

        def prefers(self, table: Any, tokens: int) -> None:
            return None

    setting = setting_of(small())
    monkeypatch.setattr(ours, "engine_for", lambda device, dtype: Measuring())
    assert our_names(setting)[0] == "fused"
    monkeypatch.setattr(ours, "engine_for", lambda device, dtype: portable)
    assert our_names(setting)[0] == "torch"
    assert "the kernel does not run here: there is no CUDA device" in ours._no_kernel("cuda", torch.bfloat16)


NOWHERE = torch.device("meta")
WITH_CONSTANTS = (
    *("all_pairs", {"axes": [0], "kind": "lowrank", "rank": 2}, {"axes": [2, 3], "kind": "cz"}),
    *({"axes": [2], "kind": "constant", "value": [[1, 2], [3, 4]]}, {"axes": [3], "kind": "ry"}),
)


@pytest.mark.parametrize("name", ["torch", "torch-recomputed", *roster._MAKERS, "bare", "peft-lora-8", "peft-oft"])
def test_everything_lies_on_the_device(name: str) -> None:
    """`meta` stands in for a GPU: what lies elsewhere would be a tensor of the CPU among its tensors."""
    circuit = compile_circuit(file_of("4x4x2x2", list(WITH_CONSTANTS)), tokens=8)
    gates = draw_gates(circuit, torch.bfloat16, device=NOWHERE)
    setting = Setting(circuit, torch.bfloat16, gates, NOWHERE)
    x, gradient = batch_of(setting)
    if name in ("bare", "peft-lora-8", "peft-oft"):
        contestant = adapted_layer(name, setting, frozen_weight(setting))
    elif name in roster._MAKERS:
        contestant = roster._MAKERS[name](setting)
    else:
        contestant = our_contestant(name, setting)
    assert {tensor.device for tensor in (x, gradient, *contestant.own)} == {NOWHERE}
    assert contestant.forward(x).device == NOWHERE
    for mode, run in runs(contestant, x, gradient).items():
        if mode in contestant.costs:
            run(1)


def test_limits_and_calibrations_lie_on_the_device() -> None:
    circuit = small()
    setting = Setting(circuit, torch.bfloat16, draw_gates(circuit, torch.bfloat16, device=NOWHERE), NOWHERE)
    for job in limit_jobs(setting):
        job.run(1)
    for key, make in operation_jobs(Effort(sides=(4,), gradient_sides=((4,),) * 3, batched_sides=(4,))):
        assert make(NOWHERE)() is not None or key


def test_a_gpu_is_asked_for_its_name_its_versions_and_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "get_device_name": "NVIDIA Made-Up",
        "get_device_capability": (9, 0),
        "get_device_properties": SimpleNamespace(total_memory=80),
        "memory_reserved": 30,
        "memory_allocated": 10,
        "mem_get_info": (50, 80),
        "current_stream": "a stream",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, answer=answer: answer)
    place = torch.device("cuda", 0)
    assert free_on(place) == 50 + 30 - 10
    found = describe_device(place)
    assert (found["card"], found["capability"], found["card_bytes"]) == ("NVIDIA Made-Up", "sm_90", 80)
    assert {"driver", "cuda", "triton", "processor", "torch"} <= set(found)
    asked: list[Any] = []

    class Event(Moment):
        def __init__(self, enable_timing: bool) -> None:
            super().__init__(7.0 * len(asked))
            assert enable_timing

        def record(self, stream: Any) -> None:
            asked.append(stream)

        def synchronize(self) -> None:
            asked.append("done")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = clock_for(place)
    assert [clock(), clock()] == [0.0, pytest.approx(14e-3)]
    assert asked == ["a stream", "done"] * 2
