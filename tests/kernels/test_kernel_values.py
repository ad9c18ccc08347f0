"""What the fused backend computes, over seeded random circuits: the oracle's numbers for any number of tokens."""

from __future__ import annotations

import copy

import pytest
import torch
from compiled_circuits import compiled, plain_matrix
from fused_circuits import TOKENS, both_paths, executable_of, gradients, matrices_of, on_both, threads, vectors
from quick_seeds import every_second
from random_circuits import error, random_file

from quanta_compiler.kernels.engines.portable import engine as portable
from quanta_compiler.oracle.reference import reference_operator

SEEDS = range(160)
EXACT = 1e-11


@pytest.mark.parametrize("seed", every_second(SEEDS))
def test_the_result_is_the_oracle_s(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit)
    oracle = plain_matrix(random_file(seed), plain) if seed % 4 in (1, 2) else reference_operator(plain)
    for tokens in TOKENS:
        x = vectors(circuit, tokens)
        assert error(fused(x), x @ oracle.T) < EXACT, tokens


@pytest.mark.parametrize("seed", every_second(SEEDS))
def test_the_result_in_float32_is_as_close_as_the_emitted_module_s(seed: int) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit, torch.float32)
    exactly = copy.deepcopy(plain).double()
    for tokens in TOKENS:
        x = vectors(circuit, tokens, dtype=torch.float32)
        exact = exactly(x.double())
        # Of sums that nearly cancel no float32 is close: the emitted module's own error says how close it can be.
        assert error(fused(x), exact) < 10 * error(plain(x), exact) + 1e-6, tokens


@pytest.mark.parametrize("seed", every_second(SEEDS))
def test_the_portable_path_computes_what_the_kernel_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = compiled(seed)
    plain, _ = on_both(circuit)
    (kernel, plainly), _ = both_paths(executable_of(plain))
    x, matrices = vectors(circuit, 25), matrices_of(plain)
    expected = kernel(x, matrices)
    assert error(plainly(x, matrices), expected) < EXACT
    # A token at a time, and a few.
    for numbers in (1, 4 * 400 * len(circuit.spec.gates)):
        monkeypatch.setattr(portable, "_CHUNK_NUMBERS", numbers)
        assert error(plainly(x, matrices), expected) < EXACT
    for dtype in (torch.float32, torch.bfloat16):
        rounded = copy.deepcopy(plain).to(dtype)
        matrices = matrices_of(rounded, dtype)
        exact = rounded.double()(x.to(dtype).double())
        ours, theirs = kernel(x.to(dtype), matrices), plainly(x.to(dtype), matrices)
        assert ours.dtype == theirs.dtype == dtype
        assert error(ours, exact) < 3 * error(theirs, exact) + 1e-6


@pytest.mark.parametrize("lead", [(), (1,), (0,), (3,), (2, 0, 4), (2, 3), (2, 1, 9)], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_any_leading_shape_contiguous_or_not(seed: int, lead: tuple[int, ...]) -> None:
    circuit = compiled(seed)
    plain, fused = on_both(circuit)
    oracle, width = reference_operator(plain), circuit.spec.in_features
    for x in (
        torch.randn(*lead, width, dtype=torch.float64),
        torch.randn(width, *lead, dtype=torch.float64).movedim(0, -1),
        torch.randn(*lead, 2 * width, dtype=torch.float64)[..., ::2],
        torch.randn(*lead, width + 3, dtype=torch.float64)[..., 1 : width + 1],
        torch.randn(width, dtype=torch.float64).expand(*lead, width),
    ):
        result = fused(x)
        assert result.shape == (*lead, circuit.spec.out_features)
        assert result.is_contiguous()
        assert error(result, x @ oracle.T) < EXACT


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(20))
def test_vectors_and_gates_may_begin_anywhere_in_memory(seed: int, dtype: torch.dtype) -> None:
    """As do those of a flat parameter of FSDP, or of a slice: where no vector of the CPU's begins."""
    circuit = compiled(seed)
    _, fused = on_both(circuit, dtype)
    executable_of(fused)
    moved = {name: unaligned(parameter.detach()) for name, parameter in fused.named_parameters()}
    for tokens in (5, 32, 44):
        x = vectors(circuit, tokens, dtype=dtype)
        expected, there = gradients(fused, x), unaligned(x).requires_grad_()
        y = torch.func.functional_call(fused, moved, (there,))
        assert torch.equal(y, fused(x))
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
        y.backward(unaligned(weights))
        assert there.grad is not None
        assert torch.equal(there.grad, expected["x"])


def unaligned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy that begins one number after the beginning of its memory."""
    flat = torch.cat([tensor.new_zeros(1), tensor.reshape(-1)])
    return flat[1:].view(tensor.shape)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(0, 160, 5))
def test_the_number_of_threads_changes_no_bit_of_the_result(seed: int, dtype: torch.dtype) -> None:
    _, fused = on_both(compiled(seed), dtype)
    # What torch makes of angles may depend on its threads.
    (kernel, _), _ = both_paths(executable_of(fused))
    x, matrices = vectors(compiled(seed), 75, dtype=dtype), matrices_of(fused, dtype)
    with threads(1):
        expected = kernel(x, matrices)
    for number in (1, 2, 3, 7):
        with threads(number):
            assert torch.equal(kernel(x, matrices), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(0, 160, 5))
def test_a_token_s_result_does_not_depend_on_its_neighbours(seed: int, dtype: torch.dtype) -> None:
    _, fused = on_both(compiled(seed), dtype)
    x = vectors(compiled(seed), 41, dtype=dtype)
    expected = fused(x)
    for place in (0, 15, 16, 39, 40):
        spoilt = x.clone()
        spoilt[place] = float("nan")
        result = fused(spoilt)
        others = [token for token in range(41) if token != place]
        assert torch.equal(result[others], expected[others])


@pytest.mark.parametrize("seed", range(0, 160, 10))
def test_the_input_and_the_gates_are_left_as_they_are(seed: int) -> None:
    _, fused = on_both(compiled(seed))
    x = vectors(compiled(seed), 20)
    given, before = x.clone(), {key: tensor.clone() for key, tensor in fused.state_dict().items()}
    fused(x.requires_grad_()).sum().backward()
    assert torch.equal(x, given)
    assert all(torch.equal(tensor, before[key]) for key, tensor in fused.state_dict().items())


@pytest.mark.parametrize("seed", range(12))
def test_the_operator_is_the_emitted_one(seed: int) -> None:
    plain, fused = on_both(compiled(seed))
    assert torch.equal(fused.operator(), plain.operator())
    eye = torch.eye(compiled(seed).spec.in_features, dtype=torch.float64)
    assert error(fused(eye).T, plain.operator()) < EXACT
