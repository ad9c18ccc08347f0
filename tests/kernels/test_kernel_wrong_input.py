"""What does not go together is an error that names both; where there is no kernel, another path runs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fused_circuits import assert_close, gradients, matrices_of, on_both, vectors
from random_circuits import error, file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engines.cpu import build
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.engines.cpu.compiler import KernelError
from quanta_compiler.kernels.operator import APPLY_BACKWARD, apply_circuit
from quanta_compiler.nn import fit_circuit

BACKENDS = ("fused", "auto")


def says(message: str) -> str:
    return f"^{re.escape(message)}$"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["nothing", "grad", "vmap", "no_grad", "autocast"])
def around(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return what a call may happen in: the same mistake is the same error everywhere."""

    def call(module: Any, x: torch.Tensor) -> Any:
        match request.param:
            case "grad":
                return torch.func.grad(lambda x: module(x).float().sum())(x)
            case "vmap":
                return torch.vmap(module)(x[None])
            case "no_grad":
                with torch.no_grad():
                    return module(x)
            case "autocast":
                with torch.autocast("cpu", torch.bfloat16):
                    return module(x)
        return module(x)

    return call


@pytest.mark.parametrize("shape", [(3, 5), (2, 40), (2, 19), (2, 21), (2, 3, 0), (2, 1)], ids=str)
def test_another_last_dimension(
    mixed: CompiledCircuit, backend: str, shape: tuple[int, ...], around: Callable[..., Any]
) -> None:
    module = mixed.module(backend=backend)
    # Under vmap the kernel sees the whole batch.
    message = says(f"expected [..., 20], got {list(shape)}").replace(r"got\ \[", r"got\ \[(1,\ )?")
    with pytest.raises(ValueError, match=message):
        around(module, torch.zeros(shape))


def test_no_dimension_at_all(mixed: CompiledCircuit, backend: str) -> None:
    module = mixed.module(backend=backend)
    with pytest.raises(ValueError, match=says("expected [..., 20], got []")):
        module(torch.tensor(1.0))


@pytest.mark.parametrize(
    ("of_x", "of_gates"), [("float64", "float32"), ("float32", "float64"), ("bfloat16", "float32")]
)
def test_another_dtype(mixed: CompiledCircuit, of_x: str, of_gates: str) -> None:
    module = mixed.module(backend="fused", dtype=getattr(torch, of_gates))
    message = f"the input is torch.{of_x}, the gates are torch.{of_gates}: convert one of them"
    with pytest.raises(ValueError, match=says(message)):
        module(torch.zeros(3, 20, dtype=getattr(torch, of_x)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64], ids=str)
def test_numbers_that_no_circuit_takes(mixed: CompiledCircuit, dtype: torch.dtype) -> None:
    x = torch.zeros(3, 20, dtype=dtype)
    fused: Any = mixed.module(backend="fused")
    message = f"the input is {dtype}, the gates are torch.float32: convert one of them"
    with pytest.raises(ValueError, match=says(message)):
        fused(x)
    message = f"expected vectors of a floating-point dtype, got {dtype}"
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=says(message)):
        fused(x)
    # A circuit without a matrix has no dtype of its own.
    moved = compile_circuit(file_of(20, [{"axes": [0], "kind": "slice", "to": [3]}])).module(backend="fused")
    with pytest.raises(ValueError, match=says(message)):
        moved(x)


def test_another_device(mixed: CompiledCircuit) -> None:
    here, there = mixed.module(backend="fused"), mixed.module(backend="fused", device="meta")
    with pytest.raises(ValueError, match=says("the input is on meta, the gates are on cpu")):
        here(torch.zeros(3, 20, device="meta"))
    with pytest.raises(ValueError, match=says("the input is on cpu, the gates are on meta")):
        there(torch.zeros(3, 20))


def test_an_unknown_backend(mixed: CompiledCircuit) -> None:
    message = says("unknown backend 'cuda': choose one of auto, torch, fused")
    with pytest.raises(ValueError, match=message):
        mixed.module(backend="cuda")
    fitted = fit_circuit(file_of("2x3", [[0, 1]]), 6, 6)
    with pytest.raises(ValueError, match=message):
        fitted.apply(fitted.draw(0), torch.zeros(1, 6), backend="cuda")


# The operators themselves, which anybody may call


def test_gates_of_other_sizes_or_too_few(mixed: CompiledCircuit) -> None:
    module, _ = on_both(mixed)
    text, matrices, x = str(module.circuit), matrices_of(module), vectors(mixed, 3)
    wrong = [matrices[0][:, :-1].contiguous(), *matrices[1:]]
    message = f"expected a gate of {matrices[0].numel()} numbers, got {list(wrong[0].shape)}"
    with pytest.raises(ValueError, match=says(message)):
        apply_circuit(text, x, wrong)
    for given in (matrices[:-1], [*matrices, matrices[0]], []):
        message = f"expected {len(matrices)} matrices, got {len(given)}"
        with pytest.raises(ValueError, match=says(message)):
            apply_circuit(text, x, given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.zeros(3, 8)}, "expected a gradient [..., 9], got [3, 8]"),
        ({"grad": torch.zeros(2, 9)}, "the input is [3, 20], the gradient of the result [2, 9]"),
        ({"x": None}, "the gradient of a gate needs the input"),
        ({"x": torch.zeros(3, 21)}, "expected [..., 20], got [3, 21]"),
        (
            {"x": torch.zeros(3, 20, dtype=torch.float64)},
            "the input is torch.float64, the gradient of the result torch.float32",
        ),
        ({"x": None, "needed": [True]}, "expected to be asked for 9 gradients, got 1"),
    ],
)
def test_backward_of_what_does_not_go_together(mixed: CompiledCircuit, change: dict[str, Any], message: str) -> None:
    """Unchecked, the kernel would read past a tensor's end."""
    names = ("grad", "x", "matrices", "circuit", "needed")
    module, _ = on_both(mixed, torch.float32)
    matrices = matrices_of(module)
    given = {"grad": torch.zeros(3, 9), "x": torch.zeros(3, 20), "matrices": matrices, "circuit": str(module.circuit)}
    given |= {"needed": [True] * (1 + len(matrices)), **change}
    with pytest.raises(ValueError, match=says(message)):
        APPLY_BACKWARD(*(given[name] for name in names))


# Where there is no kernel

WARNING = (
    "quanta-compiler: the fused kernel could not be built, torch computes circuits instead: it is monday\n"
    "hint: QUANTA_KERNEL=off turns the kernel off without this warning"
)


@pytest.mark.parametrize(
    ("kernel", "backends", "said"),
    [
        ("off", ("fused", "auto", "fused"), []),
        ("on", ("fused", "fused", "auto"), [WARNING]),
        ("on", ("auto", "auto"), [WARNING]),
        ("on", ("torch",), []),
    ],
    ids=["turned off", "not built", "not built for auto", "not needed"],
)
def test_without_a_kernel_the_numbers_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
    name_engine: Callable[[str], None],
    kernel: str,
    backends: tuple[str, ...],
    said: list[str],
) -> None:
    def broken() -> None:
        raise KernelError("it is monday")

    monkeypatch.setenv("QUANTA_KERNEL", kernel)
    monkeypatch.setattr(build, "_KERNEL", build._Kernel())
    monkeypatch.setattr(build, "_find_or_build", broken)
    monkeypatch.setattr(cpu, "prefers", lambda *_: True)
    name_engine("")
    circuit = compile_circuit({**file_of("4x3x2", ["all_pairs"]), "name": "without-a-kernel"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for backend in backends:
            plain, module = on_both(circuit, backend=backend)
            x = vectors(circuit, 19)
            assert error(module(x), plain(x)) < 1e-12
            assert_close(gradients(module, x), gradients(plain, x), 1e-11)
    assert [(warning.category, str(warning.message)) for warning in caught] == [(RuntimeWarning, one) for one in said]


CIRCUIT = compile_circuit(file_of("4x4x4", ["all_pairs"]))


class Wrapper(torch.Tensor):
    """A tensor without memory of its own, as a sharded one has none."""

    @staticmethod
    def __new__(cls, shape: tuple[int, ...]) -> Any:
        make: Any = torch.Tensor._make_wrapper_subclass
        return make(cls, shape, dtype=torch.float64)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} reached a wrapper")


def test_a_gate_that_is_a_tensor_of_another_kind_never_reaches_the_kernel() -> None:
    _, fused = on_both(CIRCUIT)
    for name, gate in list(fused.gates.items()):
        fused.gates._parameters[name] = Wrapper(tuple(gate.shape))
    with torch.no_grad(), pytest.raises(RuntimeError, match="reached a wrapper"):
        fused(vectors(CIRCUIT, 3))


def test_a_lazily_negated_input_is_negated() -> None:
    plain, fused = on_both(CIRCUIT)
    x = torch._neg_view(vectors(CIRCUIT, 3))
    with torch.no_grad():
        assert error(fused(x), plain(x)) < 1e-12
