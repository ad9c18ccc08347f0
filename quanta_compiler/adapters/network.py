"""A circuit with its numbers as a tensor network in float64; and its matrix, as two thin factors where it has them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import inner_size
from quanta_compiler.kinds.kind import Form
from quanta_compiler.nn import circuit_of_gate
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec

Tensors = Mapping[str, torch.Tensor]
"""What a circuit applies, by the names of `FittedCircuit`."""


@dataclass(frozen=True, slots=True)
class Node:
    """A tensor of the network: a gate's matrix `[*per, *to, *axes]`, one of its two factors, or its diagonal."""

    gate: Gate
    legs: tuple[int, ...]
    """Of the circuit; the one between the factors of a low-rank gate is numbered behind them."""
    tensor: torch.Tensor
    factor: str = ""
    """`B` or `A` of a low-rank gate."""

    @property
    def name(self) -> str:
        """Return the name of the tensor that holds it."""
        return f"{self.gate.parameter}-{self.factor}" if self.factor else self.gate.parameter

    def stored(self) -> torch.Tensor:
        """Return the tensor as it is stored: `[*per, rows, columns]`, one side of a factor being the rank."""
        gate, size = self.gate, dict(zip(self.legs, self.tensor.shape, strict=True))
        inner = tuple(leg for leg in self.legs if leg not in gate.per + gate.rows + gate.columns)
        sides = {"A": (inner, gate.columns), "B": (gate.rows, inner), "": (gate.rows, gate.columns)}[self.factor]
        shape = [math.prod(size[leg] for leg in side) for side in (sides[1:] if gate.is_diagonal else sides)]
        return self.tensor.reshape(*(size[leg] for leg in gate.per), *shape)


@dataclass(frozen=True, slots=True)
class Network:
    """The tensors of a circuit in the order in which they are applied, a low-rank gate's as A, then B."""

    circuit: Circuit
    nodes: tuple[Node, ...]

    def summed(self) -> dict[int, list[int]]:
        """Return the legs inside of the network, and for each the places of the nodes that have it."""
        places: dict[int, list[int]] = {}
        for place, node in enumerate(self.nodes):
            for leg in node.legs:
                places.setdefault(leg, []).append(place)
        outer = {*self.circuit.inputs, *self.circuit.outputs}
        return {leg: found for leg, found in places.items() if leg not in outer}


def contracted(nodes: Sequence[Node], legs: Sequence[int]) -> torch.Tensor:
    """Return the contraction of some nodes, one after the other, with these legs left, slowest first."""
    tensor, have = nodes[0].tensor, nodes[0].legs
    for place, node in enumerate(nodes[1:], start=2):
        wanted = {*legs, *(leg for later in nodes[place:] for leg in later.legs)}
        left = tuple(leg for leg in dict.fromkeys(have + node.legs) if leg in wanted)
        labels = {leg: label for label, leg in enumerate(dict.fromkeys(have + node.legs))}
        sides = ([labels[leg] for leg in side] for side in (have, node.legs, left))
        tensor, have = torch.einsum(tensor, next(sides), node.tensor, next(sides), next(sides)), left
    return tensor.permute([have.index(leg) for leg in legs])


def network_of(spec: CircuitSpec, tensors: Tensors, device: torch.device) -> Network:
    """Return the network of a circuit with these tensors, on a device."""
    circuit = build_circuit(spec)
    gates = {gate.name: gate for gate in spec.gates}
    nodes: list[Node] = []
    for gate in circuit.gates:
        nodes += nodes_of(circuit, gate, gates[gate.parameter], tensors, device)
    return Network(circuit, tuple(nodes))


def nodes_of(circuit: Circuit, gate: Gate, owner: GateSpec, tensors: Tensors, device: torch.device) -> list[Node]:
    """Return the tensors that a gate is in the network, whose parameter is that of `owner`."""
    sizes = dict(enumerate(leg.size for leg in circuit.legs))

    def on_legs(matrix: torch.Tensor, *legs: tuple[int, ...]) -> torch.Tensor:
        return matrix.to(device, torch.float64).reshape([sizes[leg] for group in legs for leg in group])

    per, rows, columns = gate.per, gate.rows, gate.columns
    if gate.form is Form.FACTORS:
        left, right = (tensors[f"{gate.parameter}-{name}"] for name in "BA")
        if gate.transpose:
            left, right = right.mT, left.mT
        inner = len(circuit.legs) + gate.position
        sizes[inner] = left.shape[-1]
        return [
            Node(gate, (*per, inner, *columns), on_legs(right, per, (inner,), columns), "A"),
            Node(gate, (*per, *rows, inner), on_legs(left, per, rows, (inner,)), "B"),
        ]
    if gate.form is Form.DIAGONAL:
        return [Node(gate, per + columns, on_legs(tensors[gate.parameter], per, columns))]
    if gate.form is Form.SIGNS:
        signs = torch.ones(circuit.size(columns))
        signs[-1] = -1
        return [Node(gate, columns, on_legs(signs, columns))]
    matrix = gate_matrix(owner, tensors, device)
    return [Node(gate, per + rows + columns, on_legs(matrix.mT if gate.transpose else matrix, per, rows, columns))]


def gate_matrix(gate: GateSpec, tensors: Tensors, device: torch.device) -> torch.Tensor:
    """Return the matrices of a gate that owns its parameter, float64 `[*per, rows, columns]`."""
    if gate.form is Form.RESHAPE:
        return torch.eye(*gate.shape[-2:], dtype=torch.float64, device=device)
    if gate.matrix.given is not None:
        return tensors[f"constant-{gate.name}"].to(device, torch.float64)
    stored = tensors[gate.name].to(device, torch.float64)
    if not gate.matrix.is_made:
        return stored
    # On all of its blocks at once: itself or its transpose, whatever takes fewer vectors.
    *per, rows, columns = gate.shape
    fitted = circuit_of_gate(gate)
    count = min(rows, columns)
    unit = torch.eye(count, dtype=torch.float64, device=device)[:, None, :]
    unit = unit.expand(count, math.prod(per), count).reshape(count, -1)
    if rows >= columns:
        return fitted.apply({gate.name: stored}, unit).reshape(count, *per, rows).movedim(0, -1)
    return fitted.apply_transposed({gate.name: stored}, unit).reshape(count, *per, columns).movedim(0, -2)


@dataclass(frozen=True, slots=True)
class Waist:
    """The narrowest place of a circuit's state."""

    width: int
    place: int
    """How many nodes are before it."""
    state: tuple[int, ...]


def waist_of(circuit: Circuit) -> Waist | None:
    """Return where the state is narrowest; None where it is nowhere narrower than both ends."""
    sizes = dict(enumerate(leg.size for leg in circuit.legs))
    best, place, state = None, 0, circuit.inputs
    width = min(circuit.in_features, circuit.out_features)
    for gate in circuit.gates:
        stops = [gate.columns, gate.rows]
        size = inner_size(gate, circuit.size(gate.rows), circuit.size(gate.columns))
        if size is not None:
            inner = len(circuit.legs) + gate.position
            sizes[inner] = size
            stops.insert(1, (inner,))
        for taken, given in pairwise(stops):
            place += 1
            if taken != given:
                state = (*(leg for leg in state if leg not in taken), *given)
            if math.prod(sizes[leg] for leg in state) < width:
                width = math.prod(sizes[leg] for leg in state)
                best = Waist(width, place, state)
    return best


def factors(network: Network, waist: Waist) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the circuit's matrix as `[out, k] @ [k, in]`, k the width of a waist."""
    circuit, nodes = network.circuit, network.nodes
    left = _matrix(network, nodes[waist.place :], circuit.outputs, waist.state).reshape(-1, waist.width)
    right = _matrix(network, nodes[: waist.place], waist.state, circuit.inputs).reshape(waist.width, -1)
    return _resized(left, circuit.out_features), _resized(right.T, circuit.in_features).T


def operator(network: Network) -> torch.Tensor:
    """Return the circuit's matrix, `[out, in]`."""
    circuit = network.circuit
    whole = _matrix(network, network.nodes, circuit.outputs, circuit.inputs).reshape(circuit.out_size, -1)
    return _resized(_resized(whole, circuit.out_features).T, circuit.in_features).T


def _matrix(network: Network, nodes: Sequence[Node], rows: Sequence[int], columns: Sequence[int]) -> torch.Tensor:
    """Return what some nodes do, `[*rows, *columns]`; a leg that none of them changes is tied to itself."""
    like = network.nodes[0]
    legs = network.circuit.legs
    # Behind the legs that the nodes have.
    renamed = {leg: 2 * len(legs) + len(network.nodes) + leg for leg in rows if leg in columns}
    ties = [
        replace(like, legs=(new, leg), tensor=torch.eye(legs[leg].size, dtype=torch.float64, device=like.tensor.device))
        for leg, new in renamed.items()
    ]
    return contracted([*nodes, *ties], [*(renamed.get(leg, leg) for leg in rows), *columns])


def _resized(matrix: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the first rows of a matrix, and rows of zeros where it has fewer."""
    return torch.nn.functional.pad(matrix[:rows], (0, 0, 0, max(0, rows - len(matrix))))
