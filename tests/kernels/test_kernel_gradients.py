"""The gradients of the fused backend, over seeded random circuits: autograd's through the emitted module."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from compiled_circuits import compiled
from fused_circuits import assert_close, both_paths, executable_of, gradients, matrices_of, on_both, threads, vectors
from quick_seeds import every_second
from random_circuits import error

from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.engines.portable import engine as portable

SEEDS = range(160)
EXACT = 1e-11


@pytest.mark.parametrize("seed", every_second(SEEDS))
def test_gradients_are_those_of_the_emitted_module(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit)
    for tokens in (1, 8, 19, 40):
        x = vectors(circuit, tokens)
        assert_close(gradients(fused, x), gradients(plain, x), EXACT)


@pytest.mark.parametrize("seed", range(0, 160, 2))
def test_gradients_in_float32_are_as_close_as_the_emitted_module_s(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit, torch.float32)
    for tokens in (1, 19, 40):
        x = vectors(circuit, tokens, dtype=torch.float32)
        theirs, ours = gradients(plain, x), gradients(fused, x)
        exact = gradients(copy.deepcopy(plain).double(), x.double())
        # Of sums that nearly cancel no float32 is close: the emitted module's own error says how close it can be.
        close = 10 * max(error(gradient, exact[name]) for name, gradient in theirs.items()) + 1e-6
        # That of an angle is a sum over a block, which the two modules round in different places.
        assert_close(ours, {name: gradient.float() for name, gradient in exact.items()}, close, small=0.1)


@pytest.mark.parametrize("seed", range(0, 160, 5))
def test_only_what_is_wanted_is_computed_and_the_same(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit)
    x = vectors(circuit, 11)
    trained = [name for name, parameter in plain.named_parameters() if parameter.requires_grad]
    for module in (plain, fused):
        assert [name for name, p in module.named_parameters() if p.requires_grad] == trained
    # A rotation of one index has no angles to depend on.
    trained = [name for name in trained if plain.get_parameter(name).numel()]
    assert_close(gradients(fused, x, of_x=False), gradients(plain, x, of_x=False), EXACT)
    for place, of_x in itertools.product(range(len(trained) + 1), (False, True)):
        for module in (plain, fused):
            module.requires_grad_(False)
            for name in trained[place : place + 1]:
                module.get_parameter(name).requires_grad_()
        assert_close(gradients(fused, x, of_x=of_x), gradients(plain, x, of_x=of_x), EXACT)
        assert fused(x.requires_grad_(of_x)).requires_grad == (of_x or place < len(trained))


@pytest.mark.parametrize("seed", range(6))
def test_any_leading_shape_contiguous_or_not(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit)
    width, wide = circuit.spec.in_features, circuit.spec.out_features
    for x in (
        torch.randn(width, dtype=torch.float64),
        torch.randn(2, 3, width, dtype=torch.float64),
        torch.randn(0, 3, width, dtype=torch.float64),
        torch.randn(width, 9, dtype=torch.float64).T,
        torch.randn(5, 2 * width, dtype=torch.float64)[:, ::2],
    ):
        assert_close(gradients(fused, x), gradients(plain, x), EXACT)
        # The gradient of a sum is one number, expanded; that of a transposed result is not contiguous.
        for weights in (torch.ones(()).expand(*x.shape[:-1], wide), torch.randn(wide, *x.shape[:-1]).movedim(0, -1)):
            assert_close(gradients(fused, x, weights=weights), gradients(plain, x, weights=weights), EXACT)


@pytest.mark.parametrize("seed", range(0, 160, 2))
def test_the_portable_path_computes_what_the_kernel_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = compiled(seed)
    plain, _ = on_both(circuit)
    _, (kernel, plainly) = both_paths(executable_of(plain))
    x, matrices = vectors(circuit, 19), matrices_of(plain)
    grad = torch.randn(19, circuit.spec.out_features, dtype=torch.float64)
    everything = [True] * (1 + len(matrices))
    compare(kernel(grad, x, matrices, everything), plainly(grad, x, matrices, everything))
    for numbers in (1, 4 * 400 * len(circuit.spec.gates)):
        monkeypatch.setattr(portable, "_CHUNK_NUMBERS", numbers)
        compare(kernel(grad, x, matrices, everything), plainly(grad, x, matrices, everything))
    some = [place % 2 == seed % 2 for place in range(len(everything))]
    compare(kernel(grad, x, matrices, some), plainly(grad, x, matrices, some))
    only_x = [True] + [False] * len(matrices)
    compare(kernel(grad, None, matrices, only_x), plainly(grad, None, matrices, only_x))


def compare(ours: Any, theirs: Any) -> None:
    """Compare two results of backward: the input's gradient and the matrices', or None in the same places."""
    for mine, other in zip((ours[0], *ours[1]), (theirs[0], *theirs[1]), strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or error(mine, other) < EXACT


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(0, 160, 20))
def test_gradients_are_the_same_bits_in_every_run(seed: int, dtype: torch.dtype) -> None:
    _, fused = on_both(compiled(seed), dtype)
    executable_of(fused)
    # So many tiles that threads would not come to share them alike by chance.
    x = vectors(compiled(seed), 700, dtype=dtype)
    found = {}
    for number in (1, 3):
        with threads(number):
            found[number] = gradients(fused, x)
            for _ in range(4):
                again = gradients(fused, x)
                assert all(torch.equal(gradient, again[name]) for name, gradient in found[number].items())
    # Sums over tokens are added up in another order by another number of threads; the input's gradient is no such sum.
    assert torch.equal(found[1]["x"], found[3]["x"])
    if dtype == torch.float64:
        assert_close(found[1], found[3], EXACT)


@pytest.mark.parametrize("seed", range(0, 160, 10))
def test_a_token_s_gradient_does_not_depend_on_its_neighbours(seed: int) -> None:
    _, fused = on_both(compiled(seed), torch.float32)
    x = vectors(compiled(seed), 41, dtype=torch.float32)
    weights = torch.randn(41, compiled(seed).spec.out_features)
    expected = gradients(fused, x, weights=weights)["x"]
    for place in (0, 16, 40):
        spoilt = weights.clone()
        spoilt[place] = float("nan")
        others = [token for token in range(41) if token != place]
        assert torch.equal(gradients(fused, x, weights=spoilt)["x"][others], expected[others])


def test_gradients_of_a_parameter_that_several_gates_share_are_added() -> None:
    file = {
        "version": 1,
        "name": "shared",
        "layout": "5x5x5",
        "gates": [
            {"axes": [0], "name": "one"},
            {"axes": [1], "share": "one", "transpose": True},
            {"axes": [2], "share": "one"},
            {"axes": [2], "kind": "diagonal", "name": "two"},
            {"axes": [0], "share": "two"},
        ],
    }
    circuit = compile_circuit(file)
    plain, fused = on_both(circuit)
    x = vectors(circuit, 21)
    assert set(gradients(fused, x)) == {"x", "gates.one", "gates.two"}
    assert_close(gradients(fused, x), gradients(plain, x), EXACT)
