"""Narrow dtypes through the fused backend: one rounding in all, and every number converted as torch converts it."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from compiled_circuits import compiled
from fused_circuits import gradients, on_both, vectors
from quick_seeds import every_second
from random_circuits import error, file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.executable import executable
from quanta_compiler.kernels.operator import apply_circuit
from quanta_compiler.nn import circuit_tensors

SEEDS = range(160)
STEP = 2.0**-8
"""The most that bfloat16 rounds a number by, relative to it."""
SPLITS = (256, 7, 12)
"""Whole tiles, tokens one by one, and tiles that are not full."""


def widened(module: Any, dtype: torch.dtype) -> Any:
    """Return a copy that computes with the same numbers in a wider dtype: with constants as they are rounded here."""
    wide = copy.deepcopy(module).to(dtype)
    wide.__dict__["_kept"] = {name: tensor.to(dtype) for name, tensor in circuit_tensors(module)}
    return wide


@pytest.mark.parametrize("seed", every_second(SEEDS))
def test_bfloat16_is_float32_rounded_once(seed: int) -> None:
    circuit = compiled(seed)
    _, fused = on_both(circuit, torch.bfloat16)
    wide = widened(fused, torch.float32)
    x = vectors(circuit, 27, dtype=torch.bfloat16)
    assert same(fused(x), wide(x.float()))
    # Not any weights: where the gates of one parameter give what nearly cancels, their roundings are left.
    weights = torch.randn(27, circuit.spec.out_features, generator=torch.Generator().manual_seed(seed)).bfloat16()
    exact, shared = gradients(wide, x.float(), weights=weights), shared_parameters(fused)
    for name, gradient in gradients(fused, x, weights=weights).items():
        assert same(gradient, exact[name]) or (name in shared and error(gradient, exact[name]) < 4 * STEP), name


def shared_parameters(module: Any) -> set[str]:
    """Return the parameters of several gates: autograd adds up what each gives, rounded."""
    entries = executable(str(module.circuit)).table.entries
    found = Counter((e.matrix.gate.parameter, e.matrix.factor) for e in entries if e.matrix is not None)
    names = {parameter for (parameter, _), uses in found.items() if uses > 1}
    return {name for name, _ in module.named_parameters() if name.split(".")[1] in names}


def same(narrow: torch.Tensor, wide: torch.Tensor) -> bool:
    """Say whether `narrow` is `wide` rounded once, bit for bit."""
    assert narrow.dtype == torch.bfloat16
    assert wide.dtype == torch.float32
    return torch.equal(narrow, wide.bfloat16())


@pytest.mark.parametrize("seed", range(0, 160, 3))
def test_bfloat16_is_within_one_rounding_of_exact_sums(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit, torch.bfloat16)
    exactly, nearly = widened(plain, torch.float64), widened(plain, torch.float32)
    x = vectors(circuit, 20, dtype=torch.bfloat16)
    exact, inexact = exactly(x.double()), nearly(x.float())
    # Where float32 is not close by itself there is more than that one rounding.
    sums = 10 * (inexact.double() - exact).abs().max() + 1e-6 * exact.abs().max()
    assert bool(((fused(x).double() - exact).abs() <= STEP * exact.abs() + sums).all())
    weights = torch.randn(exact.shape, generator=torch.Generator().manual_seed(seed)).bfloat16()
    theirs = gradients(nearly, x.float(), weights=weights)
    close, shared = gradients(exactly, x.double(), weights=weights), shared_parameters(fused)
    for name, gradient in gradients(fused, x, weights=weights).items():
        sums = 10 * max(error(theirs[key], close[key]) for key in theirs) * close[name].norm() + 1e-6
        step = STEP * close[name].abs() if name not in shared else 4 * STEP * close[name].norm()
        assert bool(((gradient.double() - close[name]).abs() <= step + sums).all()), name


@pytest.mark.parametrize("seed", range(0, 160, 4))
def test_float16_takes_the_portable_path_and_rounds_once(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit, torch.float16)
    exactly = widened(plain, torch.float64)
    x = vectors(circuit, 9, dtype=torch.float16)
    y = fused(x)
    assert y.dtype == torch.float16
    assert bool(((y.double() - exactly(x.double())).abs() <= 2.0**-11 * exactly(x.double()).abs() + 1e-4).all())
    if len(circuit.spec.gates) < 12:
        weights = torch.randn(y.shape).half()
        exact = gradients(exactly, x.double(), weights=weights)
        for name, gradient in gradients(fused, x, weights=weights).items():
            assert gradient.dtype == torch.float16
            assert error(gradient, exact[name], 1e-3) < 2.0**-10, name


# Conversions


def all_numbers() -> torch.Tensor:
    """Return every bfloat16 number, infinities and NaN too, in 256 vectors of 256."""
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16).reshape(256, 256)


def bits(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.view(torch.int16)


@pytest.mark.parametrize("split", SPLITS)
def test_every_bfloat16_number_is_read_and_written(split: int) -> None:
    _, ones = identity(file_of(256, [{"axes": [0], "kind": "diagonal", "init": "identity"}]))
    _, cut = identity(file_of("16x16", [{"axes": [0], "kind": "slice", "to": [20]}], out_features=256))
    x = all_numbers()
    is_number = ~x.isnan()
    # A sum begins at zero, and 0 + -0 is 0: equal, but not in its bits.
    written = torch.cat([ones(part) for part in torch.split(x, split)])
    assert torch.equal(written[is_number], x[is_number])
    assert torch.equal(written.isnan(), ~is_number)
    # What is only moved keeps its sign as well.
    written = torch.cat([cut(part) for part in torch.split(x, split)])
    assert torch.equal(bits(written)[is_number], bits(x)[is_number])
    assert torch.equal(written.isnan(), ~is_number)


@pytest.mark.parametrize("split", SPLITS)
def test_every_bfloat16_number_is_read_and_written_backward(split: int) -> None:
    _, ones = identity(file_of(256, [{"axes": [0], "kind": "diagonal", "init": "identity"}]))
    ones.requires_grad_(False)
    written = []
    for part in torch.split(all_numbers(), split):
        x = torch.zeros_like(part).requires_grad_()
        ones(x).backward(part)
        assert x.grad is not None
        written.append(x.grad)
    is_number = ~all_numbers().isnan()
    assert torch.equal(torch.cat(written)[is_number], all_numbers()[is_number])
    assert torch.equal(torch.cat(written).isnan(), ~is_number)


def identity(file: dict[str, Any]) -> tuple[Any, Any]:
    """Return a circuit on both backends as its file draws it."""
    circuit = compile_circuit(file)
    return (circuit.module(dtype=torch.bfloat16, backend=backend) for backend in ("torch", "fused"))  # type: ignore[return-value]


@pytest.mark.parametrize("tokens", [1, 16, 12])
def test_rounding_is_torch_s(tokens: int) -> None:
    """Ties to even, subnormal numbers, and numbers that only rounding makes infinite."""
    width = 4096
    circuit = str(compile_circuit(file_of(width, [{"axes": [0], "kind": "diagonal"}])).module(device="meta").circuit)
    upper = torch.cat([torch.arange(0, 2**16, 37), torch.arange(0x7F00, 0x7F90), torch.arange(0, 0x90)])
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        numbers = (upper * 2**16 + lower).to(torch.int32).view(torch.float32)
        for matrix in torch.split(torch.nn.functional.pad(numbers, (0, -len(numbers) % width)), width):
            y = apply_circuit(circuit, torch.ones(tokens, width, dtype=torch.bfloat16), [matrix])
            expected = matrix.bfloat16().expand(tokens, width)
            assert torch.equal(y.isnan(), expected.isnan())
            assert torch.equal(y.nan_to_num(7), expected.nan_to_num(7))
            signed = expected != 0
            assert torch.equal(bits(y)[signed & ~y.isnan()], bits(expected.contiguous())[signed & ~y.isnan()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_infinities_and_nan_go_where_the_emitted_module_takes_them(seed: int, dtype: torch.dtype) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit, dtype)
    x = vectors(circuit, 24, dtype=dtype)
    for place, number in ((0, "inf"), (3, "-inf"), (17, "nan"), (23, "inf")):
        x[place, place % x.shape[1]] = float(number)
    touched = [0, 3, 17, 23]
    others = [token for token in range(24) if token not in touched]
    ours, theirs = fused(x), plain(x)
    assert bool(ours[others].isfinite().all())
    assert torch.equal(ours[touched].isfinite(), theirs[touched].isfinite())
