"""Bonds cut by singular values of the network, against numpy's of the dense matrix; thin factors; smaller circuits."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from paper_checkpoints import generator
from random_circuits import file_of

from quanta_compiler.adapters.bonds import bonds_of, cut
from quanta_compiler.adapters.network import Network, factors, network_of, operator, waist_of
from quanta_compiler.adapters.shrinking import Filled, can_shrink, lowerable, shrunk
from quanta_compiler.adapters.updates import CircuitUpdate
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kinds.two_design import kept_angles, pauli_angles
from quanta_compiler.nn import fit_circuit
from quanta_compiler.oracle.reference import circuit_operator
from quanta_compiler.spec import to_dict

CPU = torch.device("cpu")


def preset(name: str, **options: Any) -> dict[str, Any]:
    return {"version": 1, "name": "a", "preset": name, **options}


LAYOUT = [4, 3, 2]
LOWRANK = {"kind": "lowrank", "rank": 2}


def between(kind: str, **options: Any) -> dict[str, Any]:
    """Return two gates of a kind around a diagonal."""
    ends = {"kind": kind, **options}
    middle = {"axes": ["a"], "kind": "diagonal"}
    return file_of(24, [{"axes": [0], "to": {"a": 6}, **ends}, middle, {"axes": ["a"], "to": {"b": 16}, **ends}])


Case = tuple[dict[str, Any], int, int]
TRAINS: dict[str, Case] = {
    "lora": (preset("lora", rank=5), 24, 16),
    "tt": (preset("tt", rank=4, layout=LAYOUT), 24, 24),
    "btt": (preset("btt", rank=3, layout=[6, 4]), 24, 24),
    "btt of three": (preset("btt", rank=3, layout=LAYOUT), 24, 24),
    "loretta": (preset("loretta", rank=4, tt_rank=3, layout=LAYOUT), 24, 24),
    "chain": (file_of("4x3x2", ["chain"]), 24, 24),
    "each": (file_of("4x3x2", [{"pattern": "each", **LOWRANK}]), 24, 24),
    "blocks": (file_of("4x3", [{"axes": [1], "per": [0], **LOWRANK}, {"axes": [0], "per": [1], **LOWRANK}]), 12, 12),
    "beside loops": (file_of("4x3", [{"axes": [0, 1], "kind": "lowrank", "rank": 5}, "all_pairs", "each"]), 12, 12),
    "a user's own": (
        file_of(
            "4x6",
            [
                {"axes": [1], "to": {"x": 3, "bond": 5}},
                {"axes": [0, "bond"], "to": {"y": 8}},
                {"axes": ["x"], "kind": "diagonal"},
            ],
        ),
        24,
        24,
    ),
}
"""Circuits with bonds whose layout is as wide as the layer."""
OTHERS: dict[str, Case] = {
    "padded tt": (preset("tt", rank=4, layout=LAYOUT), 20, 22),
    "loops": (file_of("4x3x2", [{"pattern": "all_pairs", **LOWRANK}]), 24, 24),
    "quantum_peft": (preset("quantum_peft", rank=4, layers=2), 32, 24),
    "quantum_peft_full": (preset("quantum_peft_full"), 24, 16),
    "orthogonal": (between("orthogonal", map="cayley"), 24, 16),
    "dense around a diagonal": (between("dense"), 24, 16),
}
WITHOUT: dict[str, Case] = {
    "krona": (preset("krona"), 24, 16),
    "monarch": (preset("monarch"), 24, 16),
    "quanta": (preset("quanta", layout=LAYOUT), 24, 24),
    "butterfly": (preset("butterfly"), 16, 16),
    "frozen": (
        file_of(24, [{"axes": [0], "kind": "lowrank", "rank": 3, "frozen": True}, {"axes": [0], "kind": "diagonal"}]),
        24,
        24,
    ),
    "shared": (file_of("4x4", [{"axes": [0], **LOWRANK, "name": "a"}, {"axes": [1], "share": "a"}]), 16, 16),
}


def filled(case: Case, seed: int = 0) -> Filled:
    """Return a circuit whose numbers are all random, angles small enough to count."""
    fitted = fit_circuit(*case)
    angles = {gate.name for gate in fitted.spec.gates if gate.matrix.stores_angles}
    tensors = fitted.draw(seed)
    draw = generator(seed)
    for name in fitted.trained:
        tensors[name] = torch.randn(fitted.shapes[name], generator=draw) * (0.2 if name in angles else 1.0)
    return Filled(fitted.spec, tensors)


def dense(one: Filled) -> torch.Tensor:
    """Return the matrix as the oracle has it."""
    named = {name.replace("-", "."): tensor for name, tensor in one.tensors.items()}
    return circuit_operator(build_circuit(one.spec), named)


def bonds(network: Network) -> list[Any]:
    return bonds_of(network, lambda node: node.gate.trains and not node.gate.matrix.is_made)


ALL = {**TRAINS, **OTHERS, **WITHOUT}


@pytest.mark.parametrize("name", ALL)
def test_a_network_is_the_circuit(name: str) -> None:
    one = filled(ALL[name])
    network, matrix = one.network(CPU), dense(one)
    torch.testing.assert_close(operator(network), matrix)
    waist = waist_of(network.circuit)
    if waist is not None:
        left, right = factors(network, waist)
        assert left.shape[1] == waist.width < min(matrix.shape)
        torch.testing.assert_close(left @ right, matrix)


@pytest.mark.parametrize(
    ("name", "width"),
    [("lora", 5), ("loretta", 3), ("quantum_peft", 4), ("orthogonal", 6), ("tt", None), ("quanta", None)],
)
@pytest.mark.parametrize("has_copy", [False, True])
def test_singular_values_come_out_of_the_factors(name: str, width: int | None, has_copy: bool) -> None:
    one = filled(ALL[name])
    frozen = filled(ALL[name], seed=1).tensors if has_copy else None
    update = CircuitUpdate(fit_circuit(*ALL[name]), one.tensors, frozen, 0.5)
    thin = update.factored(CPU)
    assert (thin is None) == (width is None)
    if thin is not None and width is not None:
        assert thin.left.shape[1] == width * (1 + has_copy)
    matrix = update.matrix(CPU).numpy()
    values, right = update.decompose(3, CPU)
    expected = numpy.linalg.svd(matrix, compute_uv=False)
    # Of the factors they are exact; of the matrix they are resolved to the root of the rounding.
    numpy.testing.assert_allclose(values.numpy(), expected, atol=(1e-7 if thin is None else 1e-13) * expected[0])
    numpy.testing.assert_allclose(numpy.linalg.norm(matrix @ right.numpy(), axis=0), expected[:3])
    assert update.squared_norm(CPU) == pytest.approx((expected**2).sum())


@pytest.mark.parametrize("energy", [1e-9, 0.1])
@pytest.mark.parametrize("name", TRAINS)
def test_cutting_bonds_projects(name: str, energy: float) -> None:
    one = filled(TRAINS[name])
    network = one.network(CPU)
    found = bonds(network)
    assert found
    before, after = dense(one), operator(cut(network, found, energy))
    whole = before.square().sum()
    lost = float((after - before).square().sum() / whole)
    assert lost <= energy + 1e-12
    assert lost == pytest.approx(1 - float(after.square().sum() / whole), abs=1e-10)


def test_nothing_is_cut_where_rounding_leaves_less_than_nothing_to_lose() -> None:
    network = filled(TRAINS["tt"]).network(CPU)
    assert cut(network, bonds(network), -1e-15) is network


@pytest.mark.parametrize("place", [0, 1])
def test_a_bond_is_cut_by_the_singular_values_of_the_dense_matrix(place: int) -> None:
    one = filled(TRAINS["tt"])
    network = one.network(CPU)
    bond = bonds(network)[place]
    # [o0, o1, o2, i0, i1, i2]: the first bond parts axis 2 from the others, the second axis 0.
    matrix = dense(one).reshape(*LAYOUT, *LAYOUT)
    apart = [[2, 5, 0, 1, 3, 4], [0, 3, 1, 2, 4, 5]][place]
    rows = [4, 16][place]
    values = numpy.linalg.svd(matrix.permute(apart).reshape(rows, -1).numpy(), compute_uv=False)
    for kept in range(1, 4):
        lost = (values[kept:] ** 2).sum() / (values**2).sum()
        made = cut(network, [bond], lost * (1 + 1e-9))
        assert made.nodes[bond.taker].stored().shape[-1] * 4 == network.nodes[bond.taker].stored().shape[-1] * kept
        error = (operator(made) - dense(one)).square().sum() / (values**2).sum()
        assert float(error) == pytest.approx(lost, abs=1e-12)


@pytest.mark.parametrize("energy", [1e-6, 0.5])
@pytest.mark.parametrize("name", [*TRAINS, *OTHERS])
def test_a_smaller_circuit_loses_what_is_said(name: str, energy: float) -> None:
    one = filled(ALL[name])
    assert can_shrink(one, CPU)
    made = shrunk(one, energy, CPU)
    matrix = dense(one)
    lost = float((dense(made.filled) - matrix).square().sum() / matrix.square().sum())
    assert made.norm == pytest.approx(float(matrix.square().sum()))
    assert made.lost == pytest.approx(lost, abs=1e-12)
    assert lost <= energy
    numbers = [sum(tensor.numel() for tensor in it.tensors.values()) for it in (one, made.filled)]
    assert numbers[1] < numbers[0] if energy == 0.5 else numbers[1] <= numbers[0]
    # It is a circuit that a file can say, with the tensors that it asks for, in their dtype.
    again = fit_circuit(to_dict(made.filled.spec), *ALL[name][1:])
    assert again.spec == made.filled.spec
    assert again.shapes == {key: tuple(tensor.shape) for key, tensor in made.filled.tensors.items()}
    assert {tensor.dtype for tensor in made.filled.tensors.values()} == {torch.float32}


@pytest.mark.parametrize("name", WITHOUT)
def test_circuits_without_a_size_to_lower(name: str) -> None:
    assert not can_shrink(filled(WITHOUT[name]), CPU)


def test_what_is_of_less_rank_than_it_could_be_becomes_so_for_nothing() -> None:
    one = filled(TRAINS["lora"])
    tensors = {**one.tensors, "g0-B": one.tensors["g0-B"] * torch.tensor([1.0, 0, 1, 0, 1])}
    made = shrunk(Filled(one.spec, tensors), 1e-9, CPU)
    assert made.filled.spec.gates[0].matrix.data()["rank"] == 3
    assert made.lost < 1e-12


@pytest.mark.parametrize("options", [{}, {"rank_parameters": 4}])
def test_the_last_column_of_a_square_matrix_has_no_numbers_to_leave_out(options: dict[str, int]) -> None:
    gates = [{"axes": [0], "kind": "orthogonal", **options}, {"axes": [0], "kind": "diagonal"}]
    one = filled((file_of(4, gates), 4, 4))
    assert shrunk(one, 1e-9, CPU).filled is one
    (size,) = lowerable(one.network(CPU))[1]
    assert [size.make(one, kept).tensors["g0"].numel() for kept in (1, 2, 3)] == [3, 5, 6]


def test_an_update_of_zero_stays_as_it_is() -> None:
    one = filled(TRAINS["lora"])
    zero = Filled(one.spec, {**one.tensors, "g0-B": torch.zeros(16, 5)})
    made = shrunk(zero, 0.5, CPU)
    assert (made.filled, made.lost, made.norm) == (zero, 0.0, 0.0)


def test_fewer_angles_are_those_of_a_smaller_k() -> None:
    for size in (1, 2, 3, 4, 7, 8, 12, 24, 32, 100):
        for layers in (0, 1, 3):
            for before in (None, 5, 2):
                for after in range(1, (before or 6) + 1):
                    left = kept_angles(size, layers, before, after)
                    assert len(left) == pauli_angles(size, layers, after) == len(set(left))
                    assert all(0 <= place < pauli_angles(size, layers, before) for place in left)


def test_angles_that_are_left_out_are_zero() -> None:
    one = filled(OTHERS["quantum_peft"])
    gate = one.gate("U")
    made = next(it for it in _sized(one) if it.gate("U").matrix.data().get("rank_parameters") == 2)
    left = kept_angles(*gate.matrix.two_design(*gate.shape[-2:]), 2)
    zeroed = torch.zeros_like(one.tensors["U"])
    zeroed[left] = one.tensors["U"][left]
    torch.testing.assert_close(dense(made), dense(Filled(one.spec, {**one.tensors, "U": zeroed})))


def test_an_axis_that_gets_smaller_may_bound_k() -> None:
    square = file_of(
        6, [{"axes": [0], "kind": "orthogonal", "rank_parameters": 5}, {"axes": [0], "kind": "diagonal"}, [0]]
    )
    for case in (OTHERS["orthogonal"], (square, 6, 6)):
        one = filled(case)
        axis, *angles = lowerable(one.network(CPU))[1]
        made = axis.make(one, 3)
        for size in angles:
            for kept in range(1, size.now):
                fewer = size.make(made, kept)
                again = fit_circuit(to_dict(fewer.spec), *case[1:])
                assert again.shapes == {key: tuple(tensor.shape) for key, tensor in fewer.tensors.items()}


def _sized(one: Filled) -> list[Filled]:
    return [size.make(one, 2) for size in lowerable(network_of(one.spec, one.tensors, CPU))[1]]
