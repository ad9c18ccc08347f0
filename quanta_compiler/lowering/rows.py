"""Operator -> gate table: the last steps of its plan as a circuit that is applied to its first legs' indices.

The operator of a circuit is contracted along a chain. Towards its end a tensor has legs that no later step reads, and
where these are the first ones of the result, each of their indices is a token: the rest of the chain maps its vector to
some rows of the matrix, which so are made in order, without a copy, by whatever carries out gate tables.
"""

from dataclasses import dataclass

from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.lowering.table import GateTable, MatrixSource, NamedStep, StepLegs, table_of
from quanta_compiler.planner.plan import Plan

_SHARE = 4
"""The vectors have at most this part of the numbers of the matrix: they are held while it is made."""
_LEAST_TOKENS = 64
"""With fewer a table gains nothing: a kernel takes 16 at a time."""

Legs = tuple[int, ...]
Chain = list[tuple[int, int]]
"""Tensors of a plan, each with the one that is contracted into it to make the next."""


@dataclass(frozen=True, slots=True)
class OperatorRows:
    """An operator as vectors, contracted by pairs, and the table that makes rows of the matrix of each of them."""

    plan: Plan
    vectors: int
    """The tensor of the plan that has the vectors."""
    tokens: Legs
    """Its legs that number them: the first ones of the result."""
    matrices: tuple[tuple[int, Legs], ...]
    """For every entry of the table the tensor of the plan that is its matrices, and its legs in their order."""
    table: GateTable

    @property
    def count(self) -> int:
        """Return how many vectors there are."""
        return self.plan.size(self.tokens)


def operator_rows(plan: Plan, circuit: Circuit) -> OperatorRows | None:
    """Return the operator of a circuit as rows that a table makes; None where it cannot be, or not with gain.

    That is where the matrix is cut or padded, where something is computed from what is stored, or no contraction.
    """
    widths = circuit.in_features, circuit.out_features
    is_stored = all(leaf.gate is not None and not leaf.gate.matrix.is_made for leaf in plan.leaves)
    if widths != (circuit.in_size, circuit.out_size) or any(step.op != "contract" for step in plan.steps):
        return None
    if not is_stored or any(leaf.gate is not None and leaf.gate.block_of for leaf in plan.leaves):
        return None
    chain = _chain(plan)
    place = _beginning(plan, chain)
    return None if place is None else _rows(plan, _tokens(plan, chain[place:]), chain[place:])


def _beginning(plan: Plan, chain: Chain) -> int | None:
    """Return where the table begins: late, so that there are many tokens, and at the first of tensors as large."""
    most = plan.size(plan.output) // _SHARE
    sizes = [plan.size(plan.legs(vectors)) for vectors, _ in chain]
    last = next((place for place in reversed(range(len(chain))) if sizes[place] <= most), None)
    if last is None or plan.size(tokens := _tokens(plan, chain[last:])) < _LEAST_TOKENS:
        return None
    alike = (place for place in range(last + 1) if sizes[place] <= sizes[last])
    return next(place for place in alike if _tokens(plan, chain[place:]) == tokens)


def _chain(plan: Plan) -> Chain:
    """Return the tensors on the way of the operator's first leg, each with the one that is contracted into it."""
    found: Chain = []
    tensor = len(plan.leaves) + len(plan.steps) - 1
    while tensor >= len(plan.leaves):
        state, side = plan.steps[tensor - len(plan.leaves)].inputs
        if plan.output[0] not in plan.legs(state):
            state, side = side, state
        found.append((state, side))
        tensor = state
    return found[::-1]


def _tokens(plan: Plan, chain: Chain) -> Legs:
    """Return the first legs of the operator's rows that the first tensor of a chain has and nothing reads after it."""
    free = plan.legs(chain[0][0]).difference(*(plan.legs(side) for _, side in chain))
    count = next((place for place, leg in enumerate(plan.output[: plan.rows]) if leg not in free), plan.rows)
    return plan.output[:count]


def _rows(plan: Plan, tokens: Legs, chain: Chain) -> OperatorRows:
    vectors = chain[0][0]
    inputs = tuple(sorted(plan.legs(vectors).difference(tokens)))
    present, steps, matrices = inputs, list[NamedStep](), list[tuple[int, Legs]]()
    for place, (state, side) in enumerate(chain):
        after = plan.legs(chain[place + 1][0]) if place + 1 < len(chain) else frozenset(plan.output)
        given = plan.legs(side)
        per = tuple(leg for leg in present if leg in given and leg in after)
        columns = tuple(leg for leg in present if leg in given and leg not in after)
        rows = tuple(sorted(given - plan.legs(state)))
        rest = tuple(leg for leg in present if leg not in given)
        gate = plan.leaves[_first_leaf(plan, side)].gate
        assert gate is not None
        steps.append((gate.name, MatrixSource(gate, "", plan.sizes), StepLegs(per, rest, columns, rows)))
        matrices.append((side, per + rows + columns))
        present = (*per, *rest, *rows)
    table = table_of(steps, inputs, plan.output[len(tokens) :], plan.sizes, plan.labels)
    return OperatorRows(plan, vectors, tokens, tuple(matrices), table)


def _first_leaf(plan: Plan, tensor: int) -> int:
    while tensor >= len(plan.leaves):
        tensor = min(plan.steps[tensor - len(plan.leaves)].inputs)
    return tensor
