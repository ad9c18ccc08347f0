"""Where matrices of rotations are zero, and from how many gates on circuits of them are connected."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from connectivity import connectivity
from drawn_circuits import circuit_of, pair
from plain_oracle import plain_operator
from plain_rotations import Array, plain_orthogonal, plain_pauli
from random_circuits import file_of

from quanta_compiler import load_spec
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.graph import contraction_graph
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.ir.reach import gates_to_full
from quanta_compiler.kinds.angles import lie_numbers
from quanta_compiler.kinds.two_design import pauli_angles, still_wires, widest_column

Places = npt.NDArray[np.bool_]
SMALLEST = 1e-11
"""Of an entry that counts as nonzero: zeros of these small matrices are sums of a few rounding errors at most."""


def generic_pauli(size: int, layers: int, kept: int | None) -> Array:
    draw = np.random.default_rng(size)
    return plain_pauli(size, layers, draw.uniform(0.7, 2.3, pauli_angles(size, layers, kept)), kept)


def agreeing(size: int, still: tuple[int, ...]) -> Places:
    """Return where row and column have the same bits on some wires, wire 0 being the slowest."""
    wires = size.bit_length() - 1
    bits = np.arange(size)[:, None] >> (wires - 1 - np.array(still, dtype=int)) & 1
    agree: Places = (bits[:, None, :] == bits[None, :, :]).all(axis=2)
    return agree


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("size", [*range(1, 10), 12, 13, 16, 17, 20, 32])
def test_zeros_of_pauli_matrices(size: int, layers: int) -> None:
    for kept in (None, *range(1, widest_column(size) + 1)):
        nonzero = np.abs(generic_pauli(size, layers, kept)) > SMALLEST
        still = still_wires(size, layers, kept)
        assert nonzero.all() == (not still)
        if size & (size - 1) == 0:
            assert (nonzero == agreeing(size, still)).all()


@pytest.mark.parametrize("how", ["exp", "cayley"])
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_one_column_of_a_lie_algebra_fills_an_orthogonal_matrix(size: int, how: str) -> None:
    draw = np.random.default_rng(size)
    for trained in range(1, size + 1):
        numbers = draw.uniform(0.3, 1, lie_numbers(size, trained))
        assert (np.abs(plain_orthogonal(size, trained, numbers, how)) > SMALLEST).all()


def rotations_file(seed: int) -> dict[str, Any]:
    """Return a circuit of rotations on few axes of size 2, 3 and 4, with slices and dense gates between."""
    draw = random.Random(seed)
    present = {name: draw.choice((2, 2, 4, 3)) for name in "abc"[: draw.randint(1, 3)]}
    layout, gates = dict(present), list[dict[str, Any]]()
    for number in range(draw.randint(1, 5)):
        axes = draw.sample(list(present), min(len(present), draw.choice((1, 1, 2, 2))))
        others = {name: size for name, size in present.items() if name not in axes}
        width = int(np.prod([present[name] for name in axes]))
        kinds = ["pauli"] * 5 + ["orthogonal", "slice", "slice", "diagonal", "dense"]
        kinds += ["cz"] * (len(axes) == 2) + ["ry"] * (width == 2 and len(axes) == 1)
        gate = pair(*axes, kind=draw.choice(kinds))
        if gate["kind"] in ("pauli", "slice", "orthogonal") and draw.random() < 0.6:
            rows = draw.choice((width, width, 2, 4, 8))
            cuts = [(rows,), (2, rows // 2), (rows // 2, 2)] if rows % 4 == 0 else [(rows,)]
            gate["to"] = {f"n{number}{place}": size for place, size in enumerate(draw.choice(cuts))}
            present = others | gate["to"]
        elif others and gate["kind"] in ("pauli", "dense", "ry") and draw.random() < 0.3:
            gate["per"] = draw.sample(list(others), 1)
        if gate["kind"] == "pauli":
            _parameterize(draw, gate, max(width, int(np.prod([*gate.get("to", {"": width}).values()]))))
        gates.append(gate)
    return file_of(layout, gates, output=draw.sample(list(present), len(present)))


def _parameterize(draw: random.Random, gate: dict[str, Any], size: int) -> None:
    """Give a `pauli` gate layers and K', but no wire that stays where its size is no power of two."""
    gate["layers"] = draw.choice((0, 1, 1, 2))
    kept = draw.choice((None, *range(1, widest_column(size) + 1)))
    if kept is not None and (size & (size - 1) == 0 or not still_wires(size, gate["layers"], kept)):
        gate["rank_parameters"] = kept


def nonzero_operator(file: dict[str, Any], circuit: Circuit) -> Places:
    """Return where the operator is not zero, everything drawn at random."""
    draw = np.random.default_rng(0)
    tensors = {f"gates.{one.key}": draw.uniform(0.4, 1.6, one.shape) for one in all_stored(circuit)}
    found: Places = np.abs(plain_operator(file, tensors)) > SMALLEST
    return found


@pytest.mark.parametrize("seed", range(90))
def test_circuits_of_rotations_are_followed_wire_by_wire(seed: int) -> None:
    file = rotations_file(seed)
    circuit = build_circuit(load_spec(file))
    since = None
    for count in range(len(file["gates"]), -1, -1):
        leading = {key: value for key, value in file.items() if count == len(file["gates"]) or key != "output"}
        if not nonzero_operator({**leading, "gates": file["gates"][:count]}, circuit).all():
            break
        since = count
    assert gates_to_full(circuit) == since
    assert connectivity(contraction_graph(circuit)).is_full == (since is not None)


def test_a_pauli_gate_of_any_size_whose_wires_stay_counts_for_no_more_than_it_does() -> None:
    """Of 12 = 8 + 4 two wires stay with K' = 1: half of the matrix is zero, and mixing before it is not undone."""
    alone = circuit_of({"a": 12}, [pair("a", kind="pauli", rank_parameters=1)])
    assert gates_to_full(alone) is None
    assert gates_to_full(circuit_of({"a": 12}, [["a"], pair("a", kind="pauli", rank_parameters=1)])) == 1


@pytest.mark.parametrize(
    ("layout", "gate", "tied"),
    [
        ({"a": 2, "b": 4}, pair("a", "b", rank_parameters=1, layers=0), {"a": (), "b": ("b",)}),
        ({"a": 2, "b": 4}, pair("a", "b", rank_parameters=1), {"a": (), "b": ("b",)}),
        ({"a": 2, "b": 4}, pair("a", "b", rank_parameters=2), {"a": (), "b": ()}),
        ({"a": 4, "b": 2}, pair("a", "b", rank_parameters=1, layers=0), {"a": ("a",), "b": ("b",)}),
        ({"a": 4}, pair("a", rank_parameters=1, to={"c": 2, "d": 2}), {"c": (), "d": ("a",)}),
        ({"a": 3}, pair("a", rank_parameters=1, to={"c": 2, "d": 2}), {"c": (), "d": ("a",)}),
        ({"a": 12}, pair("a", rank_parameters=1), {"a": ()}),
    ],
    ids=str,
)
def test_wires_that_stay_tie_their_axes(
    layout: dict[str, int], gate: dict[str, Any], tied: dict[str, tuple[str, ...]]
) -> None:
    graph = contraction_graph(circuit_of(layout, [{**gate, "kind": "pauli"}]))
    assert connectivity(graph).tied == tied
