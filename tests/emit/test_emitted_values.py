"""What an emitted module computes, against two oracles that share no code with it."""

from __future__ import annotations

import math

import pytest
import torch
from compiled_circuits import compiled, plain_matrix, published_result, scaled_module
from random_circuits import error, file_of, random_file, scale_gates

from quanta_compiler.driver import compile_circuit
from quanta_compiler.oracle.reference import apply_gates, reference_operator

SEEDS = [*range(45), 65, 90]
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5}


def gradients(module: torch.nn.Module, result: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return the gradients of a fixed random weighting of `result`, zeros where nothing depends."""
    wanted = [*inputs, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
    if not result.requires_grad:
        return [torch.zeros_like(tensor) for tensor in wanted]
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.autograd.grad((result * weights.to(result)).sum(), wanted, allow_unused=True)
    return [torch.zeros_like(a) if b is None else b for a, b in zip(wanted, found, strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_is_the_plain_oracle(seed: int) -> None:
    module = scaled_module(compiled(seed))
    assert error(reference_operator(module), plain_matrix(random_file(seed), module)) < 1e-11


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_module_is_the_oracle_in_both_modes(seed: int, dtype: torch.dtype) -> None:
    module = scaled_module(compiled(seed), dtype)
    matrix = plain_matrix(random_file(seed), module)
    x = torch.randn(7, matrix.shape[1], dtype=dtype)
    assert error(module(x), x.double() @ matrix.T) < CLOSE[dtype]
    assert error(module.operator(), matrix) < CLOSE[dtype]  # type: ignore[operator]
    eye = torch.eye(matrix.shape[1], dtype=dtype)
    assert error(module(eye).T, matrix) < CLOSE[dtype]


@pytest.mark.parametrize("seed", SEEDS)
def test_published_einsum_and_gradients_are_those_of_the_module(seed: int) -> None:
    circuit = compiled(seed)
    module = scaled_module(circuit)
    matrix = plain_matrix(random_file(seed), module)
    x = torch.randn(3, matrix.shape[1], dtype=torch.float64, requires_grad=True)
    published, applied = published_result(circuit, module, x), module(x)
    assert error(published, x.detach() @ matrix.T) < 1e-10
    for mine, theirs in zip(gradients(module, applied, x), gradients(module, published, x), strict=True):
        assert error(mine, theirs, 1e-3) < 1e-9
    published, built = published_result(circuit, module, None), module.operator()  # type: ignore[operator]
    assert error(published, matrix) < 1e-10
    for mine, theirs in zip(gradients(module, built), gradients(module, published), strict=True):
        assert error(mine, theirs, 1e-3) < 1e-9


@pytest.mark.parametrize("lead", [(), (1,), (0,), (3,), (2, 0, 4), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("seed", range(10))
def test_any_leading_shape_contiguous_or_not(seed: int, lead: tuple[int, ...]) -> None:
    module = scaled_module(compiled(seed))
    matrix = reference_operator(module)
    width = matrix.shape[1]
    for x in (
        torch.randn(*lead, width, dtype=torch.float64),
        torch.randn(width, *lead, dtype=torch.float64).movedim(0, -1),
        torch.randn(*lead, 2 * width, dtype=torch.float64)[..., ::2],
        torch.randn(width, dtype=torch.float64).expand(*lead, width),
    ):
        result = module(x)
        assert result.shape == (*lead, matrix.shape[0])
        assert error(result, x @ matrix.T) < 1e-10


@pytest.mark.parametrize("seed", range(12))
def test_module_is_linear(seed: int) -> None:
    module = scaled_module(compiled(seed))
    x, y = torch.randn(2, 5, compiled(seed).spec.in_features, dtype=torch.float64)
    assert error(module(2 * x - 3 * y), 2 * module(x) - 3 * module(y)) < 1e-12
    assert float(module(torch.zeros_like(x)).detach().norm()) == 0


def test_wrong_width_is_refused() -> None:
    module = compile_circuit(file_of("2x3", [[0, 1]])).module()
    with pytest.raises(ValueError, match="expected"):
        module(torch.zeros(4, 5))


EDGES = {
    "one number": file_of(1, [[0]]),
    "units only": file_of("1x1x1", [[0], [1, 2], {"axes": [0], "kind": "diagonal"}]),
    "untouched unit axis": file_of("1x4", [[1]]),
    "untouched axis": file_of("3x4x2", [[1]]),
    "unit created and removed": file_of("4", [{"axes": [0], "to": {0: 4, "u": 1}}, {"axes": ["u"], "to": {}}]),
    "one gate turned": file_of("3x4", [[0, 1]], output=[1, 0]),
    "everything removed": file_of("3x4", [{"axes": [0], "to": {}}, {"axes": [1], "to": {}}]),
    "made from nothing": file_of(1, [{"axes": [0], "to": {"a": 5}}]),
    "free reshape": file_of(12, [{"axes": [0], "kind": "slice", "to": {"a": 3, "b": 4}}], output=["b", "a"]),
    "slice first": file_of("4x3", [{"axes": [1, 0], "kind": "slice", "to": {"a": 5}}, {"axes": ["a"], "name": "m"}]),
    "slice in the middle": file_of("4x3", [[0, 1], {"axes": [0], "kind": "slice", "to": [2]}, [0, 1]]),
    "slice last": file_of("4x3", [[0, 1], {"axes": [0], "kind": "slice", "to": [6]}]),
    "only slices": file_of(
        "4x3", [{"axes": [0], "kind": "slice", "to": [2]}, {"axes": [0], "kind": "slice", "to": [4]}]
    ),
    "diagonal only": file_of("4x3", [{"axes": [0], "kind": "diagonal"}, {"axes": [1, 0], "kind": "diagonal"}]),
    "constant only": file_of(2, [{"axes": [0], "kind": "constant", "value": [[1, 2], [3, 4]]}]),
    "zero constant": file_of("2x3", [[0, 1], {"axes": [0], "kind": "constant", "value": [[0, 0], [0, 0]]}]),
    "rank one": file_of("4x4", [{"axes": [0, 1], "kind": "lowrank", "rank": 1}]),
    "rank above full": file_of("2x3", [{"axes": [0], "kind": "lowrank", "rank": 5}]),
    "per all": file_of("4x3x2", [{"axes": [0], "per": "rest"}, {"axes": [2], "per": [1, 0]}]),
    "shared transpose of a share": file_of(
        "2x3x6",
        [
            {"axes": [0, 1], "to": {"z": 5}, "name": "m"},
            {"axes": ["z"], "share": "m", "transpose": True, "to": {"p": 3, "q": 2}, "name": "t"},
            {"axes": [2], "share": "t", "transpose": True, "to": [5], "name": "back"},
        ],
    ),
    "truncated to one": file_of("4x4", [[0, 1]], in_features=1, out_features=1),
    "padded far": file_of("2x2", [[0, 1]], in_features=40, out_features=50),
    "name again": file_of(
        {"a": 2, "b": 3}, [{"axes": ["a"], "to": {}}, {"axes": ["b"], "to": {"b": 2, "a": 4}}, ["a", "b"]]
    ),
    "gates called input and eye": file_of(
        "2x3x2", [{"axes": [0], "name": "input"}, {"axes": [1], "name": "eye"}, {"axes": [0], "name": "x"}]
    ),
}


@pytest.mark.parametrize("tokens", [1, 64])
@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str, tokens: int) -> None:
    circuit = compile_circuit(EDGES[name], tokens=tokens)
    module = scaled_module(circuit)
    matrix = plain_matrix(EDGES[name], module)
    x = torch.randn(tokens, matrix.shape[1], dtype=torch.float64)
    for result in (module(x), published_result(circuit, module, x)):
        assert error(result, x @ matrix.T) < 1e-12
    for result in (module.operator(), published_result(circuit, module, None)):  # type: ignore[operator]
        assert error(result, matrix) < 1e-12


LARGE = {
    "twelve axes of size 2": file_of([2] * 12, ["brick", "ring"]),
    "200 gates on twelve axes": file_of(
        [2] * 12,
        [
            {"pattern": "each", "repeat": 4},
            {"pattern": "brick", "repeat": 13},
            {"pattern": "each", "axes": [0, 1, 2, 3, 4, 5, 6, 7, 8]},
        ],
    ),
    "all pairs on seven axes": file_of([2, 2, 3, 2, 2, 2, 2], ["all_pairs"], plan={"tokens": 7}),
    "200 gates on seven axes": file_of([2] * 7, [{"pattern": "brick", "repeat": 33}, [0, 1], [3]]),
    "all pairs on 16x8x8x4": file_of("16x8x8x4", ["all_pairs"]),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_circuits_against_the_oracle(name: str) -> None:
    circuit = compile_circuit({**LARGE[name], "init": "orthogonal"})
    module = circuit.module(dtype=torch.float64, seed=3)
    tensors = {key.removeprefix("gates."): value for key, value in module.state_dict().items()}
    x = torch.randn(4, circuit.spec.in_features, dtype=torch.float64)
    expected = apply_gates(circuit.circuit, tensors, x)
    # Orthogonal gates keep the norm.
    assert math.isclose(float(expected.norm()), float(x.norm()), rel_tol=1e-5)
    assert error(module(x), expected) < 1e-12
    if circuit.spec.in_features < 1000:
        assert error(x @ module.operator().T, expected) < 1e-12  # type: ignore[operator]
    assert error(module.float()(x.float()), expected) < 1e-5


def test_default_gates_shrink_so_tests_must_scale() -> None:
    circuit = compile_circuit(file_of([2] * 4, [{"pattern": "brick", "repeat": 70}]))
    module = circuit.module()
    x = torch.randn(5, 16)
    assert float(module(x).detach().norm()) < 1e-30
    assert float(scale_gates(module)(x).detach().norm()) > 1e-10
    assert math.isclose(circuit.report.init_gain, 3 ** (-210 / 2), rel_tol=1e-9)
