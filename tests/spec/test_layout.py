"""Layouts whose sizes are chosen, against brute force; padding and its warnings."""

from __future__ import annotations

import random

import pytest

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.presets.layouts import least_padded_layout
from quanta_compiler.spec import load_spec


def factorizations(n: int, count: int, largest: int) -> list[tuple[int, ...]]:
    """All descending tuples of `count` factors of n, none above `largest`."""
    if count == 0:
        return [()] if n == 1 else []
    divisors = [d for d in range(min(n, largest), 0, -1) if n % d == 0]
    return [(d, *rest) for d in divisors for rest in factorizations(n // d, count - 1, d)]


def oracle(width: int, count: int) -> tuple[int, ...]:
    """Try width after width until the largest axis is within 4 times the root."""
    while True:
        best = min(factorizations(width, count, width), key=lambda factors: (factors[0], -factors[-1], factors))
        if best[0] ** count <= 4**count * width:
            return best
        width += 1


@pytest.mark.parametrize("count", range(1, 7))
def test_the_first_rule_equals_brute_force(count: int) -> None:
    rng = random.Random(count)
    widths = [*range(1, 40), *(rng.randrange(40, 1500) for _ in range(25)), 1024, 720, 997]
    for width in widths:
        assert least_padded_layout(width, count) == oracle(width, count), (width, count)


@pytest.mark.parametrize(
    ("width", "count", "sizes"),
    [
        (4096, 4, (8, 8, 8, 8)),
        (5120, 4, (10, 8, 8, 8)),
        (8192, 3, (32, 16, 16)),
        (4096, 1, (4096,)),
        (1, 3, (1, 1, 1)),
        (1 << 24, 24, (2,) * 24),
        (1 << 24, 256, (2,) * 24 + (1,) * 232),
    ],
)
def test_the_first_rule(width: int, count: int, sizes: tuple[int, ...]) -> None:
    assert least_padded_layout(width, count) == sizes


def test_auto_layout_pads_a_prime_with_a_warning() -> None:
    spec = load_spec("version: 1\nname: a\nlayout: {auto: 3}\nin_features: 1009\ngates: [each]\n")
    assert spec.in_features == 1009
    (warning,) = spec.warnings
    assert warning.message.startswith("in_features 1009 is padded to 1014 (13x13x6): ")
    assert warning.render().startswith("<string>:3:9: warning: in_features 1009")
    assert spec.out_features == 1009


def test_templates_take_their_sizes_from_the_caller() -> None:
    text = "version: 1\nname: a\nlayout: {auto: 4}\ngates: [all_pairs]\n"
    spec = load_spec(text, in_features=4096, out_features=1024)
    assert [axis.size for axis in spec.layout] == [8, 8, 8, 8]
    assert (spec.in_features, spec.out_features) == (4096, 1024)
    spec = load_spec(text, in_features=1024, out_features=4096)
    assert [axis.size for axis in spec.layout] == [8, 8, 8, 8]
    assert (spec.in_features, spec.out_features) == (1024, 4096)
    own = load_spec(text.replace("{auto: 4}", "4x4"), in_features=4096, out_features=4096)
    assert (own.in_features, own.out_features) == (16, 16)
    with pytest.raises(SpecError, match="template"):
        load_spec(text)


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        (
            "in_features: 5000",
            "in_features 5000 is padded to 5120 (16x8x8x5): 120 of 5120 inputs (2.34%) are always zero",
        ),
        (
            "in_features: 5500",
            "in_features 5500 is truncated to 5120 (16x8x8x5): the last 380 of 5500 inputs (6.91%) are ignored",
        ),
        (
            "out_features: 640",
            "out_features 640 keeps 640 of 5120 outputs: 87.5% of what the circuit computes is dropped",
        ),
        (
            "out_features: 5121",
            "out_features 5121 pads 5120 outputs (16x8x8x5): 1 of 5121 outputs (0.0195%) are always zero",
        ),
        (
            "out_features: 1",
            "out_features 1 keeps 1 of 5120 outputs: over 99.9% of what the circuit computes is dropped",
        ),
        ("out_features: 5120", None),
    ],
)
def test_waste_is_told(given: str, warning: str | None) -> None:
    spec = load_spec(f"version: 1\nname: a\nlayout: 16x8x8x5\n{given}\ngates: [all_pairs]\n")
    assert [diagnostic.message for diagnostic in spec.warnings] == ([warning] if warning else [])


@pytest.mark.parametrize(
    "bad", ["", "x4", "4x", "4 x 4", "4X4", "-4", "a", "true", "1.5", "[]", "{}", "{auto: 0}", "{auto: 2, a: 3}"]
)
def test_no_layouts(bad: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(f"version: 1\nname: a\nlayout: {bad}\nin_features: 16\ngates: [each]\n")
    assert len(caught.value.diagnostics) == 1
