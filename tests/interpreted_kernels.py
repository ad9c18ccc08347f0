"""The engine `triton` on CPU tensors: its kernels by Triton's interpreter, number by number, with bfloat16 repaired."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import repeat
from typing import Any

import numpy as np
import pytest
import torch
from fused_circuits import on_both, vectors
from random_circuits import error

from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.kernels.engines.portable.engine import apply_table
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Number, Tiling
from quanta_compiler.kernels.engines.triton.plans import Fit, Refusal
from quanta_compiler.kernels.engines.triton.run import TritonTable
from quanta_compiler.kernels.executable import executable

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed: it has wheels for Linux on x86-64 and aarch64 alone"
)


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch, name_engine: Callable[[str], None]) -> Iterator[None]:
    """Let the engine `triton` take CPU tensors; circuits are made ready anew, and once more after it."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    name_engine("triton")
    repair_bfloat16(monkeypatch)
    executable.cache_clear()
    yield
    executable.cache_clear()


def repair_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter compute in bfloat16 as a GPU does.

    It holds the bits as integers. In Triton 3.2 to 3.9 a product multiplies these, a cast from float32 cuts those bits
    off that do not fit, where a GPU rounds to the nearest, and the smallest numbers become zero in float32.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    product = InterpreterBuilder.create_dot
    extend, truncate = InterpreterBuilder.create_fp_ext, InterpreterBuilder.create_fp_trunc

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        numbers = torch.from_numpy(handle.data.copy().view(np.int16)).view(torch.bfloat16)
        return TensorHandle(numbers.float().numpy(), tl.float32)

    def create_dot(self: Any, left: Any, right: Any, *rest: Any) -> Any:
        return product(self, widened(left), widened(right), *rest)

    def create_fp_ext(self: Any, source: Any, dtype: Any) -> Any:
        if (source.dtype.scalar, dtype.scalar) != (tl.bfloat16, tl.float32):
            return extend(self, source, dtype)
        return widened(source)

    def create_fp_trunc(self: Any, source: Any, dtype: Any) -> Any:
        if (source.dtype.scalar, dtype.scalar) != (tl.float32, tl.bfloat16):
            return truncate(self, source, dtype)
        rounded = torch.from_numpy(source.data.copy()).bfloat16()
        return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    monkeypatch.setattr(InterpreterBuilder, "create_fp_ext", create_fp_ext)
    monkeypatch.setattr(InterpreterBuilder, "create_fp_trunc", create_fp_trunc)


def cut(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """Let no kernel have more than some entries, as on a device where more do not fit."""
    plain = TritonTable._fit

    def fit(self: TritonTable, number: Number, device: torch.device) -> Fit:
        found = plain(self, number, device)

        def fitted(kernel: Kernel) -> Tiling | Refusal:
            return Refusal("it is cut") if kernel.last - kernel.first > entries else found(kernel)

        return fitted

    monkeypatch.setattr(TritonTable, "_fit", fit)
    executable.cache_clear()


Errors = tuple[float, float]
"""Of the result, and of the worst gradient."""


def errors(circuit: CompiledCircuit, dtype: torch.dtype, *lead: int, mixed: bool = False) -> tuple[Errors, Errors]:
    """Return the errors of the engine and of torch in the same dtype, against the emitted module in float64.

    Torch's is the worse one of the emitted module's and of the circuit's gate by gate: the former may round less often,
    because gates are merged. With `mixed` the gates are float32, as those of adapters are, and what stands in the place
    of torch is the exact result, rounded.
    """
    plain, fused = on_both(circuit, torch.float32 if mixed else dtype)
    x = vectors(circuit, *lead, dtype=dtype)
    weights = torch.randn(*lead, circuit.spec.out_features, generator=torch.Generator().manual_seed(3)).to(dtype)

    def run(module: Any, x: torch.Tensor) -> list[torch.Tensor]:
        x.requires_grad_()
        with torch.autocast("cpu", dtype, enabled=mixed):
            y = module(x)
        wanted = [x, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
        return [y, *torch.autograd.grad(y, wanted, weights.to(y.dtype), materialize_grads=True)]

    exact, *expected = run(copy.deepcopy(plain).double(), x.double())
    # A gradient of what hardly matters cancels: it is measured by the largest.
    floor = 0.1 * max(float(gradient.norm()) for gradient in expected)

    def judged(y: torch.Tensor, *found: torch.Tensor) -> Errors:
        return error(y, exact), max(map(error, found, expected, repeat(floor)))

    ours = judged(*run(fused, x.detach()))
    if mixed:
        return ours, judged(*(tensor.to(dtype) for tensor in (exact, *expected)))
    of_result, of_gradients = map(max, *(judged(*run(module, x.detach())) for module in (plain, gate_by_gate(plain))))
    return ours, (of_result, of_gradients)


def gate_by_gate(plain: Any) -> Any:
    """Return a copy of an emitted module that applies the gates one after the other, each rounded to the dtype."""
    module = copy.deepcopy(plain)
    found = executable(str(module.circuit))

    def stored(gate: str, part: str) -> torch.Tensor:
        if part == "value":
            return getattr(module, f"constant_{gate}")  # type: ignore[no-any-return]
        return module.get_parameter(f"gates.{gate}.{part}".rstrip("."))  # type: ignore[no-any-return]

    def forward(x: torch.Tensor) -> torch.Tensor:
        matrices = [matrix.to(x.dtype) for matrix in found.matrices(stored, x)]
        return apply_table(found.table, x.reshape(-1, found.in_features), matrices).reshape(*x.shape[:-1], -1)

    module.forward = forward
    return module
