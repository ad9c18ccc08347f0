"""Engines: which one runs where, by force and by itself; what a third one would have to bring."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_circuits import assert_close, gradients, on_both, vectors
from made_up_calibration import calibration
from random_circuits import error, file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels import engine as engines
from quanta_compiler.kernels.engine import ENGINES, engine_for
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.kernels.engines.triton import engine as triton
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Launch, Tiling
from quanta_compiler.kernels.engines.triton.plans import Refusal, in_words
from quanta_compiler.predict.calibration import Calibration
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.engines import MODELS, EngineModel, EngineRates
from quanta_compiler.predict.times import predicted_times
from quanta_compiler.runtime.backends import EngineError

FOLDERS = Path(engines.__file__).parent / "engines"
NAMES = "choose one of cpu, triton, portable, or unset it"
OTHERS = "name another one of cpu, triton, portable, or unset it"


def test_every_folder_is_an_engine() -> None:
    assert sorted(engine.name for engine in ENGINES) == sorted(path.parent.name for path in FOLDERS.glob("*/engine.py"))
    assert {*MODELS} <= {engine.name for engine in ENGINES}
    assert len({model.device for model in MODELS.values()}) == len(MODELS)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_every_engine_runs_by_force(
    engine: engines.Engine, mixed: CompiledCircuit, name_engine: Callable[[str], None]
) -> None:
    if not engine.takes("cpu", torch.float64) or not engine.ready():
        pytest.skip("not here")
    assert engine.problem() is None
    name_engine(f" {engine.name.upper()} ")
    assert engine_for("cpu", torch.float64) is engine
    plain, fused = on_both(mixed)
    x = vectors(mixed, 2, 9)
    assert error(fused(x), plain(x)) < 1e-12
    assert_close(gradients(fused, x), gradients(plain, x), 1e-11)


def test_a_module_says_which_engine_has_run_it(name_engine: Callable[[str], None]) -> None:
    circuit = compile_circuit(file_of("4x3", [[0, 1], [1]], name="says-its-engine"))
    name_engine("portable")
    module = circuit.module(backend="fused")
    assert module.extra_repr() == "engine: chosen at the first call"
    module(torch.randn(2, 12))
    assert module.extra_repr() == "engine: portable"
    assert "engine: portable" in repr(module)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [((4,), "1 kernel of 4 tokens"), ((1,), "1 kernel of 1 token"), ((8, 2, 8), "3 kernels of 8 and 2 tokens")],
)
def test_a_plan_of_kernels_is_said_in_words(tokens: tuple[int, ...], words: str) -> None:
    plan = tuple(Launch(Kernel("forward", place, place + 1), Tiling(count, 8)) for place, count in enumerate(tokens))
    assert in_words(plan) == words
    assert in_words(Refusal("a gate takes 512 KiB")) == "as torch does (a gate takes 512 KiB)"


def test_the_last_engine_takes_what_no_other_does(name_engine: Callable[[str], None]) -> None:
    name_engine("")
    assert ENGINES[-1] is portable
    for device, dtype in (("cuda", torch.float64), ("meta", torch.float32), ("cpu", torch.float16)):
        assert engine_for(device, dtype) is portable
    assert (engine_for("cuda", torch.float32) is triton) == triton.ready()
    assert (engine_for("cpu", torch.float32) is cpu) == cpu.ready()


def test_an_engine_that_cannot_be_used_is_an_error(
    mixed: CompiledCircuit, monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]
) -> None:
    fused, x = mixed.module(backend="fused"), torch.zeros(3, 20)
    name_engine("triton-9")
    with pytest.raises(EngineError, match=f"^QUANTA_ENGINE names no engine, 'triton-9': {NAMES}$"):
        fused(x)
    name_engine("cpu")
    unknown = f"QUANTA_ENGINE names the engine 'cpu', which does not compute in float16 on cpu: {OTHERS}"
    with pytest.raises(EngineError, match=f"^{re.escape(unknown)}$"):
        mixed.module(backend="fused", dtype=torch.float16)(x.half())
    # Nothing is computed there.
    assert mixed.module(backend="fused", device="meta")(x.to("meta")).shape == (3, 9)
    monkeypatch.setenv("QUANTA_KERNEL", "off")
    name_engine("cpu")
    off = (
        "QUANTA_ENGINE names the engine 'cpu', which does not run here (QUANTA_KERNEL=off turns the fused kernel off): "
        f"{OTHERS}"
    )
    with pytest.raises(EngineError, match=f"^{re.escape(off)}$"):
        fused(x)


class Third:
    """An engine that this project does not have."""

    name = "third"

    def __init__(self) -> None:
        self.prepared = 0

    def takes(self, device: str, dtype: torch.dtype) -> bool:
        return device == "cpu"

    def ready(self) -> bool:
        return True

    def problem(self) -> None:
        return None

    def prepare(self, table: Any) -> Any:
        self.prepared += 1
        return portable.prepare(table)

    def prefers(self, table: Any, tokens: int) -> bool:
        return tokens > 100


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]) -> Third:
    """Put it before the others."""
    made = Third()
    monkeypatch.setattr("quanta_compiler.kernels.engine.ENGINES", (made, *ENGINES))
    monkeypatch.setattr("quanta_compiler.kernels.modules.ENGINES", (made, *ENGINES))
    name_engine("")
    return made


def test_a_third_engine_is_found_prepared_once_and_asked_by_auto(third: Third) -> None:
    for tokens, backend, prepared in ((50, "auto", 0), (200, "auto", 1), (50, "fused", 1)):
        circuit = compile_circuit(file_of("4x3", [[0, 1], [1]], name=f"third-{tokens}-{backend}"), tokens=tokens)
        plain, module = on_both(circuit, backend=backend)
        x, before = vectors(circuit, 9), third.prepared
        for _ in range(2):
            assert error(module(x), plain(x)) < 1e-12
            assert_close(gradients(module, x), gradients(plain, x), 1e-11)
        assert third.prepared == before + prepared


def test_a_third_engine_is_predicted_by_its_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EngineModel("xpu", ("call", "token"), lambda table, tokens, *_: ((1.0, float(tokens)),), lambda *_: True)
    monkeypatch.setattr("quanta_compiler.predict.engines.MODELS", {**MODELS, "third": model})
    for module in ("calibration", "times"):
        monkeypatch.setattr(f"quanta_compiler.predict.{module}.MODELS", {**MODELS, "third": model})
    measured = replace(calibration(), device="xpu", kernel=EngineRates("third", (1.0, 0.5)))
    assert json.loads(measured.to_json())["kernel"] == {"call": 1.0, "token": 0.5}
    found = Calibration.from_json(measured.to_json())
    assert found.kernel == measured.kernel
    circuit = compile_circuit(file_of("4x3", [[0, 1]]), tokens=8)
    assert predicted_times(circuit_work(circuit, "fused"), found).forward_seconds == 1.0 + 8 * 0.5
    with pytest.raises(ValueError, match="everything that is counted"):
        EngineRates("third", (1.0,))


def test_a_kernel_s_times_on_a_device_without_a_kernel_are_not_believed() -> None:
    data = {**json.loads(calibration().to_json()), "device": "xpu"}
    with pytest.raises(ValueError, match="it has times of a kernel for a device that has none"):
        Calibration.from_json(json.dumps(data))
