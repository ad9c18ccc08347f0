"""Tensor trains in canonical form: orthogonal cores around one diagonal reach all that the plain train reaches.

The oracle is the rank of the derivative of the operator by its numbers, against the known dimension of the tensors
with these bonds: the numbers of all cores, without the r^2 of every bond that a change of its basis makes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from quanta_compiler import load_spec
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.parameters import stored_tensors
from quanta_compiler.oracle.reference import circuit_operator

EXAMPLE = Path(__file__).parents[2] / "examples" / "tensor-train-canonical.yaml"
BONDS = 5


def resized(circuit: dict[str, Any], sizes: dict[int, int]) -> dict[str, Any]:
    """Return the example with other sizes of axes and of bonds."""
    gates = [
        {**gate, "to": {name: sizes[size] for name, size in gate.get("to", {}).items()}} for gate in circuit["gates"]
    ]
    gates = [{key: value for key, value in gate.items() if value} for gate in gates]
    return {**circuit, "layout": {name: sizes[size] for name, size in circuit["layout"].items()}, "gates": gates}


def plain(circuit: dict[str, Any]) -> dict[str, Any]:
    """Return the train with dense cores, and nothing between them."""
    cores = [gate for gate in circuit["gates"] if gate["kind"] == "orthogonal"]
    return {**circuit, "gates": [{key: gate[key] for key in ("name", "axes", "to")} for gate in cores]}


def built(circuit: dict[str, Any]) -> Circuit:
    return build_circuit(load_spec(circuit))


def count(circuit: Circuit) -> int:
    return sum(math.prod(stored.shape) for gate in circuit.gates for stored in stored_tensors(circuit, gate))


def dimension(circuit: Circuit) -> int:
    """Return the dimension of the operators near one with random numbers.

    Random sums of entries, as many as there are numbers, lose nothing of a rank and are faster to derive than all.
    """
    shapes = {stored.key: stored.shape for gate in circuit.gates for stored in stored_tensors(circuit, gate)}
    generator = torch.Generator().manual_seed(5)
    row = torch.randn(count(circuit), generator=generator, dtype=torch.float64).requires_grad_()
    entries = circuit.in_features * circuit.out_features
    sums = torch.randn(len(row), entries, generator=generator, dtype=torch.float64)

    pieces = torch.split(row, [math.prod(shape) for shape in shapes.values()])
    tensors = {key: piece.reshape(shape) for (key, shape), piece in zip(shapes.items(), pieces, strict=True)}
    summed = sums @ circuit_operator(circuit, tensors).flatten()
    derivative = torch.stack([torch.autograd.grad(entry, row, retain_graph=True)[0] for entry in summed])
    return int(torch.linalg.matrix_rank(derivative, rtol=1e-9))


@pytest.mark.parametrize(("size", "bond"), [(3, 2), (2, 2), (3, 1)])
def test_the_canonical_train_reaches_what_the_plain_one_does(size: int, bond: int) -> None:
    circuit = resized(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), {16: size, 8: bond})
    canonical, dense = built(circuit), built(plain(circuit))
    free = count(dense) - BONDS * bond**2
    assert dimension(dense) == dimension(canonical) == free
    # Of every bond but the diagonal's the bases may still be turned: r (r - 1) / 2 numbers each.
    assert count(canonical) == free + (BONDS - 1) * bond * (bond - 1) // 2


def test_the_numbers_of_the_example() -> None:
    circuit = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert (count(built(circuit)), count(built(plain(circuit)))) == (4144, 4352)
    assert 4352 - BONDS * 8**2 == 4032 == 4144 - (BONDS - 1) * 8 * 7 // 2
    text = EXAMPLE.read_text(encoding="utf-8")
    assert all(number in text for number in ("4,144", "4,352", "4,032", "92 + 988 + 988"))
