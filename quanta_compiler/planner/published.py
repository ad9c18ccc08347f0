"""A plan as others read it: one einsum over whole gates, and opt_einsum's linear path through it."""

from collections.abc import Mapping, Sequence

from opt_einsum.parser import get_symbol

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.network import Network
from quanta_compiler.planner.plan import Plan


def einsum_equation(network: Network) -> str:
    """Return the network as an einsum equation, symbols in the order of their first appearance."""
    return equation([operand.legs for operand in network.operands], network.output)


def equation(terms: Sequence[Sequence[int]], output: Sequence[int]) -> str:
    """Return an einsum equation of operands that have these legs."""
    legs = dict.fromkeys(leg for term in terms for leg in term)
    symbols = {leg: get_symbol(place) for place, leg in enumerate(legs)}
    *inputs, result = ("".join(symbols[leg] for leg in term) for term in (*terms, output))
    return f"{','.join(inputs)}->{result}"


def linear_path(plan: Plan, circuit: Circuit, network: Network) -> list[tuple[int, ...]]:
    """Return the plan's order over the operands of `network`, in opt_einsum's linear format.

    The network has one operand for a low-rank gate, which the plan may bring in factor by factor: the gate stands
    where its B enters, and a `pauli` gate where the first of its blocks does. Identities on axes of size 1, which the
    plan leaves out, come last.
    """
    if len(network.operands) == 1:
        # A lone operand still has to be brought into the order of the output.
        return [(0,)]
    positions = {gate.name: place for place, gate in enumerate(circuit.gates_in_file_order())}
    offset = 1 if plan.batch is not None else 0
    first_eye = offset + len(positions)
    # An identity by the axis that it stands for.
    input_legs = {place: operand.legs[1] for place, operand in list(enumerate(network.operands))[first_eye:]}
    eyes = {circuit.legs[leg].axis: place for place, leg in input_legs.items() if circuit.legs[leg].size > 1}
    unit_eyes = [place for place, leg in input_legs.items() if circuit.legs[leg].size == 1]
    nodes = _leaf_places(plan, positions, offset)
    live = list(range(len(network.operands)))
    path: list[tuple[int, ...]] = []

    def contract(left: int | None, right: int | None) -> int | None:
        if left is None or right is None:
            return right if left is None else left
        places = sorted((live.index(left), live.index(right)))
        path.append((places[0], places[1]))
        del live[places[1]], live[places[0]]
        live.append(len(network.operands) + len(path) - 1)
        return live[-1]

    final = len(plan.leaves) + len(plan.steps) - len(plan.closing_ties)
    for step in plan.steps:
        operands = [nodes[node] for node in step.inputs]
        if step.op == "reshape" and step.gate is not None:
            operands.append(offset + positions[step.gate.name])
        elif step.op == "tie":
            # An identity in front of a slice is no operand of its own: the slice is contracted with the input leg. Nor
            # is that of a bit that a `pauli` gate does not turn.
            axis = plan.labels[step.axes[0]].removesuffix("'")
            operands.append(eyes.get(axis) if len(nodes) >= final else None)
        nodes.append(contract(operands[0], operands[1]))
    result = nodes[-1]
    for eye in unit_eyes:
        result = contract(result, eye)
    assert len(live) <= 1, "a plan contracts the whole network"
    return path


def _leaf_places(plan: Plan, positions: Mapping[str, int], offset: int) -> list[int | None]:
    """Return which operand each leaf is; None for one whose gate stands at another leaf, and for a scalar."""
    places: list[int | None] = []
    entered: set[str] = set()
    for leaf in plan.leaves:
        if leaf.source == "input":
            places.append(0)
        # The gate of two factors stands at the one that multiplies last: B, or A of a transpose.
        elif leaf.gate is None or leaf.source == ("factor_b" if leaf.gate.transpose else "factor_a"):
            places.append(None)
        elif leaf.gate.block_of is not None:
            owner = leaf.gate.block_of.name
            places.append(None if owner in entered else offset + positions[owner])
            entered.add(owner)
        else:
            places.append(offset + positions[leaf.gate.name])
    return places
