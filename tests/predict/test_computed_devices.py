"""Devices of data sheets: a roofline reckoned by hand, one rule for everybody, and what is said of the times."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from commands import quanta
from made_up_calibration import calibration
from random_circuits import file_of

from quanta_compiler.bench.calibrate import _with_calls
from quanta_compiler.bench.operations import GPU_EFFORT, Key
from quanta_compiler.bench.small_modules import FORWARD, RECORDED, STEP, call_work, roofline_fit
from quanta_compiler.compare import compare
from quanta_compiler.compare.method_costs import linear_work
from quanta_compiler.driver import compile_circuit
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.pages.fragments import comparison_fragment
from quanta_compiler.pages.page import comparison_page
from quanta_compiler.predict.circuits import circuit_work
from quanta_compiler.predict.engines import MODELS, EngineRates
from quanta_compiler.predict.engines.triton import counts
from quanta_compiler.predict.sheets import SHEETS, computed_calibration
from quanta_compiler.predict.times import Times, predicted_times, seconds_of
from quanta_compiler.predict.work import Pass, Product, Work

TOKENS = 4096


def circuit(layout: str, gates: Any = "all_pairs", tokens: int = TOKENS, **keys: Any) -> Any:
    return compile_circuit(file_of(layout, [gates], **keys), tokens=tokens)


def times(layout: str, device: str, backend: str) -> Times:
    return predicted_times(circuit_work(circuit(layout), backend), computed_calibration(device))


@pytest.mark.parametrize(
    ("device", "layout", "one_kernel", "plain", "plain_backward"),
    [
        ("h100", "16x8x8x4", 22, 246, 380),
        ("h100", "16x16x16", 32, 134, None),
        ("h100", "8x8x4x4x4", 22, 403, 626),
        ("a100", "16x8x8x4", 48, 389, 600),
    ],
)
def test_the_roofline_on_paper(
    device: str, layout: str, one_kernel: int, plain: int, plain_backward: int | None
) -> None:
    """Microseconds reckoned by hand from passes over the activations and FLOPs; here the matrices are read as well."""
    assert 1e6 * times(layout, device, "fused").forward_seconds == pytest.approx(one_kernel, abs=0.5)
    found = times(layout, device, "torch")
    assert 1e6 * found.forward_seconds == pytest.approx(plain, rel=0.02)
    if plain_backward is not None:
        assert 1e6 * (found.step_seconds - found.forward_seconds) == pytest.approx(plain_backward, rel=0.02)


def test_the_stored_backward_moves_four_activations_a_gate_and_three() -> None:
    found = times("16x8x8x4", "h100", "fused")
    activation = 2 * TOKENS * 4096 / SHEETS["h100"].bytes_per_second
    assert found.step_seconds - found.forward_seconds == pytest.approx((4 * 6 + 3) * activation, rel=0.01)


@pytest.mark.parametrize(("device", "microseconds"), [("h100", 172), ("a100", 441)])
def test_a_frozen_layer_takes_its_flops(device: str, microseconds: int) -> None:
    work = linear_work(TOKENS, 4096, 4096)
    assert 1e6 * predicted_times(work, computed_calibration(device)).forward_seconds == pytest.approx(
        microseconds, rel=0.005
    )


def test_operations_take_their_flops_or_their_bytes_or_a_launch() -> None:
    known, sheet = computed_calibration("h100"), SHEETS["h100"]
    large = Product(8192, 8192, 8192)
    assert seconds_of(large, known) == pytest.approx(large.flops / sheet.flops_per_second)
    thin = Product(8192, 8192, 1)
    assert seconds_of(thin, known) == pytest.approx(2 * (8192**2 + 2 * 8192) / sheet.bytes_per_second)
    # Work counts four bytes for a number, of which bfloat16 has two.
    assert seconds_of(Pass(4 * 10**9), known) == pytest.approx(2e9 / sheet.bytes_per_second)
    assert predicted_times(Work((Pass(8),), ()), known).forward_seconds == sheet.launch_seconds


def test_kernels_are_counted() -> None:
    table = lower_table(circuit("4x3x2", tokens=10).circuit)
    ((launches, moved, multiplied),) = counts(table, 10, False)
    assert (launches, moved) == (1, 10 * 48 + 8 * 8 + 6 * 6 + 12 * 12)
    # 4 x 3 x 2 in registers is 4 x 4 x 2, and an inner dimension of 8 is widened to 16.
    assert multiplied == 10 * 2 * 32 * (16 + 16 + 16)
    again, flow, *products = counts(table, 10, True)
    assert len(products) == 3
    assert again[1] == 10 * 24 * (1 + 3) + moved - 10 * 48
    assert flow[1] == 10 * 24 * (2 + 3) + moved - 10 * 48
    assert again[2] < flow[2] == multiplied
    frozen = lower_table(circuit("4x3x2", {"axes": [0, 1], "frozen": True}, 10).circuit)
    assert len(counts(frozen, 10, True)) == 1


def test_a_kernel_takes_the_longest_of_what_is_counted() -> None:
    rates = EngineRates("triton", (3.0, 1.0, 0.5))
    assert rates.time([(1, 1, 1), (1, 5, 4), (1, 1, 20)]) == 3 + 5 + 10
    assert EngineRates("cpu", (1.0,) * len(MODELS["cpu"].features)).time([(1.0,) * 14]) == 14


def test_a_fit_finds_the_rates_of_a_roofline() -> None:
    rates = (3.0, 0.5, 0.01)
    generator = torch.Generator().manual_seed(0)
    calls = []
    for _ in range(40):
        draws = (10 ** (4 * torch.rand(2, 2, generator=generator))).tolist()
        kernels = [(1.0, moved, 10 * multiplied) for moved, multiplied in draws]
        calls.append((kernels, EngineRates("triton", rates).time(kernels)))
    assert roofline_fit(calls) == pytest.approx(rates, rel=1e-3)


def test_a_gpu_calls_the_next_operation_while_it_works() -> None:
    work, made = call_work(), replace(calibration(), device="cuda", kernel=None)
    count = len(work.forward), len(work.backward)
    seconds: dict[Key, float] = {
        ("calls", (FORWARD,)): 1e-3,
        ("calls", (RECORDED,)): 1.5e-3,
        ("calls", (STEP,)): 3.5e-3,
    }
    found = _with_calls(made, seconds)
    launches = found.forward_launch, found.recording, found.backward_launch
    assert launches == pytest.approx((1e-3 / count[0], 0.5e-3 / count[0], 2e-3 / count[1]))
    quick, slow = Pass(2**10), Pass(2**26)
    assert seconds_of(quick, found) < found.forward_launch < seconds_of(slow, found)
    both = predicted_times(Work((quick, slow), ()), found)
    assert both.forward_seconds == found.forward_launch + seconds_of(slow, found)
    assert GPU_EFFORT.most_flops > 2**30


def test_the_faster_backend_is_taken_where_auto_measures() -> None:
    made = compare(baselines=["quanta:16-8-8-4", "lora:8"], in_features=4096, tokens=TOKENS, device="h100")
    assert {row.backend for row in made.rows} <= {"fused", "torch"}
    for name in ("fused", "torch"):
        other = compare(baselines=["lora:8"], in_features=4096, tokens=TOKENS, device="h100", backend=name)
        assert made.rows[0].step_seconds is not None
        assert other.rows[0].step_seconds is not None
        assert min(row.step_seconds or 0 for row in made.rows) <= other.rows[0].step_seconds


@pytest.mark.parametrize("device", SHEETS)
def test_every_output_says_that_nothing_was_measured(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    command = ("compare", "-b", "lora:8", "-b", "dense", "--in", "64", "--device", device)
    result = quanta(*command)
    assert result.exit_code == 0
    assert f"times computed and not measured ({SHEETS[device].name}, bfloat16)" in result.stdout
    assert "note: times are computed and not measured: a roofline of " in result.stderr
    data = json.loads(quanta(*command, "--json").stdout)
    assert (data["device"]["origin"], data["device"]["calibrated"]) == ("computed", False)
    assert SHEETS[device].source in data["device"]["remark"]
    assert "computed and not measured" in comparison_page(data)
    assert "times computed and not measured" in comparison_fragment(data)


def test_devices_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for options, words in (
        (("--device", "b200"), "'b200' is no device: "),
        (("--device", "h100", "--threads", "2"), "'h100' is known from its data sheet, which has no threads"),
    ):
        result = quanta("compare", "-b", "lora:8", "--in", "8", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in " ".join(result.stderr.split())
