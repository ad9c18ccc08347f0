"""Bonds of a circuit: axes that one gate makes and one later gate contracts, cut by exact singular values.

Where a bond is all that joins two parts of the network, T = sum over the bond of L R. QR sweeps from the ends of the
network bring L = Q_L R_L and R = R_R^T Q_R^T, Q_L and Q_R with orthonormal columns, so that the singular values of the
small matrix R_L R_R^T are those of T between the two parts, and what is cut off there is the best that can be. Open
axes that both parts have (those that select a block) are batch axes: every block has a decomposition of its own.

Cutting one bond after the other, T goes through orthogonal projections: the energy that is left is the product of the
shares that each of them leaves. T is here the whole operator of the layout, before it is padded or truncated.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from quanta_compiler.adapters.network import Network, Node, contracted

Halves = tuple[torch.Tensor, torch.Tensor]
Part = frozenset[int]
"""Places of nodes."""
Branch = tuple[int, tuple[int, ...], Part]
"""A part that hangs on another: its node at the bond, the bond or nothing, and all of its nodes."""


@dataclass(frozen=True, slots=True)
class Bond:
    """A leg by which alone two parts of a network hang together."""

    leg: int
    maker: int
    """The place of the node that brings the leg."""
    taker: int
    made_in: Part
    """The part with the maker; all other nodes are on the other side."""
    batch: tuple[int, ...]
    """Open legs of both parts."""


def bonds_of(network: Network, is_free: Callable[[Node], bool]) -> list[Bond]:
    """Return the bonds between nodes that may be changed, in the order of the circuit."""
    found = (
        _bond(network, leg, *sorted(places))
        for leg, places in network.summed().items()
        if len(places) == 2 and all(is_free(network.nodes[place]) for place in places)
    )
    return sorted((bond for bond in found if bond is not None), key=lambda bond: (bond.maker, bond.leg))


def _bond(network: Network, leg: int, maker: int, taker: int) -> Bond | None:
    whole = frozenset(range(len(network.nodes)))
    before = _joined(network, maker, whole, leg)
    after = _joined(network, taker, whole, leg)
    if taker in before:
        return None
    # What hangs together with neither may stand on either side.
    for part in (before, whole - after):
        batch = sorted(_open(network, part) & _open(network, whole - part))
        if {*batch} <= {*network.nodes[maker].legs} & {*network.nodes[taker].legs}:
            return Bond(leg, maker, taker, part, tuple(batch))
    return None


def cut(network: Network, bonds: list[Bond], energy: float) -> Network:
    """Return the network with thinner bonds; at most a part `energy` of the squared norm is lost.

    What one bond leaves of its share goes to those after it, and goes round until it makes no bond thinner.
    """
    kept, before = 1.0, None
    while network is not before:
        before = network
        for done, bond in enumerate(bonds):
            network, share = _thinner(network, bond, (1 - (1 - energy) / kept) / (len(bonds) - done))
            kept *= share
    return network


def _thinner(network: Network, bond: Bond, energy: float) -> tuple[Network, float]:
    """Return the network with one bond as thin as it may be, and what is left of the squared norm."""
    left, right = _triangles(network, bond)
    vectors, values, others = torch.linalg.svd(left @ right.mT, full_matrices=False)
    squares = values.square().reshape(-1, values.shape[-1]).sum(0)
    # What is lost where 1, 2, ... are kept.
    lost = (squares.flip(0).cumsum(0).flip(0) - squares) / squares.sum().clamp(min=torch.finfo().tiny)
    size = 1 + int((lost > energy).sum())
    if size >= left.shape[-1]:
        # Nothing, or by rounding less than nothing, may be lost.
        return network, 1.0
    values = values[..., :size]
    # Those that are rounding alone stay zero.
    inverse = torch.where(values > values.max() * torch.finfo(values.dtype).eps, values.rsqrt(), 0)[..., None, :]
    halves = right.mT @ (others[..., :size, :].mT * inverse), left.mT @ (vectors[..., :size] * inverse)
    return _projected(network, bond, halves), 1 - float(lost[size - 1])


def _projected(network: Network, bond: Bond, halves: Halves) -> Network:
    """Return the network with both nodes of a bond multiplied by their half, `[*batch, bond, new bond]`."""
    nodes, new = list(network.nodes), -1
    for place, half in zip((bond.maker, bond.taker), halves, strict=True):
        node = nodes[place]
        factor = replace(node, legs=(*bond.batch, bond.leg, new), tensor=half)
        legs = [new if leg == bond.leg else leg for leg in node.legs]
        nodes[place] = replace(node, tensor=contracted([node, factor], legs))
    return replace(network, nodes=tuple(nodes))


def _triangles(network: Network, bond: Bond) -> Halves:
    """Return R_L and R_R, each `[*batch, rows, bond]`."""
    others = frozenset(range(len(network.nodes))) - bond.made_in
    left = _triangle(network, bond.maker, (bond.leg,), bond.made_in)
    return left.tensor, _triangle(network, bond.taker, (bond.leg,), others).tensor


def _triangle(network: Network, start: int, bond: tuple[int, ...], part: Part) -> Node:
    """Return R of the QR decomposition of a part of the network at its bond: legs `[*batch, rows, *bond]`.

    The node at the bond, and those that hang together with it by more than a bond, are one block; what hangs on it by a
    bond, or by no leg that is summed, comes as its own R.
    """
    block, branches = _block(network, start, part)
    operands = [network.nodes[place] for place in sorted(block)]
    operands += [_triangle(network, *branch) for branch in branches]
    summed, outside = network.summed(), _open(network, frozenset(range(len(network.nodes))) - part)
    legs = dict.fromkeys(leg for node in operands for leg in node.legs if leg not in summed)
    batch = sorted(leg for leg in legs if leg in outside)
    rest = [leg for leg in legs if leg not in outside]
    whole = contracted(operands, [*batch, *rest, *bond])
    width = whole.shape[-1] if bond else 1
    triangle = torch.linalg.qr(whole.reshape(*whole.shape[: len(batch)], -1, width), mode="r")[1]
    # Its rows are a leg of their own, which no other part has.
    rows = -2 - start
    return Node(network.nodes[start].gate, (*batch, rows, *bond), triangle if bond else triangle.squeeze(-1))


def _block(network: Network, start: int, part: Part) -> tuple[Part, list[Branch]]:
    """Return the nodes around `start` that no bond divides, and what of the part is none of them."""
    whole = _joined(network, start, part)
    block = whole
    branches: list[Branch] = []
    for leg, places in network.summed().items():
        if len(places) == 2 and whole.issuperset(places):
            near = _joined(network, start, whole, leg)
            if near != whole:
                (end,) = (place for place in places if place not in near)
                block &= near
                branches.append((end, (leg,), whole - near))
    # Those on other branches are theirs.
    branches = [branch for branch in branches if not any(branch[2] < other[2] for other in branches)]
    loose = part - whole
    while loose:
        own = _joined(network, min(loose), loose)
        branches.append((min(own), (), own))
        loose -= own
    return block, branches


def _joined(network: Network, start: int, part: Part, without: int | None = None) -> Part:
    """Return the nodes of a part that hang together with one of them by legs that are summed."""
    found, waiting = {start}, [start]
    legs = network.summed()
    while waiting:
        for leg in network.nodes[waiting.pop()].legs:
            new = {*legs.get(leg, ())} & part - found if leg != without else ()
            found.update(new)
            waiting += new
    return frozenset(found)


def _open(network: Network, part: Part) -> set[int]:
    """Return the open legs of some nodes."""
    summed = network.summed()
    return {leg for place in part for leg in network.nodes[place].legs if leg not in summed}
