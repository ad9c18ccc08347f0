"""Times from work and a calibration: between measured points, beyond them, and what more work must cost."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from made_up_calibration import calibration
from random_circuits import file_of

from quanta_compiler.compare.method_costs import linear_work
from quanta_compiler.driver import compile_circuit
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.predict.calibration import typical_calibration
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.engines.cpu import FEATURES
from quanta_compiler.predict.engines.cpu import counts as counts_of
from quanta_compiler.predict.grid import Grid, grid_points, rising
from quanta_compiler.predict.times import predicted_times, seconds_of
from quanta_compiler.predict.work import FusedPass, Pass, Permutation, Product, Work


def grid_of(seed: int) -> Grid:
    draw = random.Random(seed)
    axes = tuple(tuple(sorted(draw.sample(range(1, 99), draw.randint(1, 4)))) for _ in range(draw.randint(1, 3)))
    return Grid(axes, tuple(draw.uniform(1, 50) for _ in grid_points(axes)))


@pytest.mark.parametrize("seed", range(10))
def test_a_grid_is_exact_on_its_points(seed: int) -> None:
    grid = grid_of(seed)
    assert [grid.at(*point) for point in grid_points(grid.axes)] == pytest.approx(grid.values, rel=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_a_rising_grid_rises_everywhere(seed: int) -> None:
    draw, grid = random.Random(seed), rising(grid_of(seed))
    assert all(new >= old for new, old in zip(grid.values, grid_of(seed).values, strict=True))
    assert rising(grid) == grid
    for _ in range(50):
        point = [draw.uniform(0.5, 120) for _ in grid.axes]
        place = draw.randrange(len(point))
        further = [one * (1.5 if i == place else 1) for i, one in enumerate(point)]
        assert grid.at(*further) >= grid.at(*point) * (1 - 1e-12)


def test_between_two_points_logarithms_are_straight() -> None:
    grid = Grid(((4, 64),), (2.0, 32.0))
    assert [grid.at(x) for x in (1, 4, 8, 16, 64, 1000)] == pytest.approx([2, 2, 4, 8, 32, 32])
    assert grid.clamped(1000) == (64,)


@pytest.mark.parametrize(
    ("axes", "values", "words"),
    [
        (((1, 2),), (1.0,), "one value for every point"),
        (((2, 1),), (1.0, 1.0), "ascend"),
        (((0, 1),), (1.0, 1.0), "ascend"),
        (((1,),), (0.0,), "positive"),
        (((1,),), (math.nan,), "positive"),
    ],
)
def test_a_grid_that_is_none(axes: Any, values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Grid(axes, values)


def test_products_follow_their_grids() -> None:
    known = calibration()
    grids = known.grids
    assert seconds_of(Product(16, 16, 16), known) == pytest.approx(grids.products.at(16, 16, 16))
    assert seconds_of(Product(16, 16, 16, is_transposed=True), known) == pytest.approx(grids.gradients.at(16, 16, 16))
    assert seconds_of(Product(16, 16, 16, 100), known) == pytest.approx(100 * grids.batched.at(16, 16, 16))
    alone = seconds_of(Product(16, 16, 16, 100, is_one_by_one=True), known)
    assert alone == pytest.approx(100 * seconds_of(Product(16, 16, 16), known))
    # Past the last point, at its rate.
    last = grids.products.axes[0][-1]
    assert seconds_of(Product(8 * last, 16, 16), known) == pytest.approx(8 * grids.products.at(last, 16, 16))


def test_a_product_takes_no_less_than_its_memory() -> None:
    known = calibration()
    quick = replace(known.grids, products=Grid(((1,),) * 3, (1e-30,)))
    product = Product(1024, 1, 1024)
    assert seconds_of(product, replace(known, grids=quick)) == seconds_of(
        Pass(4 * (1024 + 1024 + 1024 * 1024)), replace(known, grids=quick)
    )


def test_a_large_result_is_given_page_by_page() -> None:
    known = replace(calibration(), fresh=1e-9)
    near, far = (seconds_of(Pass(2 * size), known) for size in (2**25 - 8, 2**25))
    assert far - near == pytest.approx(1e-9 * 2**25, rel=0.01)


def test_copies_are_told_apart() -> None:
    known = calibration()
    grids = known.grids
    by_runs, strided = Permutation((64, 32, 16), (16, 1024, 1)), Permutation((16, 64, 32), (1, 512, 16))
    assert seconds_of(by_runs, known) == pytest.approx(2**15 * grids.runs.at(16, 32, 2**15) + 64 * known.restart)
    assert seconds_of(strided, known) == pytest.approx(2**15 * grids.strided.at(32, 2048, 2**15) + 16 * known.restart)
    turned = Permutation((64, 512), (1, 64), is_transpose=True)
    assert seconds_of(turned, known) == pytest.approx(2**15 * grids.transposed.at(64, 2**15))
    one_by_one = Permutation((64, 512), (1, 64), is_one_by_one=True)
    assert seconds_of(one_by_one, known) == pytest.approx(2**15 * known.gathered)


@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_more_tokens_take_longer(backend: str) -> None:
    file = file_of("8x4x4", ["all_pairs", {"axes": [1], "kind": "diagonal"}])
    known = calibration()
    times = [
        predicted_times(circuit_work(compile_circuit(file, tokens=tokens), backend), known)
        for tokens in (1, 64, 256, 1024, 4096)
    ]
    for few, many in pairwise(times):
        assert few.forward_seconds < many.forward_seconds
        assert few.step_seconds < many.step_seconds
    assert all(one.step_seconds > one.forward_seconds > 0 for one in times)


def test_a_time_is_the_sum_of_its_parts() -> None:
    known = calibration()
    first, second = linear_work(8, 16, 64), linear_work(8, 64, 256)
    one, other = predicted_times(first, known), predicted_times(second, known)
    together = predicted_times(Work(first.forward + second.forward, first.backward + second.backward), known)
    assert together.forward_seconds == pytest.approx(one.forward_seconds + other.forward_seconds)
    assert together.step_seconds == pytest.approx(one.step_seconds + other.step_seconds)
    called = seconds_of(first.forward[0], known) + known.forward_launch
    assert one.forward_seconds == pytest.approx(called)
    back = sum(seconds_of(operation, known) + known.backward_launch for operation in first.backward)
    assert one.step_seconds == pytest.approx(called + known.recording + back)


def counts(backward: bool = False, tokens: int = 16, threads: int = 1, **gate: Any) -> dict[str, float]:
    circuit = compile_circuit(file_of("16x6", [{"axes": [0], **gate}])).circuit
    return dict(zip(FEATURES, counts_of(lower_table(circuit), tokens, backward, threads), strict=True))


def test_the_kernels_loops_counted_by_hand() -> None:
    # 16 columns, 16 rows in two blocks of 8, 6 lines in two groups of 3.
    forward = counts()
    assert forward["multiplied"] == 16 * 16 * 6
    assert forward["products"] == 2 * 2
    assert forward["loaded"] == 16 * (2 * 16 + 2 * 6)
    assert (forward["written"], forward["ends"], forward["packed"], forward["call"]) == (96, 192, 256, 1)
    assert not any(forward[name] for name in ("backward_call", "summed", "turned", "sums", "far"))
    backward = counts(backward=True)
    assert backward["summed"] == 16 * 16 * 6
    assert (backward["turned"], backward["ends"], backward["packed"]) == (96, 288, 512)
    assert (backward["call"], backward["backward_call"]) == (0, 1)


def test_the_kernels_tiles() -> None:
    assert counts(tokens=160)["multiplied"] == 10 * counts()["multiplied"]
    assert counts(tokens=160, threads=4)["multiplied"] == 3 * counts()["multiplied"]
    assert counts(tokens=3)["multiplied"] < counts(tokens=9)["multiplied"] == counts()["multiplied"]
    assert counts(tokens=1, backward=True)["multiplied"] == counts(backward=True)["multiplied"]
    assert counts(backward=True, frozen=True)["summed"] == 0


def test_without_the_kernel_its_work_has_no_time() -> None:
    table = lower_table(compile_circuit(file_of("4x4", [[0]])).circuit)
    known = replace(calibration(), kernel=None)
    with pytest.raises(ValueError, match="made without the kernel: `quanta bench --calibrate` makes another"):
        seconds_of(FusedPass(table, 8), known)


def test_what_is_known_to_be_faster_is_predicted_so() -> None:
    known = typical_calibration()
    lowrank = {"axes": [0], "kind": "lowrank", "rank": 8}
    lora, quanta = (
        compile_circuit(file, tokens=512) for file in (file_of("4096", [lowrank]), file_of("16x8x8x4", ["all_pairs"]))
    )
    ordered = [
        circuit_work(lora),
        circuit_work(quanta, "fused"),
        circuit_work(quanta),
        linear_work(512, 4096, 4096),
    ]
    times = [predicted_times(work, known) for work in ordered]
    assert [one.forward_seconds for one in times] == sorted(one.forward_seconds for one in times)
    assert [one.step_seconds for one in times] == sorted(one.step_seconds for one in times)
    assert predicted_times(circuit_work(lora, "fused"), known).step_seconds > times[0].step_seconds
