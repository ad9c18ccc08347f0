"""`auto` where nobody predicts: both ways are timed once for every kind of call, and the faster is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_circuits import on_both, vectors
from random_circuits import file_of
from torch._subclasses import FakeTensorMode

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels import measured
from quanta_compiler.kernels.engines.portable import engine as portable

Seconds = dict[str, float]


@pytest.fixture
def seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name_engine: Callable[[str], None]
) -> Iterator[list[tuple[str, bool]]]:
    """Let the engine `portable` be measured on the CPU; what is timed is written down, and takes what it is told."""
    name_engine("portable")
    monkeypatch.setattr(portable, "prefers", lambda *_: None)
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path))
    monkeypatch.setattr(measured, "_KNOWN", {})
    timed: list[tuple[str, bool]] = []

    def fake(run: Any, device: torch.device) -> float:
        _, x, way, trains = run.args
        run()
        timed.append((str(x.dtype), trains))
        return 1.0 if "_fused" in way.__qualname__ else FASTER["torch"]

    monkeypatch.setattr(measured, "_time", fake)
    yield timed
    measured._KNOWN.clear()


FASTER: Seconds = {"torch": 2.0}


def circuit_named(name: str) -> CompiledCircuit:
    return compile_circuit(file_of("3x4", [[0, 1], [1]], name=name))


@pytest.mark.parametrize("torch_seconds", [2.0, 0.5])
def test_the_faster_is_taken_and_kept(
    torch_seconds: float, seconds: list[tuple[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FASTER, "torch", torch_seconds)
    circuit = circuit_named(f"measured-{torch_seconds}")
    plain, automatic = on_both(circuit, backend="auto")
    expected = on_both(circuit)[1] if torch_seconds > 1 else plain
    x = vectors(circuit, 5)
    assert torch.equal(automatic(x), expected(x))
    rounds = 2 * (measured.ROUNDS + 1)
    assert seconds == [("torch.float64", True)] * rounds, "in turn, after a first round that compiles"
    (kept,) = tmp_path.glob("choice-*.json")
    assert json.loads(kept.read_text()) == {"fused": 1.0, "torch": torch_seconds}
    automatic(vectors(circuit, 7))
    assert len(seconds) == rounds, "5 and 7 tokens are of one kind"
    automatic(vectors(circuit, 9))
    with torch.no_grad():
        automatic(x)
    assert len(seconds) == 3 * rounds, "more tokens, and no backward pass, are others"
    measured._KNOWN.clear()
    automatic(x)
    assert len(seconds) == 3 * rounds, "another process reads what this one kept"
    kept.write_text("{")
    measured._KNOWN.clear()
    automatic(x)
    assert len(seconds) == 4 * rounds, "what cannot be read is measured again"


def test_the_caller_sees_nothing_of_it(seconds: list[tuple[str, bool]]) -> None:
    circuit = circuit_named("measured-apart")
    _, automatic = on_both(circuit, backend="auto")
    state = torch.random.get_rng_state()
    automatic(vectors(circuit, 2))
    assert seconds
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in automatic.parameters())


def test_what_cannot_be_measured_is_torch(seconds: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = circuit_named("measured-never")
    plain, automatic = on_both(circuit, backend="auto")
    x = vectors(circuit, 3)
    traced: Any = torch.compile
    assert torch.equal(traced(automatic, fullgraph=True, backend="eager")(x), plain(x))
    with FakeTensorMode(allow_non_fake_inputs=True):
        automatic(x)
    assert not seconds

    def no_memory(*_: object) -> float:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(measured, "_time", no_memory)
    assert torch.equal(automatic(x), plain(x))
    assert not measured._KNOWN, "there may be memory at the next call"


def test_a_folder_that_cannot_be_written_is_no_failure(
    seconds: list[tuple[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "file" / "in it"))
    circuit = circuit_named("measured-unkept")
    plain, automatic = on_both(circuit, backend="auto")
    x = vectors(circuit, 3)
    torch.testing.assert_close(automatic(x), plain(x))
    assert seconds
