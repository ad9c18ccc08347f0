"""Where the engine of generated kernels does not run, an old GPU, another Triton or none: one sentence each."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_circuits import vectors
from random_circuits import file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.engine import engine_for
from quanta_compiler.kernels.engines.triton import engine as triton
from quanta_compiler.runtime.backends import EngineError

CIRCUIT = compile_circuit(file_of("3x4x2", ["all_pairs"], name="not-ready"))
OTHERS = "name another one of cpu, triton, portable, or unset it"


@pytest.fixture
def asked_anew() -> Any:
    """Let Triton be looked for anew, and once more after it."""
    triton._triton_problem.cache_clear()
    yield triton._triton_problem
    triton._triton_problem.cache_clear()


# Triton


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (None, "Triton is not installed; torch's CUDA wheels bring it"),
        ({"__version__": "3.5.1"}, "Triton 3.5.1 is older than 3.6"),
        ({"__version__": "2.3.0+git1"}, "Triton 2.3.0+git1 is older than 3.6"),
        ({}, "Triton is another module of this name"),
        ({"__version__": "3.6.0"}, None),
        ({"__version__": "4.0"}, None),
        ({"__version__": "3.10.0+cu128"}, None),
        ({"__version__": "3.5rc1"}, "Triton 3.5rc1 is older than 3.6"),
        ({"__version__": "4.0a1.dev"}, None),
    ],
    ids=str,
)
def test_which_triton_it_takes(
    module: dict[str, str] | None, problem: str | None, asked_anew: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = None
    if module is not None:
        made = types.ModuleType("triton")
        made.__dict__.update(module)
    monkeypatch.setitem(sys.modules, "triton", made)
    assert asked_anew() == problem
    monkeypatch.setattr(triton, "interpreting", lambda: True)
    assert triton.ready() == (problem is None)


@pytest.mark.parametrize("kind", ["OSError", "ImportError"])
def test_a_triton_that_cannot_be_imported(
    kind: str, asked_anew: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]
) -> None:
    """As where a library of its own does not load."""
    (tmp_path / "triton.py").write_text(f"raise {kind}('libtriton.so: cannot open shared object file')")
    for name in [one for one in sys.modules if one.partition(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    problem = f"Triton cannot be imported ({kind}: libtriton.so: cannot open shared object file)"
    assert asked_anew() == problem
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    name_engine("triton")
    with pytest.raises(EngineError, match=no_engine(f"does not run here ({problem})")):
        engine_for("cpu", torch.float32)


# The device


def no_engine(what: str) -> str:
    return f"^{re.escape(f'QUANTA_ENGINE names the engine {triton.name!r}, which {what}: {OTHERS}')}$"


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    name_engine("triton")
    with pytest.raises(EngineError, match=no_engine("does not run here (there is no CUDA device)")):
        engine_for("cuda", torch.float32)


@pytest.mark.parametrize(("capability", "runs"), [((7, 0), False), ((7, 5), True), ((9, 0), True)])
def test_the_oldest_gpu(
    capability: tuple[int, int], runs: bool, monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(triton, "_triton_problem", lambda: None)
    name_engine("triton")
    if runs:
        assert engine_for("cuda", torch.bfloat16) is triton
        return
    with pytest.raises(EngineError, match=no_engine("does not run here (the GPU is sm_70, older than sm_75)")):
        engine_for("cuda", torch.bfloat16)


def test_other_dtypes_and_cpu_tensors(monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    name_engine("triton")
    with pytest.raises(EngineError, match=no_engine("does not compute in float64 on cuda")):
        engine_for("cuda", torch.float64)
    fused: Any = CIRCUIT.module(backend="fused")
    with pytest.raises(EngineError, match=no_engine("does not compute in float32 on cpu")):
        fused(vectors(CIRCUIT, 3, dtype=torch.float32))
    # Without being named it leaves the CPU to the others, whatever Triton is told.
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    name_engine("")
    assert engine_for("cpu", torch.float32) is not triton
