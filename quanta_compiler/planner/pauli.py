"""`pauli` gates: applied by their structure, or as a matrix that is made by applying it to few vectors."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.two_design import ANGLES, two_design_circuit
from quanta_compiler.kinds import DEFAULT, SCALING
from quanta_compiler.kinds.kind import Form
from quanta_compiler.kinds.two_design import TURN_FLOPS, counted, pauli_flops, powers_of_two, turned_pairs
from quanta_compiler.passes.absorb_rotations import MEMORY_FLOPS, absorb_rotations
from quanta_compiler.passes.canonical_order import canonical_order
from quanta_compiler.passes.expand_pauli import is_two_design, write_out
from quanta_compiler.planner.assembly import Assembly, PauliForms, searched
from quanta_compiler.planner.optimizers import contraction_flops, results
from quanta_compiler.planner.plan import Alike, Leaf, PartBlocks, PauliPart, PauliPlan, Plan, Step

_PASSES_BETWEEN = 4
"""How often a sum of two halves goes through the memory beside what its halves do: parted, turned, put together."""
_BLOCK_TOKENS = 1024
"""The batch that blocks are chosen for, whatever it is: so gates that are alike have the same blocks."""


def pauli_forms(circuit: Circuit, batch: int, small: int = 0) -> PauliForms:
    """Choose for every `pauli` gate what takes less time on a batch: its structure, or its matrix.

    A matrix of at most `small` numbers is made whatever it takes.

    A matrix [n, k] takes k vectors to make, whatever the batch, and 2 n k FLOPs to apply. No square matrix is made that
    has more rows than the batch has vectors. With `per` every gate is a matrix.
    """
    applied: dict[str, Callable[[int], PauliPlan]] = {}
    made: dict[str, PauliPlan] = {}
    stacks = _stacks(circuit)
    width = circuit.in_size
    for gate in circuit.gates:
        rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
        if gate.form is Form.CIRCUIT:
            count, plan = batch * width // columns, partial(_plan_gate, circuit, gate, stacks)
            # The matrix is made from its smaller side: the first columns of Q, or of its transpose.
            is_wide = rows > columns if gate.transpose else rows < columns
            matrix = plan(min(rows, columns), transpose=is_wide)
            dense = count * (2 * rows * columns + MEMORY_FLOPS * max(rows, columns))
            is_always_made = gate.per or rows * columns <= small
            if is_always_made or _price(matrix) + dense < _price(plan(count, transpose=gate.transpose)):
                made[gate.name] = matrix
            else:
                applied[gate.name] = partial(plan, transpose=gate.transpose)
        width = width // columns * rows
    return applied, made


def write_blocks_out(circuit: Circuit, forms: PauliForms) -> tuple[Circuit, PauliForms]:
    """Return a circuit with the blocks of its two-designs that would be applied in their place, and its forms.

    So an operator is contracted from them, and no rotation is applied to an identity matrix.
    """
    applied, made = forms
    stacks = _stacks(circuit)
    gates = [gate for gate in circuit.gates if gate.name in applied and is_two_design(circuit, gate)]
    plans = {}
    for gate in gates:
        alike = _alike(circuit, gate)
        blocks = plan_blocks(*alike, stacks[alike])
        plans[gate.name] = PauliPlan(*alike, gate.transpose, count=0, flops=0, blocks=blocks)

    def in_blocks(gate: Gate) -> Circuit:
        dense = _of_dense_gates(_in_blocks(*_alike(circuit, gate)), transpose=gate.transpose)
        # Their positions number the blocks, also where a transpose has them in reverse.
        parts = [replace(part, parameter=ANGLES, block=part.position) for part in dense.gates]
        return replace(dense, gates=tuple(parts))

    written = write_out(circuit, gates, in_blocks)
    of_blocks = {gate.name: plans[gate.block_of.name] for gate in written.gates if gate.block_of is not None}
    left = {name: plan for name, plan in applied.items() if name not in plans}
    return written, (left, {**made, **of_blocks})


def one_by_one(circuit: Circuit) -> PauliForms:
    """Return what every `pauli` gate costs applied turn by turn: enough to count, not to execute."""

    def counted(gate: Gate, count: int) -> PauliPlan:
        alike = _alike(circuit, gate)
        return PauliPlan(*alike, gate.transpose, count, count * pauli_flops(*alike))

    return {gate.name: partial(counted, gate) for gate in circuit.gates if gate.form is Form.CIRCUIT}, {}


def _alike(circuit: Circuit, gate: Gate) -> Alike:
    """Return what `pauli` gates have in common that have the same blocks: size, layers, K'."""
    return gate.matrix.two_design(circuit.size(gate.rows), circuit.size(gate.columns))


def _stacks(circuit: Circuit) -> Counter[Alike]:
    """Return how many matrices there are of every kind."""
    owners = {gate.parameter: gate for gate in circuit.gates if gate.form is Form.CIRCUIT}
    stacks: Counter[Alike] = Counter()
    for gate in owners.values():
        stacks[_alike(circuit, gate)] += circuit.size(gate.per)
    return stacks


def _plan_gate(circuit: Circuit, gate: Gate, stacks: Counter[Alike], count: int, *, transpose: bool) -> PauliPlan:
    alike = _alike(circuit, gate)
    return replace(plan_pauli(*alike, count, transpose=transpose), blocks=plan_blocks(*alike, stacks[alike]))


@lru_cache(maxsize=256)
def plan_pauli(size: int, layers: int, kept: int | None, count: int, *, transpose: bool) -> PauliPlan:
    """Plan the orthogonal matrix of a size, or its transpose, on `count` vectors."""
    parts = tuple(_plan_part(power, layers, kept, count, transpose=transpose) for power in powers_of_two(size))
    own = {part.size: part.plan.flops if part.plan is not None else 0 for part in parts}
    flops = counted(size, own.__getitem__, lambda whole: TURN_FLOPS * turned_pairs(whole, kept) * count)
    return PauliPlan(size, layers, kept, transpose, count, flops, parts)


@lru_cache(maxsize=256)
def _plan_part(size: int, layers: int, kept: int | None, count: int, *, transpose: bool) -> PauliPart:
    blocks = _in_blocks(size, layers, kept)
    if not blocks.gates:
        return PauliPart(size)
    circuit = _of_dense_gates(blocks, transpose=transpose)
    return PauliPart(size, Assembly(circuit, count, searched("auto")).plan())


@lru_cache(maxsize=256)
def plan_blocks(size: int, layers: int, kept: int | None, stack: int) -> tuple[PartBlocks, ...]:
    """Plan how the blocks of a number of gates are made."""
    powers = powers_of_two(size)
    parts: list[PartBlocks] = []
    for place, power in enumerate(powers):
        circuit = _in_blocks(power, layers, kept)
        # Twice as often as what it is a half of, which is the same for the last two.
        times = stack << min(place + 1, len(powers) - 1)
        plans = tuple(_plan_block(circuit, gate, times) for gate in circuit.gates)
        parts.append(PartBlocks(power, layers, kept, times, plans))
    return tuple(parts)


@lru_cache(maxsize=256)
def _in_blocks(size: int, layers: int, kept: int | None) -> Circuit:
    """Return the two-design circuit on the wires of a power of two, its gates composed to blocks."""
    return canonical_order(
        absorb_rotations(two_design_circuit(size.bit_length() - 1, layers, kept, transpose=False), _BLOCK_TOKENS)
    )


def _of_dense_gates(blocks: Circuit, *, transpose: bool) -> Circuit:
    """Return a circuit of blocks with every block one dense gate, or the transpose of it all: turned and in reverse."""
    gates: list[Gate] = []
    for place, block in enumerate(blocks.gates):
        # What has no rows and columns of its own only scales.
        is_diagonal = block.is_diagonal or not block.columns
        scaled = block.per + (block.columns if block.is_diagonal else ())
        rows, columns = (scaled, scaled) if is_diagonal else (block.rows, block.columns)
        name, per, matrix = f"block{place}", () if is_diagonal else block.per, SCALING if is_diagonal else DEFAULT
        gate = Gate(name, matrix, columns, rows, per, position=place, parameter=name)
        gates.append(replace(gate, columns=rows, rows=columns, transpose=not is_diagonal) if transpose else gate)
    if not transpose:
        return replace(blocks, gates=tuple(gates))
    return replace(blocks, inputs=blocks.outputs, outputs=blocks.inputs, gates=tuple(reversed(gates)))


def _plan_block(circuit: Circuit, block: Gate, stack: int) -> Plan:
    """Plan the matrix of a block: [stack, *per, *rows, *columns], without the stack where no RY is in it."""
    batch = len(circuit.legs)
    sizes = (*(leg.size for leg in circuit.legs), stack)
    parts = block.parts or (block,)
    leaves = [
        Leaf("gate", part.columns if part.is_diagonal else (batch, *part.rows, *part.columns), part) for part in parts
    ]
    scaled = block.columns if block.is_diagonal else block.rows + block.columns
    lead = (batch,) if any(part.form is Form.ANGLE for part in parts) else ()
    output = (*lead, *block.per, *scaled)
    tensors = [frozenset(leaf.legs) for leaf in leaves]
    # Many small tensors: a better order saves nothing.
    _, pairs = searched("greedy")(tensors, frozenset(output), sizes)
    made = results(tensors, frozenset(output), pairs)
    steps = [
        Step("contract", pair, legs, contraction_flops(made[pair[0]], made[pair[1]], legs, sizes))
        for pair, legs in zip(pairs, made[len(leaves) :], strict=True)
    ]
    return Plan(
        tokens=stack,
        batch=batch,
        leaves=tuple(leaves),
        steps=tuple(steps),
        output=output,
        rows=1,
        sizes=sizes,
        labels=(*(leg.axis for leg in circuit.legs), "n"),
    )


def _price(pauli: PauliPlan) -> int:
    """Return what applying it takes, in FLOPs at the rate of a large product: its FLOPs, and its way through memory."""
    number = MEMORY_FLOPS * pauli.count
    plans = {part.size: part.plan for part in pauli.parts if part.plan is not None}
    own = Counter({size: plan.flops + len(plan.steps) * number * size for size, plan in plans.items()})
    return counted(pauli.size, own.__getitem__, lambda whole: _PASSES_BETWEEN * number * whole)
