"""The interpreter that judges the kernels, and its repair: bfloat16 as GPUs and torch have it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from interpreted_kernels import needs_triton, repair_bfloat16

from quanta_compiler.kernels.engines.triton import kernel

pytestmark = needs_triton
SOURCE = """import triton
import triton.language as tl

@triton.jit
def cast(x, y, N: tl.constexpr):
    n = tl.arange(0, N)
    value = tl.load(x + n)
    tl.store(y + n, value.to(y.dtype.element_ty))

@triton.jit
def product(x, y, z):
    n = tl.arange(0, 16)
    at = n[:, None] * 16 + n[None, :]
    tl.store(z + at, tl.dot(tl.load(x + at), tl.load(y + at)))
"""


def made(name: str) -> Any:
    return kernel._function(name, SOURCE)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    y = torch.empty(len(x), dtype=dtype)
    made("cast")[(1,)](x, y, N=len(x))
    return y


def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    z = torch.empty(16, 16)
    made("product")[(1,)](x, y, z)
    return z


@pytest.fixture
def numbers() -> torch.Tensor:
    """Return float32 of all sizes, ties between two of bfloat16 among them."""
    drawn = torch.randn(2048, generator=torch.Generator().manual_seed(1)) * 2.0 ** torch.arange(-60, 68).repeat(16)
    ties = (torch.arange(1024, dtype=torch.int32) * 2**16 + 0x3F808000).view(torch.float32)
    special = [0.0, -0.0, float("inf"), -float("inf"), 3.4e38, 1e-40, 2.0**-133, -(2.0**-134)]
    return torch.cat([drawn, ties, -ties[:1016], torch.tensor(special)])


def test_casts_to_bfloat16_round_to_the_nearest(numbers: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not torch.equal(cast(numbers, torch.bfloat16), numbers.bfloat16()), "it needs no repair any more"
    repair_bfloat16(monkeypatch)
    assert torch.equal(cast(numbers, torch.bfloat16), numbers.bfloat16())
    assert cast(torch.tensor([float("nan")] * 2), torch.bfloat16).isnan().all()
    back = numbers.bfloat16()
    assert torch.equal(cast(back, torch.float32), back.float())


def test_products_of_bfloat16_are_those_of_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(16, 16, generator=generator).bfloat16() for _ in range(2))
    assert float((product(x, y) - x.float() @ y.float()).norm()) > 1, "it needs no repair any more"
    repair_bfloat16(monkeypatch)
    torch.testing.assert_close(product(x, y), x.float() @ y.float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_other_dtypes_are_left_as_they_are(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(16, 16, generator=generator).to(dtype) for _ in range(2))
    expected, rounded = product(x, y), cast(x.flatten(), torch.float16)
    repair_bfloat16(monkeypatch)
    assert torch.equal(product(x, y), expected)
    assert torch.equal(cast(x.flatten(), torch.float16), rounded)
    assert torch.equal(rounded, x.flatten().half())
