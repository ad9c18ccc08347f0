"""A circuit with its numbers made smaller: thinner bonds, lower ranks, fewer angles, as far as a loss of energy allows.

Bonds are cut by exact singular values (`bonds.py`). What else can be smaller is tried, the smallest size that the
measured loss admits being found by bisection: the rank of a low-rank gate within a loop, the axis between two
orthogonal matrices, K'.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from quanta_compiler.adapters.bonds import Bond, bonds_of, cut
from quanta_compiler.adapters.network import Network, Node, Tensors, factors, network_of, nodes_of, operator, waist_of
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kinds.kind import Form, Kind
from quanta_compiler.kinds.two_design import kept_angles, widest_column
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec

_ATTEMPTS = 8
"""Of cutting bonds, each for half of the energy: a layout that is padded has more than the update."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A circuit and its numbers."""

    spec: CircuitSpec
    tensors: Tensors
    is_from_identity: bool = False
    """Whether the update is its matrix less the identity, as which it begins: whatever K' is, and with no thinner axis.
    """

    def network(self, device: torch.device) -> Network:
        """Return the circuit as a tensor network."""
        return network_of(self.spec, self.tensors, device)

    def gate(self, name: str) -> GateSpec:
        """Return a gate by name."""
        return next(gate for gate in self.spec.gates if gate.name == name)

    def changed(self, sizes: dict[int, int], kinds: dict[str, Kind], tensors: Tensors) -> "Filled":
        """Return the circuit with other sizes of legs, other kinds of gates by name, and some other tensors."""
        circuit = build_circuit(self.spec)
        gates = []
        for spec, gate in zip(self.spec.gates, circuit.gates, strict=True):
            axes, to, per = (
                tuple(replace(axis, size=sizes.get(leg, axis.size)) for axis, leg in zip(named, legs, strict=True))
                for named, legs in ((spec.axes, gate.columns), (spec.to, gate.rows), (spec.per, gate.per))
            )
            gates.append(replace(spec, axes=axes, to=to, per=per, matrix=kinds.get(spec.name, spec.matrix)))
        # In the dtype that they are saved in.
        cast = {name: tensor.to("cpu", self.tensors[name].dtype).contiguous() for name, tensor in tensors.items()}
        changed = replace(self.spec, gates=tuple(gates), warnings=())
        return replace(self, spec=changed, tensors={**self.tensors, **cast})


@dataclass(frozen=True, slots=True)
class Size:
    """Something of a circuit that can be smaller, and what makes it so."""

    now: int
    make: Callable[[Filled, int], Filled]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What became of a circuit."""

    filled: Filled
    """The circuit itself where no size can be lowered for so little, or where it is zero."""
    lost: float
    """The part of the squared norm that is lost, by the numbers as they are saved."""
    norm: float
    """The squared Frobenius norm of its update as it was, but for the scale."""


def can_shrink(filled: Filled, device: torch.device) -> bool:
    """Say whether a circuit has a size that can be lowered, whatever that loses."""
    return any(lowerable(filled.network(device), filled.is_from_identity))


def lowerable(network: Network, is_from_identity: bool = False) -> tuple[list[Bond], list[Size]]:
    """Return the bonds to cut, and the other sizes that can be smaller."""
    own = _own(network)
    if is_from_identity:
        return [], list(_angles(network, own))
    bonds = bonds_of(network, lambda node: _is_matrix(node.gate, own))
    return bonds, list(_sizes(network, own, {bond.leg for bond in bonds}))


def shrunk(filled: Filled, energy: float, device: torch.device) -> Shrunk:
    """Return a smaller circuit that has lost at most a part `energy` of its squared norm."""
    network = filled.network(device)
    bonds, sizes = lowerable(network, filled.is_from_identity)
    norm, lost_by = _measured(network, filled.is_from_identity)
    if not norm:
        return Shrunk(filled, 0.0, norm)
    found, lost = filled, 0.0
    for attempt in range(_ATTEMPTS if bonds else 0):
        # The sizes that are tried get their shares of what is left.
        share = energy * 0.5**attempt * len(bonds) / (len(bonds) + len(sizes))
        made = _as_cut(filled, network, cut(network, bonds, share))
        loss = lost_by(made.network(device))
        if loss <= energy:
            found, lost = made, loss
            break
    for done, size in enumerate(sizes):
        allowed = lost + (energy - lost) / (len(sizes) - done)
        least, most, before = 1, size.now, found
        while least < most:
            middle = (least + most) // 2
            made = size.make(before, middle)
            loss = lost_by(made.network(device))
            if loss <= allowed:
                most, found, lost = middle, made, loss
            else:
                least = middle + 1
    return Shrunk(found, lost, norm)


def _measured(network: Network, is_from_identity: bool) -> tuple[float, Callable[[Network], float]]:
    """Return the squared norm of a circuit's update, and what says how much of it another circuit has lost."""
    waist = waist_of(network.circuit)
    if waist is None or is_from_identity:
        matrix = operator(network)
        update = matrix - torch.eye(len(matrix)).to(matrix) if is_from_identity else matrix
        norm = float(update.square().sum())
        return norm, lambda other: float((operator(other) - matrix).square().sum()) / norm
    left, right = factors(network, waist)
    norm = squared_norm(left, right)

    def lost(other: Network) -> float:
        narrower = waist_of(other.circuit)
        assert narrower is not None, "no size of it is larger"
        minus, own = factors(other, narrower)
        return squared_norm(torch.cat([left, -minus], 1), torch.cat([right, own])) / norm

    return norm, lost


def squared_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the squared Frobenius norm of `left @ right`, which is not made."""
    first, second = (torch.linalg.qr(factor, mode="r")[1] for factor in (left, right.T))
    return float((first @ second.T).square().sum())


def _own(network: Network) -> set[str]:
    """Return the gates whose parameter trains and is theirs alone."""
    gates = network.circuit.gates
    owners = [gate.parameter for gate in gates]
    return {gate.name for gate in gates if gate.trains and owners.count(gate.name) == 1}


def _is_matrix(gate: Gate, own: set[str]) -> bool:
    return gate.name in own and gate.form in (Form.MATRIX, Form.FACTORS)


def _as_cut(filled: Filled, network: Network, made: Network) -> Filled:
    """Return the circuit that a network with thinner bonds belongs to."""
    sizes: dict[int, int] = {}
    tensors: dict[str, torch.Tensor] = {}
    for node, before in zip(made.nodes, network.nodes, strict=True):
        if node is not before:
            sizes.update(zip(node.legs, node.tensor.shape, strict=True))
            tensors[node.name] = node.stored()
    if not tensors:
        return filled
    factors = [node for node in made.nodes if node.factor == "B" and node.name in tensors]
    kinds = {node.gate.name: _optioned(node.gate.matrix, rank=node.stored().shape[-1]) for node in factors}
    return filled.changed(sizes, kinds, tensors)


def _sizes(network: Network, own: set[str], bonds: set[int]) -> Iterator[Size]:
    """Yield what can be smaller beside the bonds: ranks, then axes, then K'."""
    for node in network.nodes:
        if node.factor == "B" and node.gate.name in own and bonds.isdisjoint(node.legs):
            yield Size(node.gate.matrix.data()["rank"], partial(_with_rank, node.gate.name))
    for leg, places in network.summed().items():
        nodes = [network.nodes[place] for place in places]
        may_choose = all(_may_choose(network, node, leg, own) for node in nodes)
        if may_choose and not all(_is_matrix(node.gate, own) for node in nodes):
            yield Size(network.circuit.legs[leg].size, partial(_with_size, leg))
    yield from _angles(network, own)


def _angles(network: Network, own: set[str]) -> Iterator[Size]:
    for gate in network.circuit.gates:
        if gate.name in own and "rank_parameters" in gate.matrix.options():
            sides = network.circuit.size(gate.rows), network.circuit.size(gate.columns)
            yield Size(_kept(gate.matrix, *sides), partial(_with_angles, gate.name))


def _with_rank(name: str, filled: Filled, rank: int) -> Filled:
    """Return the circuit with the best product of this rank in place of a low-rank gate's."""
    left, right = (filled.tensors[f"{name}-{factor}"].double() for factor in "BA")
    vectors, values, others = torch.linalg.svd(left @ right, full_matrices=False)
    root = values[..., :rank].sqrt()
    tensors = {
        f"{name}-B": vectors[..., :rank] * root[..., None, :],
        f"{name}-A": root[..., None] * others[..., :rank, :],
    }
    return filled.changed({}, {name: _optioned(filled.gate(name).matrix, rank=rank)}, tensors)


def _may_choose(network: Network, node: Node, leg: int, own: set[str]) -> bool:
    """Say whether a node can do with some indices of a leg: one that is made, with the first ones."""
    gate, size = node.gate, network.circuit.size
    if gate.name not in own or not gate.matrix.is_made:
        return gate.name in own
    # The larger side says how many numbers are stored, and what they mean.
    pairs = (gate.rows, gate.columns), (gate.columns, gate.rows)
    return any(one == (leg,) and size(one) <= size(other) for one, other in pairs)


def _with_size(leg: int, filled: Filled, count: int) -> Filled:
    """Return the circuit with a shorter leg: its first indices where a matrix is made, else those that count most."""
    circuit, cpu = build_circuit(filled.spec), torch.device("cpu")
    gates = [gate for gate in circuit.gates if leg in gate.per + gate.rows + gate.columns]
    made = [gate for gate in gates if gate.matrix.is_made]
    plain = [gate for gate in gates if not gate.matrix.is_made]
    nodes = [node for gate in plain for node in nodes_of(circuit, gate, filled.gate(gate.name), filled.tensors, cpu)]
    nodes = [node for node in nodes if leg in node.legs]
    weights = torch.ones(circuit.legs[leg].size, dtype=torch.float64)
    for node in nodes:
        weights *= node.tensor.movedim(node.legs.index(leg), 0).reshape(len(weights), -1).square().sum(1)
    order = weights.argsort(descending=True)[:count].sort()[0] if not made else torch.arange(count)
    tensors = {node.name: _chosen(node, leg, order) for node in nodes}
    kinds = {}
    for gate in made:
        rows, columns = (count if side == (leg,) else circuit.size(side) for side in (gate.rows, gate.columns))
        if gate.form is Form.FUNCTION and "rank_parameters" in gate.matrix.data():
            kinds[gate.name] = _optioned(gate.matrix, rank_parameters=min(_kept(gate.matrix, rows, columns), count))
        (part,) = kinds.get(gate.name, gate.matrix).stored(rows, columns)
        tensors[gate.name] = filled.tensors[gate.name][..., : part.shape[0]]
    return filled.changed({leg: count}, kinds, tensors)


def _chosen(node: Node, leg: int, order: torch.Tensor) -> torch.Tensor:
    return replace(node, tensor=node.tensor.index_select(node.legs.index(leg), order)).stored()


def _with_angles(name: str, filled: Filled, kept: int) -> Filled:
    """Return the circuit with a smaller K' for a gate: of each column of its angles the first, or the first columns."""
    gate = filled.gate(name)
    rows, columns = gate.shape[-2:]
    if kept >= _kept(gate.matrix, rows, columns):
        # An axis that got smaller has made it so already.
        return filled
    matrix = _optioned(gate.matrix, rank_parameters=kept)
    (part,) = matrix.stored(rows, columns)
    left = list(range(part.shape[0]))
    if gate.form is Form.CIRCUIT:
        left = kept_angles(*gate.matrix.two_design(rows, columns), kept)
    return filled.changed({}, {name: matrix}, {name: filled.tensors[name][..., left]})


def _kept(matrix: Kind, rows: int, columns: int) -> int:
    """Return K' of a kind of gate, or the most that has numbers: the last column of a square matrix has none."""
    if matrix.form is Form.CIRCUIT:
        most = widest_column(max(rows, columns))
    else:
        most = max(1, min(rows, columns, max(rows, columns) - 1))
    return min(most, int(matrix.data().get("rank_parameters", most)))


def _optioned(matrix: Any, **options: int) -> Any:
    """Return a kind of gate with other options."""
    return replace(matrix, **options)
