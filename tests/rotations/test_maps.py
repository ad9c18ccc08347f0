"""The maps of `orthogonal`: their table, what series that are cut leave, all matrices, K', orders, and gains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from compiled_circuits import scaled_module
from plain_rotations import plain_orthogonal
from random_circuits import error, file_of

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.driver import compile_circuit
from quanta_compiler.kinds.angles import lie_numbers
from quanta_compiler.kinds.maps import CUT, MAPS
from quanta_compiler.kinds.orthogonal import Orthogonal
from quanta_compiler.oracle import reference
from quanta_compiler.spec import load_spec, to_dict

EVERY = pytest.mark.parametrize("name", MAPS)
SERIES = pytest.mark.parametrize("name", CUT)
EXACT = {"taylor": "exp", "neumann": "cayley"}


def gate_file(columns: int, rows: int | None = None, **keys: Any) -> dict[str, Any]:
    return file_of(columns, [{"axes": [0], "kind": "orthogonal", "to": [rows or columns], **keys}])


def operator(file: dict[str, Any], std: float = 0.3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    module: Any = compile_circuit(file).module(backend="torch", dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        made: torch.Tensor = module.operator()
    return made.double()


@EVERY
def test_all_maps_store_the_same_numbers(name: str) -> None:
    for rows, columns in ((9, 9), (9, 4), (4, 9), (1, 1)):
        size, smaller = max(rows, columns), min(rows, columns)
        (gate,) = load_spec(gate_file(columns, rows, map=name)).gates
        assert gate.numbers == size * smaller - smaller * (smaller + 1) // 2
        (few,) = load_spec(gate_file(columns, rows, map=name, rank_parameters=1)).gates
        assert few.numbers == size - 1


@EVERY
def test_a_map_has_its_function_and_its_matrix_in_the_reference(name: str) -> None:
    """A new map is a row of the table, a function, and its matrix once more where the oracle is."""
    module = scaled_module(compile_circuit(gate_file(5, 8, map=name)))
    numbers = module.get_parameter("gates.g0").detach().numpy()
    expected = torch.from_numpy(plain_orthogonal(8, 5, numbers, name)[:, :5])
    assert error(reference.reference_operator(module), expected) < 1e-12


@pytest.mark.parametrize("name", [name for name in MAPS if name not in CUT])
@pytest.mark.parametrize("shape", [(64, 64), (96, 20), (20, 96)], ids=str)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_wide_matrices_are_orthonormal_in_float32(name: str, shape: tuple[int, int], scale: float) -> None:
    rows, columns = shape
    matrix = operator(gate_file(columns, rows, map=name), scale, torch.float32)
    tall = matrix if rows >= columns else matrix.mT
    assert float((tall.mT @ tall - torch.eye(tall.shape[1])).abs().max()) < 1e-5


@SERIES
def test_a_series_comes_to_the_exact_map(name: str) -> None:
    errors = []
    for order in (2, 5, 8, 40):
        for rows, columns, kept in ((12, 12, 12), (12, 4, 4), (4, 12, 2)):
            keys = {"rank_parameters": kept}
            exact = operator(gate_file(columns, rows, map=EXACT[name], **keys), 0.1)
            errors.append(error(operator(gate_file(columns, rows, map=name, order=order, **keys), 0.1), exact))
    assert max(errors[-3:]) < 1e-12
    assert all(after < before / 3 for before, after in zip(errors, errors[3:], strict=False))


@pytest.mark.parametrize("order", [2, 3, 5, 6])
def test_how_far_a_cut_series_is_from_orthogonal(order: int) -> None:
    """|1 - (S/2)^(order+1)|^2 - 1 for the Cayley transform by a Neumann series; about x^6/360 for order 5 of exp."""
    numbers = 0.15 * np.random.default_rng(order).normal(size=lie_numbers(8, 8))
    below = np.zeros((8, 8))
    below.T[np.triu_indices(8, 1)] = numbers
    values = np.linalg.eigvals(below - below.T)
    x = float(np.abs(values).max())
    cut = plain_orthogonal(8, 8, numbers, "neumann", order)
    left = np.abs(np.abs(1 - (values / 2) ** (order + 1)) ** 2 - 1).max()
    assert np.linalg.norm(cut.T @ cut - np.eye(8), 2) == pytest.approx(left, rel=1e-9)
    cut = plain_orthogonal(8, 8, numbers, "taylor", order)
    terms = [values**power / math.factorial(power) for power in range(order + 1)]
    assert np.linalg.norm(cut.T @ cut - np.eye(8), 2) == pytest.approx(np.abs(np.abs(sum(terms)) ** 2 - 1).max())
    if order == 5:
        assert np.linalg.norm(cut.T @ cut - np.eye(8), 2) == pytest.approx(x**6 / 360, rel=0.2)


@pytest.mark.parametrize("columns", [6, 3])
def test_householder_and_givens_give_every_matrix_of_orthonormal_columns(columns: int) -> None:
    """Numbers are found by elimination, column by column: the planes' angles, and the vectors of the mirrors."""
    drawn = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(columns))
    wanted = torch.linalg.qr(drawn)[0]
    wanted[:, 0] *= torch.linalg.det(wanted).sign()
    angles, vectors = [], []
    left, mirrored = wanted.clone(), wanted.clone()
    for column in range(columns):
        for row in range(column + 1, 6):
            angle = torch.atan2(left[row, column], left[column, column])
            cosine, sine = torch.cos(angle), torch.sin(angle)
            one, other = left[column].clone(), left[row].clone()
            left[column], left[row] = cosine * one + sine * other, cosine * other - sine * one
            angles.append(2 * angle)
        # The mirror takes the column to minus the unit vector.
        vector = mirrored[:, column].clone()
        vector[:column], vector[column] = 0, vector[column] + 1
        vector /= vector[column].clone()
        vectors += list(vector[column + 1 :])
        mirrored = mirrored - torch.outer(vector, vector @ mirrored) * (2 / vector.dot(vector))
    for name, numbers in (("givens", angles), ("householder", vectors)):
        module: Any = compile_circuit(gate_file(columns, 6, map=name)).module(dtype=torch.float64, backend="torch")
        module.load_state_dict({"gates.g0": torch.stack(numbers)})
        assert error(module.operator(), wanted[:, :columns]) < 1e-12, name


@EVERY
def test_at_zero_every_number_moves_the_matrix_its_own_way(name: str) -> None:
    for rows, columns, kept in ((5, 5, 5), (6, 3, 3), (3, 6, 3), (6, 6, 2)):
        file = gate_file(columns, rows, map=name, rank_parameters=kept)
        module: Any = compile_circuit(file).module(dtype=torch.float64, backend="torch")
        parameter = module.get_parameter("gates.g0")
        entries = module.operator().flatten()
        gradients = [torch.autograd.grad(entry, parameter, retain_graph=True)[0] for entry in entries]
        assert torch.linalg.matrix_rank(torch.stack(gradients)) == parameter.numel()


@EVERY
def test_where_a_matrix_is_zero(name: str) -> None:
    for rows, columns in ((5, 5), (6, 4), (4, 6), (2, 2), (3, 1)):
        for kept in range(1, min(rows, columns) + 1):
            nonzero = operator(gate_file(columns, rows, map=name, rank_parameters=kept), 0.7).abs() > 1e-9
            ways = Orthogonal(name, kept).ways(rows, columns) or [list(range(rows))] * columns
            assert [column.nonzero().flatten().tolist() for column in nonzero.mT] == ways, (rows, columns, kept)


@SERIES
def test_the_gain_of_a_cut_series_is_that_of_what_is_drawn(name: str) -> None:
    for rows, columns, kept, std in ((64, 64, None, 0.1), (64, 64, 8, 0.15), (24, 64, None, 0.1), (64, 24, 4, 0.2)):
        keys = {"map": name, "init": {"scheme": "normal", "std": std * (2 if name == "taylor" else 1)}}
        file = gate_file(columns, rows, **keys, **({} if kept is None else {"rank_parameters": kept}))
        squares = []
        for seed in range(20):
            module: Any = compile_circuit(file).module(seed=seed, backend="torch")
            with torch.no_grad():
                squares.append(float(module.operator().square().sum()) / rows)
        found = compile_circuit(file).report.init_gain ** 2
        assert found == pytest.approx(sum(squares) / len(squares), rel=0.08)
        assert abs(found / (min(rows, columns) / rows) - 1) > 0.02
    exact = {key: value for key, value in keys.items() if key != "init"}
    assert compile_circuit(gate_file(64, 64, **exact)).report.init_gain == 1


def test_orders() -> None:
    spec = load_spec(file_of(8, [{"pattern": "each", "kind": "orthogonal", "map": "taylor"}]))
    assert spec.gates[0].matrix == Orthogonal("taylor", None, 5)
    assert to_dict(spec)["gates"][0]["order"] == 5
    assert spec.gates[0].matrix.in_words() == "orthogonal by taylor of order 5"
    assert "order" not in to_dict(load_spec(gate_file(8)))["gates"][0]
    with pytest.raises(SpecError, match="`order` of gate 'g0' is that of a series, and `map: givens` has none"):
        load_spec(gate_file(8, map="givens", order=3))
    with pytest.raises(SpecError, match="`order` must be at least 2, got 1"):
        load_spec(gate_file(8, map="taylor", order=1))


def test_a_product_of_two_is_warned_of_only_where_it_is_one_of_them() -> None:
    for name in MAPS:
        gate = {"axes": [0], "kind": "orthogonal", "map": name}
        assert bool(load_spec(file_of(4, [gate, gate])).warnings) == (name not in CUT)
