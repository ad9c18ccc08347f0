"""Circuits on two backends with the same gates; and the kernel beside the portable path, without autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from compiled_circuits import scaled_module
from random_circuits import error

from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.kernels.engines.cpu import engine as cpu
from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.kernels.executable import Executable, executable
from quanta_compiler.kernels.precision import matrix_dtype

Backward = Callable[..., tuple[torch.Tensor | None, list[torch.Tensor | None]]]
TOKENS = (0, 1, 7, 8, 9, 16, 17, 40)
"""Nothing, tokens one by one, whole tiles of either dtype, and what is left over."""


def on_both(
    circuit: CompiledCircuit, dtype: torch.dtype = torch.float64, backend: str = "fused", recompute: bool = False
) -> tuple[Any, Any]:
    """Return the emitted module with well-scaled gates, and the same on another backend."""
    plain = scaled_module(circuit, dtype)
    other = circuit.module(dtype=dtype, backend=backend, recompute=recompute)
    other.load_state_dict(plain.state_dict())
    return plain, other


def vectors(circuit: CompiledCircuit, *lead: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    """Return inputs of a circuit, `[*lead, in_features]`, the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, circuit.spec.in_features, generator=generator, dtype=torch.float64).to(dtype)


def gradients(
    module: Any, x: torch.Tensor, *, of_x: bool = True, weights: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return the gradients of a fixed random weighting of the result: of `x`, and of every parameter that trains."""
    given = x.detach().requires_grad_(of_x)
    wanted = {"x": given} if of_x else {}
    wanted |= {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    y = module(given)
    if not y.requires_grad or not wanted:
        return {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    if weights is None:
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = torch.autograd.grad(y, list(wanted.values()), weights.to(y.dtype), materialize_grads=True)
    return dict(zip(wanted, found, strict=True))


def assert_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], close: float, small: float = 1e-3
) -> None:
    """Compare gradients by name; one that is `small` beside the others, as where nothing depends, by their size."""
    assert found.keys() == expected.keys()
    floor = small * max((float(gradient.double().norm()) for gradient in expected.values()), default=0.0)
    for name, gradient in found.items():
        assert gradient.dtype == expected[name].dtype
        assert error(gradient, expected[name], floor) < close, name


def executable_of(module: Any) -> Executable:
    """Return the table of a module's circuit; skip the test where there is no kernel to judge."""
    found = executable(str(module.circuit))
    if not cpu.ready():
        pytest.skip(f"there is no kernel: {cpu.problem()}")
    return found


def matrices_of(module: Any, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
    """Return the matrices of a module's gates as the kernel wants them beside vectors of `dtype`, its own if None."""

    def stored(gate: str, part: str) -> torch.Tensor:
        if part == "value":
            return getattr(module, f"constant_{gate}").detach()  # type: ignore[no-any-return]
        return module.get_parameter(f"gates.{gate}.{part}".rstrip(".")).detach()  # type: ignore[no-any-return]

    like = next(module.parameters(), torch.empty(0, dtype=dtype or torch.float64))
    found = executable(str(module.circuit)).matrices(stored, like.detach())
    return [matrix.to(matrix_dtype(dtype or matrix.dtype)).contiguous() for matrix in found]


def both_paths(found: Executable) -> tuple[list[Callable[..., torch.Tensor]], list[Backward]]:
    """Return forward and backward of the kernel and of the portable path, with the same arguments."""
    kernel, plainly = (engine.prepare(found.table) for engine in (cpu, portable))
    return [kernel.forward, plainly.forward], [kernel.backward, plainly.backward]


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch, and so the kernel, have this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
