"""Kernels compiled for GPUs that are not there: what they take of a GPU, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from interpreted_kernels import needs_triton
from random_circuits import file_of

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels.engines.triton import plans
from quanta_compiler.kernels.engines.triton.architectures import TENSOR_COLUMNS
from quanta_compiler.kernels.engines.triton.forms import SEGMENT, is_cheaper_in_segments
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Launch, Number, Tiling
from quanta_compiler.kernels.engines.triton.plans import Refusal, fitting, planned, segments
from quanta_compiler.kernels.engines.triton.resources import Resources, resources
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.spec import load_spec

pytestmark = needs_triton
LAYOUTS = ("16x8x8x4", "16x16x16", "8x8x8x8", "16x16x4x4", "16x8x8x5", "16x8x8x8", "8x8x4x4x4")
"""Those of docs/benchmarks.md."""
ARCHS = (80, 86, 90)
QUICK = [(layout, 90) for layout in LAYOUTS if layout not in ("16x16x4x4", "16x8x8x8")] + [("16x8x8x4", 80)]
REFUSED = {
    ("16x16x16", 80): "it spills",
    ("16x16x16", 86): "a gate takes 128 KiB, shared memory has 99 KiB",
    ("16x16x4x4", 86): "a gate takes 128 KiB, shared memory has 99 KiB",
}
"""What runs as torch does, and why."""
REFUSED_BACKWARD = {**REFUSED, ("16x16x4x4", 80): "it spills"}
"""Backward of which does: the gradient of a gate of 256 x 256 is handed on by a transposed product."""
REFUSED_SEGMENTS = {
    **{(layout, arch): "it spills" for layout in ("16x8x8x4", "16x8x8x5", "16x8x8x8") for arch in (80, 86)},
    **{(layout, arch): "it spills" for layout in ("16x16x16", "16x16x4x4") for arch in (80, 90)},
    **{(layout, 86): REFUSED[layout, 86] for layout in ("16x16x16", "16x16x4x4")},
}
"""Whose states and gradients are stored."""
SHARED = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}
BFLOAT16 = Number(torch.bfloat16, torch.bfloat16, "tf32")


@pytest.fixture(autouse=True)
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile anew, whatever has been compiled before."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def kernels_of(layout: str, gates: Sequence[Any] = ("all_pairs",)) -> Kernels:
    return Kernels(lower_table(build_circuit(load_spec(file_of(layout, list(gates))))))


def grid(quick: Sequence[tuple[str, int]], archs: Sequence[int] = ARCHS) -> list[Any]:
    """Return all layouts and architectures; those that are not `quick` are marked as slow."""
    cases = [(layout, arch) for layout in LAYOUTS for arch in archs]
    return [pytest.param(*case, marks=[pytest.mark.slow] * (case not in quick)) for case in cases]


def needs(kernels: Kernels, launch: Launch, number: Number, arch: int) -> Resources:
    found = resources(kernels, launch.kernel, launch.tiling, number, arch)
    assert isinstance(found, Resources), found
    return found


@pytest.mark.parametrize(("layout", "arch"), grid(QUICK))
def test_forward_is_one_kernel_that_fits(layout: str, arch: int) -> None:
    kernels = kernels_of(layout)
    whole = Kernel("forward", 0, len(kernels.table.entries))
    fit = fitting(kernels, BFLOAT16, arch)
    found = planned(whole, fit)
    refused = REFUSED.get((layout, arch))
    if refused is not None:
        assert isinstance(found, Refusal), found
        assert found.reason.startswith(refused)
        return
    assert not isinstance(found, Refusal), found.reason
    (launch,) = found
    assert launch.kernel == whole
    taken = needs(kernels, launch, BFLOAT16, arch)
    assert taken.spilled == 0
    assert taken.shared <= SHARED[arch]
    assert taken.matrix_instructions >= len(kernels.table.entries)


@pytest.mark.parametrize(("layout", "arch"), grid([("16x8x8x4", 90), ("8x8x8x8", 90)]))
def test_stored_backward_spills_nothing(layout: str, arch: int) -> None:
    kernels = kernels_of(layout)
    every = tuple(range(len(kernels.table.entries)))
    fit = fitting(kernels, BFLOAT16, arch)
    states = planned(Kernel("forward", 0, len(every), every, result=False), fit)
    flow = planned(Kernel("flow", 0, len(every), every), fit)
    refused = REFUSED_BACKWARD.get((layout, arch))
    if refused is not None:
        assert any(isinstance(plan, Refusal) and plan.reason.startswith(refused) for plan in (states, flow))
        return
    for plan in (states, flow):
        assert not isinstance(plan, Refusal), plan.reason
        assert sum(launch.kernel.last - launch.kernel.first for launch in plan) == len(every)
        for launch in plan:
            taken = needs(kernels, launch, BFLOAT16, arch)
            assert taken.spilled == 0
            # The last gate's state is stored before the gate, which is not applied.
            assert taken.matrix_instructions or launch.kernel.last - launch.kernel.first == 1


@pytest.mark.parametrize(("layout", "arch"), grid([("16x8x8x4", 90)]))
def test_backward_in_segments_spills_nothing(layout: str, arch: int) -> None:
    kernels = kernels_of(layout)
    every = tuple(range(len(kernels.table.entries)))
    assert is_cheaper_in_segments(kernels.table, every, minus=False)
    found = segments(Kernel("segment", 0, len(every), every), fitting(kernels, BFLOAT16, arch))
    refused = REFUSED_SEGMENTS.get((layout, arch))
    if refused is not None:
        assert isinstance(found, Refusal), found
        assert found.reason.startswith(refused)
        return
    assert not isinstance(found, Refusal), found.reason
    numbers = [number for launch in found for number in launch.kernel.keep]
    assert sorted(numbers) == list(every)
    for launch in found:
        assert 1 <= len(launch.kernel.keep) <= SEGMENT
        taken = needs(kernels, launch, BFLOAT16, arch)
        assert taken.spilled == 0
        assert taken.shared <= SHARED[arch]
        # At least its gradient, and the one handed on.
        assert taken.matrix_instructions >= 2 * len(launch.kernel.keep)


@pytest.mark.parametrize(
    "number",
    [
        Number(torch.bfloat16, torch.float32, "tf32"),
        Number(torch.float16, torch.float16, "tf32"),
        Number(torch.float32, torch.float32, "tf32x3"),
    ],
    ids=lambda number: f"{number.vectors} {number.states}",
)
def test_every_dtype_compiles(number: Number) -> None:
    kernels = kernels_of("8x4x4", [[0, 1], {"axes": [2], "per": [0]}, {"axes": [1], "kind": "diagonal"}])
    kernel = Kernel("forward", 0, len(kernels.table.entries))
    taken = needs(kernels, Launch(kernel, Tiling(4, 4)), number, 80)
    assert taken.spilled == 0
    assert taken.matrix_instructions > 0


def test_more_tensor_memory_than_there_is_does_not_fit() -> None:
    """It compiles, to a trap."""
    kernels = kernels_of("16x8x8x4")
    kernel = Kernel("segment", 4, 6, (4, 5))
    taken = needs(kernels, Launch(kernel, Tiling(2, 8)), BFLOAT16, 100)
    assert taken.tensor_columns > TENSOR_COLUMNS
    assert not taken.fits(100)
    assert taken.matrix_instructions == 0
    found = fitting(kernels, BFLOAT16, 100)(kernel)
    assert isinstance(found, Tiling), found
    assert needs(kernels, Launch(kernel, found), BFLOAT16, 100).matrix_instructions > 0


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ([(255, 8, 0, 0), (255, 40, 0, 0)], "it spills 8 bytes a thread or more"),
        ([(9, 0, 300_000, 0), (255, 8, 0, 0)], "it takes 293 KiB or more, shared memory has 227 KiB"),
        ([(9, 0, 0, 576), (9, 0, 0, 704)], "it takes 576 columns or more, tensor memory has 512"),
    ],
)
def test_a_refusal_says_what_the_nearest_tiling_has_too_much_of(
    needs: list[tuple[int, int, int, int]], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = iter(needs)

    def made_up(*_: Any) -> Resources:
        registers, spilled, shared, columns = next(tried, needs[-1])
        return Resources(registers, spilled, shared, 1, columns)

    monkeypatch.setattr(plans, "resources", made_up)
    found = fitting(kernels_of("8x4"), BFLOAT16, 100)(Kernel("forward", 0, 1))
    assert found == Refusal(reason)


def test_an_architecture_that_triton_does_not_know_is_a_refusal() -> None:
    kernels = kernels_of("4x4")
    found = resources(kernels, Kernel("forward", 0, 1), Tiling(4, 4), BFLOAT16, 20)
    assert isinstance(found, str)
    assert "\n" not in found
