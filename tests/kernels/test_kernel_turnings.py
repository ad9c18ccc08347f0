"""Few columns of `pauli` matrices by the kernel: those of torch, with all gradients, and torch where it must be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_circuits import scaled_module
from fused_circuits import executable_of, on_both, vectors
from random_circuits import error, file_of
from torch.autograd import gradcheck, gradgradcheck

from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.engines.cpu.turnings import TurningTable
from quanta_compiler.kernels.matrices import turned
from quanta_compiler.kernels.modules import stored_in
from quanta_compiler.kinds.two_design import pauli_angles
from quanta_compiler.lowering.turnings import PAIRS, SIGN, TURN, turned_numbers, turnings


def circuit(size: int, rank: int, layers: int = 1, **options: Any) -> dict[str, Any]:
    """Return V^T, then U: the first rows of one orthogonal matrix, and the first columns of another."""
    rotation = {"axes": [0], "kind": "pauli", "layers": layers, **options}
    return file_of(str(size), [{**rotation, "to": [rank]}, {**rotation, "to": [size]}])


CIRCUITS = {
    "a power of two": circuit(16, 3),
    "two halves": circuit(12, 2, layers=2),
    "three parts": circuit(13, 5),
    "few angles": circuit(13, 4, layers=2, rank_parameters=2),
    "a tiny one": circuit(3, 1),
    "a vector": circuit(8, 1),
    "per": file_of("3x12", [{"axes": [1], "to": [2], "per": [0], "kind": "pauli"}]),
    "turned": file_of(
        "12",
        [
            {"axes": [0], "to": [4], "kind": "pauli", "name": "m"},
            {"axes": [0], "share": "m", "transpose": True, "to": [12]},
        ],
    ),
}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that every call of the kernel's table will be added to."""
    calls: list[str] = []
    for name in ("forward", "backward"):
        method = getattr(TurningTable, name)

        def noted(self: Any, *args: Any, name: str = name, method: Any = method) -> torch.Tensor:
            calls.append(name)
            found: torch.Tensor = method(self, *args)
            return found

        monkeypatch.setattr(TurningTable, name, noted)
    return calls


def made(module: Any, seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the matrices of a module, and the gradients of its parameters from random ones of the matrices."""
    matrices = executable_of(module).matrices(stored_in(module), next(module.parameters()))
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(matrix.shape, generator=generator, dtype=matrix.dtype) for matrix in matrices]
    return matrices, list(torch.autograd.grad(matrices, list(module.parameters()), grads))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CIRCUITS)
def test_matrices_and_gradients_are_those_of_torch(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    compiled = compile_circuit(CIRCUITS[name])
    module = scaled_module(compiled, dtype)
    found = made(module)
    assert set(calls) == {"forward", "backward"}
    monkeypatch.setattr(turned, "is_left_to_kernel", lambda *_: False)
    before = len(calls)
    expected = made(module)
    assert len(calls) == before
    for ours, theirs in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert error(ours, theirs) < 50 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ["three parts", "per", "turned"])
def test_the_gradient_is_that_of_small_differences_and_has_one_itself(name: str) -> None:
    module = scaled_module(compile_circuit(CIRCUITS[name]))
    (make, *_) = executable_of(module)._rotations._wholes.values()  # type: ignore[union-attr]
    angles = next(iter(module.parameters())).detach().requires_grad_()
    assert gradcheck(make, angles)
    assert gradgradcheck(make, angles)


def test_a_fused_module_with_few_columns_is_the_emitted_one() -> None:
    for file in CIRCUITS.values():
        compiled = compile_circuit(file)
        plain, fused = on_both(compiled)
        x = vectors(compiled, 5)
        assert error(fused(x), plain(x)) < 1e-13


def test_jacobians_transforms_and_compilers_get_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    compiled = compile_circuit(CIRCUITS["two halves"])
    plain, fused = on_both(compiled)
    x = vectors(compiled, 2)
    state = {name: tensor.detach() for name, tensor in plain.state_dict().items()}

    def by(module: Any) -> Any:
        return torch.func.jacrev(lambda given: torch.func.functional_call(module, given, (x,)))(state)

    for ours, theirs in zip(by(fused).values(), by(plain).values(), strict=True):
        assert error(ours, theirs) < 1e-12
    assert not calls
    y, parameters = fused(x), list(fused.parameters())
    many = torch.autograd.grad(y, parameters, torch.ones(3, *y.shape, dtype=y.dtype), is_grads_batched=True)
    once = torch.autograd.grad(fused(x), parameters, torch.ones_like(y))
    for ours, theirs in zip(many, once, strict=True):
        assert error(ours[1], theirs) < 1e-12


def test_the_sequence_has_all_angles_once() -> None:
    for size, layers, kept in ((1, 1, None), (8, 2, None), (13, 1, 2), (768, 1, None)):
        widths = {TURN: 1, SIGN: 0}
        angles = [
            one.angle + i for one in turnings(size, layers, kept) for i in range(widths.get(one.kind, one.numbers))
        ]
        assert angles == list(range(pauli_angles(size, layers, kept)))
    pairs = [one for one in turnings(13, 1, None) if one.kind == PAIRS]
    assert [(one.place, one.other, one.numbers) for one in pairs] == [(8, 12, 1), (0, 8, 5), (8, 12, 1)]
    assert turned_numbers(4, 1, None, columns=3) == 3 * 4 * (2 + 1 + 2)
