"""Rounding to a few bits and packing, as functions: held against numpy, and exact where it has to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quanta_compiler.peft.rounding import ENDS, FORM, Rounding, pack, unpack

BITS = range(1, 9)
SHAPES = [(1,), (7,), (3, 5), (16, 16), (2, 3, 4), (257,), ()]
GROUPS = [1, 2, 7, 128, 10**6]


def normal(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_numpy(tensor: torch.Tensor, bits: int, group_size: int) -> np.ndarray:
    """Return the rounded numbers by the textbook: zero, scale, and whole numbers between, in float64."""
    flat = tensor.double().numpy().reshape(-1)
    result = np.empty_like(flat)
    for first in range(0, len(flat), group_size):
        group = flat[first : first + group_size]
        zero, scale = group.min(), (group.max() - group.min()) / (2**bits - 1)
        result[first : first + group_size] = zero + scale * np.round((group - zero) / (scale or 1.0))
    return result.reshape(tensor.shape)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group_size", GROUPS)
def test_it_is_uniform_affine_rounding_by_groups(bits: int, group_size: int) -> None:
    for seed, shape in enumerate(SHAPES):
        tensor = normal(shape, seed)
        rounded = Rounding(bits, group_size).apply(tensor)
        assert rounded.shape == tensor.shape
        assert np.abs(rounded.numpy() - by_numpy(tensor, bits, group_size)).max() < 1e-6


def awkward(seed: int) -> list[torch.Tensor]:
    """Return numbers whose steps are near what float32 can tell apart, and others that are apart by far."""
    # One plus 0 to 12 of the smallest steps.
    near = 1 + 2.0**-23 * (normal((300,), seed).abs() * 6).clamp(max=12).floor()
    spread = normal((300,), seed) * 10.0 ** torch.randint(
        -38, 30, (300,), generator=torch.Generator().manual_seed(seed)
    )
    return [
        normal((300,), seed),
        1 + normal((300,), seed, 1e-6),
        near,
        spread,
        normal((300,), seed, 1e-40),
        torch.zeros(300),
        torch.full((300,), 0.1),
        torch.cat([torch.zeros(299), torch.tensor([-1e-8])]),
    ]


@pytest.mark.parametrize("bits", BITS)
def test_what_is_rounded_stays_as_it_is_bit_for_bit(bits: int) -> None:
    for seed in range(40):
        for group_size in (3, 128):
            rounding = Rounding(bits, group_size)
            for tensor in awkward(seed):
                once = rounding.apply(tensor)
                assert torch.equal(rounding.apply(once), once)
                assert torch.equal(unpack(pack(tensor, rounding)), once)
                assert torch.equal(unpack(pack(once, rounding)), once)
                # Both ends of every group are met exactly.
                for then, now in zip(*(torch.split(one, group_size) for one in (tensor, once)), strict=True):
                    assert (then.min(), then.max()) == (now.min(), now.max())


def test_zeros_stay_zeros_and_one_bit_keeps_the_ends() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        zeros = torch.zeros(5, 7, dtype=dtype)
        rounded = Rounding(4, 128).apply(zeros)
        assert rounded.dtype == dtype
        assert not rounded.any()
    tensor = torch.tensor([-1.0, 0.9, 1.1, 3.0, 5.0, 5.0])
    assert Rounding(1, 4).apply(tensor).tolist() == [-1.0, -1.0, 3.0, 3.0, 5.0, 5.0]


@pytest.mark.parametrize("bits", BITS)
def test_the_gradient_goes_straight_through(bits: int) -> None:
    tensor = normal((6, 6), 3).requires_grad_()
    weights = normal((6, 6), 4)
    (gradient,) = torch.autograd.grad((Rounding(bits, 8).apply(tensor) * weights).sum(), tensor)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("bits", BITS)
def test_the_codes_are_packed_from_the_lowest_bit_on(bits: int) -> None:
    for shape in SHAPES:
        tensor, rounding = normal(shape, 11), Rounding(bits, 50)
        packed = pack(tensor, rounding)
        numbers = math.prod(shape)
        assert packed[""].dtype == torch.uint8
        assert packed[""].dim() == len(shape) + 1
        assert packed[ENDS].dtype == torch.float32
        assert packed[FORM].tolist() == [bits, min(50, numbers), *shape]
        lone = np.unpackbits(packed[""].numpy().reshape(-1), bitorder="little")[: numbers * bits]
        codes = (lone.reshape(numbers, bits) << np.arange(bits)).sum(1)
        least, greatest = (packed[ENDS].double().numpy()[np.arange(numbers) // 50, side] for side in (0, 1))
        values = least + codes * (greatest - least) / (2**bits - 1)
        assert np.abs(values.reshape(shape) - unpack(packed).numpy()).max() < 1e-6


@pytest.mark.parametrize("bits", BITS)
def test_the_bytes_are_those_of_the_formula(bits: int) -> None:
    for shape in SHAPES:
        for group_size in GROUPS:
            rounding, numbers = Rounding(bits, group_size), math.prod(shape)
            held = sum(part.numel() * part.element_size() for part in pack(normal(shape, 1), rounding).values())
            codes, groups = math.ceil(numbers * bits / 8), math.ceil(numbers / group_size)
            assert rounding.packed_bytes(shape) == held == codes + 8 * groups + 4 * (2 + len(shape))


def test_the_bytes_of_a_16x8x8x4_circuit_are_those_that_the_docs_say() -> None:
    shapes = [(side, side) for side in (128, 128, 64, 64, 32, 32)]
    assert sum(map(Rounding(4, 128).packed_bytes, shapes)) == 24_288


def test_numbers_that_are_not_finite_are_seen() -> None:
    for wrong in (float("nan"), float("inf")):
        tensor = normal((20,), 0)
        tensor[7] = wrong
        assert not torch.isfinite(Rounding(4, 5).apply(tensor)[5:10]).all()
        assert not torch.isfinite(pack(tensor, Rounding(4, 5))[ENDS]).all()


def test_an_empty_shell_is_packed_too() -> None:
    packed = pack(torch.empty(6, 6, device="meta"), Rounding(3, 5))
    assert all(part.is_meta for part in packed.values())
    assert sum(part.numel() * part.element_size() for part in packed.values()) == Rounding(3, 5).packed_bytes((6, 6))


@pytest.mark.parametrize(
    "damage",
    [
        {"": None},
        {ENDS: None},
        {ENDS: torch.zeros(3, 2)},
        {FORM: torch.tensor([9, 5, 6, 6], dtype=torch.int32)},
        {FORM: torch.tensor([4, 0, 6, 6], dtype=torch.int32)},
        {FORM: torch.tensor([4, 5, 6, -6], dtype=torch.int32)},
        {FORM: torch.tensor([4, 5, 6, 7], dtype=torch.int32)},
        {FORM: torch.tensor(4, dtype=torch.int32)},
    ],
    ids=str,
)
def test_parts_that_do_not_belong_together_are_refused(damage: dict[str, torch.Tensor | None]) -> None:
    packed = pack(normal((6, 6), 0), Rounding(4, 5))
    with pytest.raises(ValueError, match=r"missing|its form is|bytes and ends"):
        unpack({**packed, **damage})
