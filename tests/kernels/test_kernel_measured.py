"""`auto` where nobody predicts: both ways are timed once for every kind of call, and the faster is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_circuits import on_both, vectors
from random_circuits import file_of
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels import measured, modules
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.kernels.executable import Executable
from quanta_compiler.nn import fit_circuit

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
        return 1.0 if "by_engine" in way.__qualname__ else FASTER["torch"]

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
    assert json.loads(kept.read_text()) == {"engine": 1.0, "torch": torch_seconds, "tilings": {}}
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


def test_what_takes_other_times_is_a_kind_of_its_own(seconds: list[tuple[str, bool]], tmp_path: Path) -> None:
    circuit = circuit_named("measured-kinds")
    x = vectors(circuit, 5)
    _, automatic = on_both(circuit, backend="auto")
    _, recomputing = on_both(circuit, backend="auto", recompute=True)
    rounds = 2 * (measured.ROUNDS + 1)
    for count in (1, 1, 2):
        (recomputing if count == 2 else automatic)(x)
        assert len(seconds) == count * rounds
    try:
        torch.set_float32_matmul_precision("high")
        automatic(x)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len(seconds) == 3 * rounds
    assert len(list(tmp_path.glob("choice-*.json"))) == 3, "in other processes as well"


def test_the_caller_sees_nothing_of_it(seconds: list[tuple[str, bool]]) -> None:
    circuit = circuit_named("measured-apart")
    _, automatic = on_both(circuit, backend="auto")
    state = torch.random.get_rng_state()
    automatic(vectors(circuit, 2))
    assert seconds
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in automatic.parameters())


def test_what_cannot_be_measured_is_torch(seconds: list[tuple[str, bool]]) -> None:
    circuit = circuit_named("measured-never")
    plain, automatic = on_both(circuit, backend="auto")
    x = vectors(circuit, 3)
    traced: Any = torch.compile
    assert torch.equal(traced(automatic, fullgraph=True, backend="eager")(x), plain(x))
    with FakeTensorMode(allow_non_fake_inputs=True):
        automatic(x)
    assert not seconds


@pytest.mark.parametrize("short", ["of copies", "of both", "of torch"])
def test_where_memory_is_short_it_is_tried_once_and_the_engine_taken_that_has_enough(
    short: str, seconds: list[tuple[str, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch keeps every state for backward: taken then, it would find no memory for the call itself."""
    circuit = circuit_named(f"measured-short-{short.replace(' ', '-')}")
    plain, automatic = on_both(circuit, backend="auto")
    fused = on_both(circuit)[1]
    tried = []

    def no_memory(run: Any, *_: object) -> float:
        tried.append(1)
        if short == "of torch" and "by_engine" in run.args[2].__qualname__:
            return 1.0
        raise torch.OutOfMemoryError("no memory")

    if short == "of copies":
        monkeypatch.setattr(measured, "_unhooked", lambda: no_memory(None))
    monkeypatch.setattr(measured, "_time", no_memory)
    x = vectors(circuit, 3)
    expected = (fused if short == "of torch" else plain)(x)
    for _ in range(2):
        assert torch.equal(automatic(x), expected)
    assert list(measured._KNOWN.values()) == [short == "of torch"]
    assert len(tried) == (1 if short == "of copies" else 2 * (measured.ROUNDS + 1))
    assert not list(tmp_path.glob("choice-*.json")), "another process may have the memory"


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


@pytest.mark.skipif(os.name != "posix", reason="files have no permissions")
def test_what_is_kept_is_read_whatever_new_files_are_given(seconds: list[tuple[str, bool]], tmp_path: Path) -> None:
    """A file that a group may write to, as many systems make them, is not trusted."""
    circuit = circuit_named("measured-umask")
    _, automatic = on_both(circuit, backend="auto")
    before = os.umask(0o002)
    try:
        automatic(vectors(circuit, 3))
    finally:
        os.umask(before)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("choice-")
    timed = len(seconds)
    measured._KNOWN.clear()
    automatic(vectors(circuit, 3))
    assert len(seconds) == timed > 0


def test_it_stays_out_of_what_checkpoints_keep(seconds: list[tuple[str, bool]]) -> None:
    """They count saved tensors, and compute all again where one is asked for."""
    circuit = circuit_named("measured-checkpointed")
    plain, automatic = on_both(circuit, backend="auto")
    found = []
    for module in (plain, automatic):
        x = vectors(circuit, 3).requires_grad_()
        checkpoint(module, x, use_reentrant=False).sum().backward()
        found.append(x.grad)
    assert len(seconds) == 2 * (measured.ROUNDS + 1)
    torch.testing.assert_close(found[1], found[0])


def test_a_captured_graph_has_what_is_known_already(
    seconds: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To wait for a device ends a capture."""
    circuit = circuit_named("measured-captured")
    plain, automatic = on_both(circuit, backend="auto")
    fused, x = on_both(circuit)[1], vectors(circuit, 3)
    with monkeypatch.context() as capture:
        capture.setattr(torch.Tensor, "is_cuda", True)
        capture.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert torch.equal(automatic(x), plain(x))
    assert not measured._KNOWN, "it is measured at the first call behind the capture"
    assert torch.equal(automatic(x), fused(x))
    timed = len(seconds)
    with monkeypatch.context() as capture:
        capture.setattr(torch.Tensor, "is_cuda", True)
        capture.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert torch.equal(automatic(x), fused(x))
    assert len(seconds) == timed > 0


def test_what_was_measured_is_told_to_the_log(
    seconds: list[tuple[str, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    circuit = circuit_named("measured-told")
    _, automatic = on_both(circuit, backend="auto")
    with caplog.at_level("DEBUG", "quanta_compiler"):
        for _ in range(2):
            automatic(vectors(circuit, 3))
    assert seconds
    (record,) = (one for one in caplog.records if "the engine takes" in one.message)
    assert record.levelname == "DEBUG"
    assert record.message.startswith("measured-told: the engine takes 1 s, torch 2 s (portable, cpu, ")


def test_no_token_has_no_time(seconds: list[tuple[str, bool]]) -> None:
    circuit = circuit_named("measured-nothing")
    _, automatic = on_both(circuit, backend="auto")
    assert automatic(vectors(circuit, 0)).shape == (0, 12)
    assert not seconds


def test_a_transform_is_not_measured(seconds: list[tuple[str, bool]]) -> None:
    circuit = circuit_named("measured-transformed")
    plain, automatic = on_both(circuit, backend="auto")
    x = vectors(circuit, 3)
    assert torch.equal(torch.vmap(automatic)(x), torch.vmap(plain)(x))
    found, expected = (torch.func.grad(lambda x, one=one: one(x).sum())(x) for one in (automatic, plain))
    assert torch.equal(found, expected)
    dual: Any = forward_ad.make_dual
    with forward_ad.dual_level():
        automatic(dual(x, torch.ones_like(x)))
    assert not seconds


def test_a_difference_is_measured_with_a_frozen_copy(
    seconds: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an adapted layer has it: the gradients of both sides would cost twice as much."""
    monkeypatch.setattr(modules, "is_measured", lambda *_: True)
    needed: list[list[bool]] = []
    backward = Executable.backward

    def asked(self: Executable, *what: Any) -> list[torch.Tensor]:
        needed.append(what[-1])
        return backward(self, *what)

    monkeypatch.setattr(Executable, "backward", asked)
    fitted = fit_circuit(json.dumps(file_of("3x4", [[0, 1], [1]], name="measured-difference")), 12, 12)
    own = {name: tensor.requires_grad_() for name, tensor in fitted.draw(seed=1).items()}
    fitted.apply_difference(own, {name: one.detach() for name, one in own.items()}, torch.randn(3, 12))
    assert seconds
    assert next(list(one) for one in needed if len(one) == 5) == [True, True, True, False, False]


def test_making_a_module_touches_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with a context on one cannot be forked."""

    def touched(*_: object) -> None:
        raise AssertionError("a context is made")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", touched)
    circuit = circuit_named("measured-untouched")
    automatic: Any = circuit.module(backend="auto")
    assert "_automatic" in type(automatic).forward.__qualname__
    x = torch.ones(2, 12)
    assert torch.equal(automatic(x), circuit.module(backend="torch")(x))
