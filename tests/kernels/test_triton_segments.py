"""The backward pass in segments: gradients of gates summed over the tiles of a program, without storing every state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fused_circuits import assert_close, gradients, on_both, vectors
from interpreted_kernels import cut, interpreter, needs_triton  # noqa: F401 - a fixture
from random_circuits import error, file_of

from quanta_compiler.driver import compile_circuit
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels.engines.portable.engine import apply_table
from quanta_compiler.kernels.engines.triton import backward, forms
from quanta_compiler.kernels.engines.triton.backward import Pass, Sums, Vectors
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Launch, Number
from quanta_compiler.kernels.engines.triton.resources import POINTERS, argument_types, tilings
from quanta_compiler.kernels.engines.triton.tiles import Sizes
from quanta_compiler.kernels.executable import executable
from quanta_compiler.kernels.operator import apply_circuit
from quanta_compiler.kernels.precision import Matrices
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.spec import load_spec

pytestmark = [needs_triton, pytest.mark.usefixtures("interpreter")]

Difference = Callable[[torch.Tensor, Matrices, Matrices], torch.Tensor]

CIRCUITS = {
    "little beside them": (file_of("4x3x2", ["all_pairs"]), [(1, 3), (0, 1)]),
    "nothing beside it": (file_of("4x6", [[0, 1], [1]]), [(0, 2)]),
    "pairs": (file_of("5x4x4x5", ["all_pairs"]), [(4, 6), (2, 4), (0, 2)]),
    "a diagonal": (file_of("8x4x4x4", [[0, 1], {"axes": [0], "kind": "diagonal"}, [2, 3]]), [(1, 3), (0, 1)]),
    "frozen and blocks": (
        file_of("4x5x4x4", [{"axes": [0, 1], "frozen": True}, [1, 2], {"axes": [3], "per": [0]}, [1, 3]]),
        [(2, 4), (0, 2)],
    ),
    "rectangular": (file_of("4x4x4x5", [[0, 1], {"axes": [1, 2], "to": [3, 2]}, [0, 2]]), [(1, 3), (0, 1)]),
}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    """Hold that tensors have the dtypes for which resources are read; return what is launched."""
    seen: list[Kernel] = []
    launch = Kernels.launch

    def noted(self: Kernels, what: Launch, number: Number, *rest: Any) -> None:
        tensors = rest[-1]
        names = self.function(what.kernel).arg_names[: len(tensors)]
        types = dict(argument_types(what.kernel, len(self.table.entries), names, number))
        assert [POINTERS[tensor.dtype] for tensor in tensors] == [types[name] for name in names]
        seen.append(what.kernel)
        launch(self, what, number, *rest)

    monkeypatch.setattr(Kernels, "launch", noted)
    return seen


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int]]]:
    """Let segments be taken wherever they can sum; return those of every pass."""
    seen: list[list[tuple[int, int]]] = []
    plain = Pass._segments

    def noted(self: Pass, vectors: Vectors) -> Sums:
        seen.append([(one.kernel.first, one.kernel.last) for one in self.kernels.segments])
        return plain(self, vectors)

    monkeypatch.setattr(Pass, "_segments", noted)
    monkeypatch.setattr(forms, "moved_in_segments", lambda *_, **__: 0)
    return seen


@pytest.mark.parametrize("single", [False, True], ids=["pairs of entries", "single entries"])
@pytest.mark.parametrize("name", CIRCUITS)
def test_gradients_are_those_of_torch(
    name: str, single: bool, segments: list[list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, expected_segments = CIRCUITS[name]
    if single:
        cut(monkeypatch, 1)
        expected_segments = [(n, n + 1) for n in reversed(range(expected_segments[0][1]))]
    circuit = compile_circuit(file)
    exact, fused = on_both(circuit)
    fused = fused.float()
    x = vectors(circuit, 37)
    found, expected = gradients(fused, x.float()), gradients(exact, x)
    assert_close(found, {name: gradient.float() for name, gradient in expected.items()}, 2e-6)
    assert segments == [expected_segments]
    again = gradients(fused, x.float())
    assert all(torch.equal(gradient, again[name]) for name, gradient in found.items()), "two runs give the same bits"


def test_what_nobody_wants_is_left_out(segments: list[list[tuple[int, int]]]) -> None:
    circuit = compile_circuit(CIRCUITS["pairs"][0])
    exact, fused = on_both(circuit)
    x = vectors(circuit, 9)
    for module in (exact, fused := fused.float()):
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.endswith("g3"))
    found, expected = gradients(fused, x.float(), of_x=False), gradients(exact, x, of_x=False)
    assert_close(found, {name: gradient.float() for name, gradient in expected.items()}, 2e-6)
    assert segments == [[(4, 6), (3, 4)]], "neither is the input's gradient, nor anything in front of the gate"


@pytest.mark.parametrize("stored", [False, True])
def test_a_difference_is_rounded_once(
    stored: bool, launched: list[Kernel], segments: list[list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 either side would be rounded by more than their difference is."""
    if stored:
        monkeypatch.setattr(backward, "is_cheaper_in_segments", lambda *_, **__: False)
    circuit = compile_circuit(CIRCUITS["pairs"][0])
    text = str(circuit.module().circuit)
    table, numbers = executable(text).table, executable(text).numbers
    own = [torch.randn(count, generator=torch.Generator().manual_seed(1)) / 4 for count in numbers]
    minus = [one + 1e-3 * torch.randn(one.shape, generator=torch.Generator().manual_seed(2)) for one in own]
    x = vectors(circuit, 9, dtype=torch.bfloat16)
    weights = vectors(circuit, 9, dtype=torch.bfloat16, seed=3)

    def run(dtype: torch.dtype, gates: torch.dtype, apply: Difference) -> list[torch.Tensor]:
        given = x.to(dtype).requires_grad_()
        trained = [one.to(gates).requires_grad_() for one in own]
        y = apply(given, trained, [one.to(gates) for one in minus])
        return [y, *torch.autograd.grad(y, [given, *trained], weights.to(dtype))]

    def plainly(x: torch.Tensor, own: Matrices, minus: Matrices) -> torch.Tensor:
        return apply_table(table, x, own) - apply_table(table, x, minus)

    found = run(torch.bfloat16, torch.float32, lambda x, own, minus: apply_circuit(text, x, [*own, *minus]))
    exact = run(torch.float64, torch.float64, plainly)
    assert len(segments) == (not stored)
    assert {kernel.title for kernel in launched} == {"forward", "states", "flow", *(() if stored else ("segment",))}
    assert max(error(one, other) for one, other in zip(found, exact, strict=True)) < 5e-3


@pytest.mark.parametrize(
    ("blocks", "tokens", "rest", "parts"),
    [(1, 4095, 32, 32), (1, 4096, 32, 64), (3, 4095, 8, 8), (1, 1023, 1, 1), (1, 8, 32, 8), (1, 1, 1, 1)],
)
def test_an_odd_number_of_tokens_has_products_in_parts_too(
    blocks: int, tokens: int, rest: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain = torch.bmm

    def noted(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        seen.append(len(left))
        return plain(left, right)

    monkeypatch.setattr(torch, "bmm", noted)
    generator = torch.Generator().manual_seed(1)
    gradient, state = (torch.randn(blocks, tokens, rest, side, generator=generator) for side in (4, 6))
    found = backward._product(gradient, state)
    assert error(found, torch.einsum("btrm,btrn->bmn", gradient.double(), state.double())) < 1e-5
    assert seen == [blocks * parts]


@pytest.mark.parametrize(("layout", "fewest"), [("4x3x2", 8), ("8x8x4", 4), ("16x8x8x4", 1), ("4x4", 16)])
def test_gates_with_little_beside_them_have_more_tokens(layout: str, fewest: int) -> None:
    """A product of matrix units has 16 terms: tokens times what is beside the gate."""
    table = lower_table(build_circuit(load_spec(file_of(layout, ["all_pairs"]))))
    count = len(table.entries)
    found = tilings(table, Kernel("segment", 0, count, tuple(range(count))))
    assert min(tiling.tokens for tiling in found) >= fewest
    least = min(Sizes(table.sizes).padded(entry.legs.rest) for entry in table.entries)
    assert fewest == max(1, 16 // least)
