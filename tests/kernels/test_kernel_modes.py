"""What is kept for a process does not depend on the mode in which it was first made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_compilers import needs_a_compiler
from fused_circuits import TOKENS, gradients, on_both, vectors
from random_circuits import error, file_of
from torch._subclasses.fake_tensor import FakeTensorMode

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.operator import apply_circuit
from quanta_compiler.nn import FittedCircuit, fit_circuit
from quanta_compiler.peft import QuantaConfig
from quanta_compiler.runtime.backends import BACKENDS
from quanta_compiler.runtime.loading import load_class

GATES: list[Any] = [
    {"pattern": "two_design", "layers": 2},
    {"axes": [0], "kind": "constant", "value": [[0.1, 0.7], [-0.3, 2]]},
    {"axes": [1, 2], "kind": "orthogonal", "init": "normal"},
    {"axes": [0, 2], "kind": "pauli", "init": "normal"},
]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let torch make tensors of this dtype where none is asked for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device() -> Iterator[None]:
    """Let torch make tensors on the meta device, for good."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "meta": lambda: torch.device("meta"),
    "default device": default_device,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "stand-ins": FakeTensorMode,
}


def new_circuit(name: str, dtype: torch.dtype = torch.float32) -> CompiledCircuit:
    """Return a circuit that no other test has made anything of."""
    return compile_circuit(file_of("2x2x2", GATES, name="".join(filter(str.isalnum, f"c{name}{dtype}"))[:60]))


def assert_good(circuit: CompiledCircuit, backend: str) -> None:
    """Train by a backend and compare with the emitted file."""
    for dtype, close in ((torch.float32, 1e-5), (torch.float64, 1e-11)):
        plain, module = on_both(circuit, dtype, backend)
        for number in TOKENS[:4]:
            x = vectors(circuit, number, dtype=dtype)
            assert error(module(x), plain(x)) < close
            expected = gradients(plain, x)
            for name, found in gradients(module, x).items():
                assert error(found, expected[name]) < 10 * close or float(expected[name].norm()) < close


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_module_first_made_in_a_mode(mode: str, backend: str) -> None:
    circuit = new_circuit(f"module{mode}{backend}")
    with MODES[mode]():
        circuit_class = load_class(circuit.source, backend)
        if mode != "stand-ins":  # torch cannot fill those
            assert type(circuit.module(backend=backend, device="cpu", dtype=torch.float32)) is circuit_class
    assert_good(circuit, backend)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "stand-ins"])
def test_a_module_first_used_in_a_mode(mode: str) -> None:
    circuit = new_circuit(f"used{mode}")
    with MODES[mode]():
        module: Any = circuit.module(backend="fused", device="cpu", dtype=torch.float32)
        module(torch.ones(3, 8, device="cpu", dtype=torch.float32))
        module.operator()
    assert_good(circuit, "fused")
    if mode != "inference":
        module(torch.ones(3, 8)).sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp"])
def test_a_circuit_first_met_in_a_transform(transform: str) -> None:
    circuit = new_circuit(transform)

    def run(x: torch.Tensor) -> torch.Tensor:
        module: Any = circuit.module(backend="fused")
        result: torch.Tensor = module(x)
        return result.sum() if transform == "grad" else result

    x = torch.ones(2, 8)
    if transform == "jvp":
        torch.func.jvp(run, (x,), (x,))
    elif transform == "vmap":
        torch.func.vmap(run, randomness="same")(x)
    else:
        torch.func.grad(run)(x)
    assert_good(circuit, "fused")


def test_a_circuit_first_met_by_its_text_in_a_trace() -> None:
    # As when an exported program is loaded in another process: only the text of the circuit is there.
    circuit = new_circuit("trace")
    module = new_circuit("trace").module(backend="torch")
    text = str(module.circuit)
    with FakeTensorMode(), pytest.raises(ValueError, match="matrices"):
        apply_circuit(text, torch.empty(3, 8), [])
    assert_good(circuit, "fused")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "stand-ins"])
def test_an_adapters_circuit_first_fitted_in_a_mode(mode: str) -> None:
    file = file_of("2x2x2", GATES, name="".join(filter(str.isalnum, f"fitted{mode}")))
    with MODES[mode]():
        fitted = fit_circuit(file, 8, 8)
        drawn = fitted.draw(3)
        assert {tensor.device.type for tensor in [*drawn.values(), *fitted.draw_apart().values()]} == {"cpu"}
        assert {tensor.dtype for tensor in fitted.draw_apart().values()} == {torch.float32}
    assert fit_circuit(file, 8, 8) is fitted
    again = FittedCircuit(fitted.spec).draw(3)
    assert all(torch.equal(tensor, drawn[name]) and tensor.dtype == drawn[name].dtype for name, tensor in again.items())
    tensors = {name: tensor.float().requires_grad_() for name, tensor in again.items()}
    for backend in BACKENDS:
        y = fitted.apply(tensors, torch.ones(2, 8), backend)
        torch.autograd.grad(y.sum(), [tensors[name] for name in fitted.trained])


@pytest.mark.parametrize("value", ["true", None, 1])
def test_recompute_is_true_or_false(value: Any) -> None:
    with pytest.raises(ValueError, match="`recompute` is True or False, got"):
        QuantaConfig(circuit=file_of("4x4", ["all_pairs"]), recompute=value)


COMPILED = """
import torch, quanta_compiler as qc
module = qc.compile_circuit(CIRCUIT).module(backend="fused")
x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
assert torch.allclose(torch.compile(module, fullgraph=True)(x), module(x))
"""


@needs_a_compiler
@pytest.mark.parametrize("ci", ["", "true"])
def test_a_compiled_module_runs_where_others_test_theirs(ci: str, tmp_path: Path) -> None:
    """Inductor is strict with operators that have a decomposition where `CI` is set, as most services for tests do."""
    code = COMPILED.replace("CIRCUIT", repr(file_of("2x3", [[0, 1]])))
    environment = {**os.environ, "CI": ci, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
