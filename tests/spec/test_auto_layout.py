"""`{auto: N}`: the rule against brute force, a table of real widths, and the rule of adapters saved before it."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from functools import cache
from typing import Any

import pytest

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.models.fitting import checked_document, fitted_spec
from quanta_compiler.nn import fit_circuit
from quanta_compiler.presets.layouts import auto_layout
from quanta_compiler.spec import load_spec, to_dict
from quanta_compiler.spec.circuit_spec import CircuitSpec

TEMPLATE = {"version": 1, "name": "a", "layout": {"auto": 4}, "gates": ["all_pairs"]}
Sizes = tuple[int, ...]


def sizes_of(spec: CircuitSpec) -> Sizes:
    return tuple(axis.size for axis in spec.layout)


def numbers(sizes: Sizes) -> int:
    """Trained numbers of dense gates on all pairs, pair by pair."""
    return sum((m * n) ** 2 for m, n in itertools.combinations(sizes, 2))


@cache
def factorizations(n: int, count: int, largest: int) -> tuple[Sizes, ...]:
    """All descending tuples of `count` factors of n from 2, none above `largest`."""
    if count == 0:
        return ((),) if n == 1 else ()
    divisors = [d for d in range(min(n, largest), 1, -1) if n % d == 0]
    return tuple((d, *rest) for d in divisors for rest in factorizations(n // d, count - 1, d))


def oracle(width: int, count: int) -> Sizes:
    """Write down every layout, and take the best by the words of the rule."""
    widths = [w for w in range(width, 2 * width) if 100 * w <= 101 * width]
    layouts = [sizes for w in widths for sizes in factorizations(w, count, w)]
    while not layouts:
        widths.append(widths[-1] + 1)
        layouts = list(factorizations(widths[-1], count, widths[-1]))
    best = min(layouts, key=lambda sizes: (numbers(sizes), math.prod(sizes), sizes))
    exact = [sizes for sizes in layouts if math.prod(sizes) == width and 10 * numbers(sizes) <= 13 * numbers(best)]
    return min(exact, key=lambda sizes: (numbers(sizes), sizes)) if exact else best


@pytest.mark.parametrize("count", range(1, 8))
def test_auto_layout_equals_brute_force(count: int) -> None:
    rng = random.Random(count)
    widths = [*range(1, 140), *(rng.randrange(140, 2500) for _ in range(12)), 720, 997, 1024]
    for width in widths:
        assert auto_layout(width, count) == oracle(width, count), (width, count)


@pytest.mark.parametrize(
    ("width", "count", "sizes"),
    [
        (4096, 1, (4096,)),
        (1, 1, (2,)),
        (1, 3, (2, 2, 2)),
        (8192, 3, (32, 16, 16)),
        (97, 2, (14, 7)),
        (17, 4, (3, 2, 2, 2)),
        (1 << 24, 24, (2,) * 24),
        # Nothing wider than a circuit may be, however near.
        ((1 << 24) - 1, 2, (4097, 4095)),
        ((1 << 24) - 1, 7, (16, 16, 16, 8, 8, 8, 8)),
        ((1 << 24) - 1, 23, (4,) + (2,) * 22),
        (16_777_213, 2, (178_481, 94)),
    ],
)
def test_auto_layout(width: int, count: int, sizes: Sizes) -> None:
    assert auto_layout(width, count) == sizes


def test_the_narrowest_of_the_cheapest_is_taken() -> None:
    """On two axes every layout of a width costs the same: the most even one is taken, and nothing is padded for it."""
    assert auto_layout(8198, 2) == (4099, 2)
    assert auto_layout(720, 2) == (30, 24)


@pytest.mark.parametrize("rule", [1, 2])
def test_adapters_are_read_by_the_rule_of_their_time(rule: int) -> None:
    expected = {1: (13, 11, 11, 7), 2: (14, 11, 9, 8)}[rule]
    assert sizes_of(fitted_spec(TEMPLATE, 4096, 11008, auto_rule=rule)) == expected
    assert sizes_of(fit_circuit(TEMPLATE, 4096, 11008, auto_rule=rule).spec) == expected
    assert sizes_of(load_spec(TEMPLATE, in_features=11008, auto_rule=rule)) == expected
    with_width = {**TEMPLATE, "in_features": 11008}
    assert sizes_of(load_spec(with_width, auto_rule=rule)) == expected
    preset = {"version": 1, "name": "p", "preset": "quanta"}
    assert sizes_of(load_spec(preset, in_features=11008, auto_rule=rule)) == expected
    train = {"version": 1, "name": "p", "preset": "krona", "layout": "64x64"}
    rows = {1: (192, 167), 2: (192, 167)}[rule]
    assert sizes_of(load_spec(train, out_features=32064, auto_rule=rule)) == (64, 64)
    assert tuple(axis.size for axis in load_spec(train, out_features=32064, auto_rule=rule).output) == rows


def test_the_first_rule_takes_axes_of_one() -> None:
    many = {**TEMPLATE, "layout": {"auto": 30}, "gates": ["chain"]}
    assert checked_document(many, auto_rule=1) == many
    with pytest.raises(SpecError, match="30"):
        checked_document(many)
    with pytest.raises(ValueError, match="the rules for"):
        load_spec(TEMPLATE, in_features=64, auto_rule=3)


@pytest.mark.parametrize("file", [TEMPLATE, {"version": 1, "name": "a", "preset": "tt"}])
def test_too_many_axes_are_refused(file: dict[str, object]) -> None:
    message = r"layout: a layout of 25 axes of 2 and more is wider than the limit of 16777216"
    with pytest.raises(SpecError, match=message) as caught:
        load_spec({**file, "layout": {"auto": 25}, "in_features": 4096})
    assert caught.value.diagnostics[0].hint == "choose at most 24 axes"
    assert len(caught.value.diagnostics) == 1


@pytest.mark.parametrize(
    ("sizes", "message", "hint"),
    [
        (
            {"layout": {"auto": 4}, "in_features": 37},
            "in_features 37 is padded to 40 (5x2x2x2): 3 of 40 inputs (7.5%) are always zero",
            "`{auto: 2}` is 38 wide (19x2)",
        ),
        (
            {"layout": {"auto": 3}, "in_features": 5014},
            "in_features 5014 is padded to 5040 (21x16x15): 26 of 5040 inputs (0.516%) are always zero",
            "`layout: 109x23x2` is not padded, but has 23.5x the numbers for `all_pairs`",
        ),
        (
            {"layout": "32x32", "in_features": 1000, "out_features": 1000},
            "in_features 1000 is padded to 1024 (32x32): 24 of 1024 inputs (2.34%) are always zero",
            "`layout: 40x25` is 1000 wide",
        ),
        (
            {"layout": {"a": 32, "b": 32}, "in_features": 1100},
            "in_features 1100 is truncated to 1024 (a=32 b=32): the last 76 of 1100 inputs (6.91%) are ignored",
            "`layout: {a: 44, b: 25}` is 1100 wide",
        ),
        (
            {"layout": "32x32", "out_features": 96},
            "out_features 96 keeps 96 of 1024 outputs: 90.6% of what the circuit computes is dropped",
            "`to: [3, 32]` at gate 'g0' makes 96 outputs",
        ),
        (
            {"layout": "32x32", "out_features": 1030},
            "out_features 1030 pads 1024 outputs (32x32): 6 of 1030 outputs (0.583%) are always zero",
            "`layout: 103x10` is 1030 wide",
        ),
    ],
)
def test_a_warning_names_a_better_layout(sizes: dict[str, object], message: str, hint: str) -> None:
    warning = load_spec({**TEMPLATE, **sizes}).warnings[0]
    assert (warning.message, warning.hint) == (message, hint)


@pytest.mark.parametrize(
    ("file", "widths"),
    [
        ({**TEMPLATE, "in_features": 50257}, (50257, 50257)),
        ({**TEMPLATE, "in_features": 50257, "out_features": 64}, (50257, 64)),
        # A rectangular gate: what it makes is padded to the width, with a warning.
        ({**TEMPLATE, "in_features": 4096, "gates": [{"axes": [0], "to": [4]}]}, (4096, 4096)),
        ({**TEMPLATE, "layout": "8x8x8", "in_features": 500}, (500, 512)),
        ({"version": 1, "name": "a", "preset": "krona", "in_features": 60}, (60, 60)),
    ],
)
def test_out_features_are_in_features(file: dict[str, object], widths: tuple[int, int]) -> None:
    spec = load_spec(file)
    assert (spec.in_features, spec.out_features) == widths
    assert load_spec(to_dict(spec)) == spec


def test_out_features_of_a_template_are_in_features() -> None:
    spec = load_spec(TEMPLATE, in_features=50257)
    assert (spec.in_features, spec.out_features) == (50257, 50257)
    assert len(spec.warnings) == 1


def test_presets_tell_of_uneven_factors() -> None:
    """A gate on an axis of 1733 has three million numbers; `all_pairs` on two axes is one matrix whatever they are."""
    file = {"version": 1, "name": "a", "preset": "krona"}
    told = load_spec(file, in_features=50257, out_features=4096).warnings
    assert [(each.message, each.hint) for each in told] == [
        (
            "on two axes 50257 is 1733x29, and gates on the larger one have most of the numbers",
            "`layout: {auto: 3}` has 40x36x35 in its place",
        )
    ]
    assert not load_spec(file, in_features=14336, out_features=11008).warnings
    assert not load_spec({**file, "layout": "64x64"}, in_features=4096, out_features=50257).warnings


@pytest.mark.parametrize("width", [2, 17, 64])
def test_a_single_axis_is_the_width(width: int) -> None:
    spec = load_spec({"version": 1, "name": "a", "layout": {"auto": 1}, "in_features": width, "gates": ["each"]})
    assert [axis.size for axis in spec.layout] == [width]


@pytest.mark.parametrize("seed", range(12))
def test_a_hint_of_a_rectangular_gate_can_be_followed(seed: int) -> None:
    generator = random.Random(seed)
    sizes = [generator.choice([2, 3, 4, 6]) for _ in range(3)]
    gates = [generator.sample(range(3), 2) for _ in range(3)]
    axis = generator.choice(gates[-1])
    wanted = math.prod(sizes) // sizes[axis] * generator.randrange(1, sizes[axis])
    file = {"version": 1, "name": "a", "layout": sizes, "out_features": wanted, "gates": gates}
    hints = [warning.hint or "" for warning in load_spec(file).warnings if "out_features" in warning.message]
    (found,) = [re.match(r"`to: (\[.*\])` at gate 'g(\d)' makes (\d+) outputs", hint) for hint in hints]
    assert found is not None
    assert int(found[3]) == wanted
    changed: list[Any] = list(gates)
    changed[int(found[2])] = {"axes": gates[int(found[2])], "to": json.loads(found[1])}
    again = load_spec({**file, "gates": changed})
    assert again.out_features == wanted
    assert not [warning for warning in again.warnings if "out_features" in warning.message]


def test_a_layout_as_the_command_line_takes_it_is_told_as_a_file_has_it() -> None:
    with pytest.raises(SpecError, match=r"hint: write `\{auto: 4\}`, in braces"):
        load_spec(TEMPLATE | {"layout": "auto:4"})
