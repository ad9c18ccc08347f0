"""One plan of one mode, step by step: runs of gates are ordered, slices and `pauli` gates reshape what has come out."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import inner_size
from quanta_compiler.kinds.kind import Form, Merging
from quanta_compiler.planner.optimizers import (
    Legs,
    Pairs,
    cheapest,
    contraction_flops,
    find_orders,
    results,
    sequential_order,
    volume,
)
from quanta_compiler.planner.plan import Leaf, PauliPlan, Plan, Step

Order = Callable[[Sequence[Legs], Legs, Sequence[int]], tuple[str, Pairs]]
PauliForms = tuple[Mapping[str, Callable[[int], PauliPlan]], Mapping[str, PauliPlan]]
"""The `pauli` gates that are applied, to a number of vectors, and those whose matrix is made, by name."""


def searched(optimizer: str) -> Order:
    """Return what searches the order of fewest FLOPs."""
    return lambda tensors, output, sizes: cheapest(
        find_orders(tensors, output, sizes, optimizer), tensors, output, sizes
    )


def sequential(tensors: Sequence[Legs], output: Legs, sizes: Sequence[int]) -> tuple[str, Pairs]:
    """Return the order of the gates themselves."""
    return "sequential", sequential_order(len(tensors))


class Assembly:
    """Builds one plan: runs of gates between slices are ordered by `order`, slices reshape what has come out so far.

    So do the `pauli` gates that are applied; of the others the matrix is a leaf.
    """

    def __init__(self, circuit: Circuit, tokens: int | None, order: Order, forms: PauliForms = ({}, {})) -> None:
        self.circuit = circuit
        self.applied, self.made = forms
        self.tokens = tokens
        """The batch; None for an operator."""
        self.order = order
        self.sizes = [leg.size for leg in circuit.legs]
        inputs = set(circuit.inputs) if tokens is None else set()
        self.labels = [leg.axis + ("'" if place in inputs else "") for place, leg in enumerate(circuit.legs)]
        self.leaves: list[Leaf] = []
        self.steps: list[Step] = []
        self.found: list[str] = []
        self.batch: int | None = None
        self.present = set(circuit.inputs)
        self.state: int | None = None
        self.leaves_of: dict[str, list[int]] = {}

    def plan(self, found_on: str = "") -> Plan:
        """Return the plan; `found_on` says what has been done to the circuit before."""
        if self.tokens is not None:
            self.batch = self._new_leg(self.tokens, "n")
            self.state = self._add_leaf(Leaf("input", (self.batch, *self.circuit.inputs)))
        elif self._is_reshaping(self.circuit.gates[0]):
            self.state = self._add_leaf(Leaf("one", ()))
        for part in (part for gate in self.circuit.gates for part in gate.parts or (gate,)):
            if part.form is not Form.RESHAPE:
                self.leaves_of[part.name] = [self._add_leaf(leaf) for leaf in self._leaves(part)]
        for is_reshaping, run in groupby(self.circuit.gates, key=self._is_reshaping):
            if is_reshaping:
                for gate in run:
                    self._reshape(gate)
            else:
                self._contract_run(list(run))
        output = self._finish()
        optimizer = found_on + ("+".join(dict.fromkeys(self.found)) or "dp")
        return Plan(
            tokens=self.tokens or 1,
            batch=self.batch,
            leaves=tuple(self.leaves),
            steps=tuple(self.steps),
            output=output,
            rows=1 if self.batch is not None else len(self.circuit.outputs),
            sizes=tuple(self.sizes),
            labels=tuple(self.labels),
            optimizer=optimizer,
        )

    def _is_reshaping(self, gate: Gate) -> bool:
        return gate.form is Form.RESHAPE or gate.name in self.applied

    def _new_leg(self, size: int, label: str) -> int:
        self.sizes.append(size)
        self.labels.append(label)
        return len(self.sizes) - 1

    def _add_leaf(self, leaf: Leaf) -> int:
        assert not self.steps, "leaves come before steps"
        self.leaves.append(leaf)
        return len(self.leaves) - 1

    def _leaves(self, gate: Gate) -> list[Leaf]:
        """Return the tensors of a gate, in the order in which gate by gate applies them.

        A low-rank gate is two leaves joined by a leg (none where the rank is 1), so that it is applied as B (A x)
        wherever that is cheaper than forming B A. A transposed share reads its owner's storage with rows and columns
        exchanged, and so does a gate of which the transpose is what is made.
        """
        if gate.name in self.applied:
            return [Leaf("angles", (), gate)]
        rows, columns = (self.circuit.size(legs) for legs in (gate.rows, gate.columns))
        inner = inner_size(gate, rows, columns)
        rank = (self._new_leg(inner, "r"),) if inner is not None and inner > 1 else ()
        is_turned = gate.matrix.makes_transpose(*((columns, rows) if gate.transpose else (rows, columns)))
        to, of = (gate.columns, gate.rows) if gate.transpose != is_turned else (gate.rows, gate.columns)
        if gate.form is not Form.FACTORS:
            legs = gate.per + (gate.columns if gate.is_diagonal else to + of)
            return [Leaf("gate", legs, gate, self.made.get(gate.name))]
        stored_b = Leaf("factor_b", (*gate.per, *to, *rank), gate)
        stored_a = Leaf("factor_a", (*gate.per, *rank, *of), gate)
        return [stored_b, stored_a] if gate.transpose else [stored_a, stored_b]

    def _legs(self, tensor: int) -> Legs:
        if tensor < len(self.leaves):
            return frozenset(self.leaves[tensor].legs)
        return self.steps[tensor - len(self.leaves)].legs

    def _add_step(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.leaves) + len(self.steps) - 1

    def _open(self, tensors: Sequence[int], gates: Sequence[Gate]) -> Legs:
        """Return which legs of `tensors` must be left after `gates`: those present, the batch, an operator's inputs."""
        for gate in gates:
            self.present.difference_update(gate.columns)
            self.present.update(gate.rows)
        kept = set(self.present)
        if self.batch is not None:
            kept.add(self.batch)
        if self.tokens is None:
            kept.update(self.circuit.inputs)
        return frozenset(leg for tensor in tensors for leg in self._legs(tensor) if leg in kept)

    def _contract_run(self, gates: list[Gate]) -> None:
        nodes = [] if self.state is None else [self.state]
        for gate in gates:
            # A block is contracted by itself first: that it is one matrix is what the pass decided.
            own = [leaf for part in gate.parts or (gate,) for leaf in self.leaves_of[part.name]]
            if gate.parts:
                legs = frozenset(gate.columns + gate.rows + gate.per)
                # For many small rotations a better order than a greedy one saves nothing.
                is_small = all(part.matrix.merging is Merging.ANGLES for part in gate.parts)
                own = [self._contract(own, legs, searched("greedy") if is_small else self.order)]
            nodes += own
        self.state = self._contract(nodes, self._open(nodes, gates))

    def _contract(self, nodes: Sequence[int], output: Legs, block_order: Order | None = None) -> int:
        tensors = [self._legs(node) for node in nodes]
        optimizer, pairs = (block_order or self.order)(tensors, output, self.sizes)
        if block_order is None and len(nodes) > 2:
            self.found.append(optimizer)
        made = results(tensors, output, pairs)
        names = list(nodes)
        for left, right in pairs:
            legs = made[len(names)]
            flops = contraction_flops(made[left], made[right], legs, self.sizes)
            names.append(self._add_step(Step("contract", (names[left], names[right]), legs, flops)))
        return names[-1]

    def _tie(self, leg: int) -> int:
        """Write out the identity on an input leg that nothing has contracted; return its output side."""
        assert self.state is not None
        new = self._new_leg(self.sizes[leg], self.circuit.legs[leg].axis)
        legs = self._legs(self.state) | {leg, new}
        self.state = self._add_step(Step("tie", (self.state,), legs, 0, axes=(leg, new)))
        return new

    def _reshape(self, gate: Gate) -> None:
        assert self.state is not None
        columns = gate.columns
        if self.tokens is None:
            columns = tuple(self._tie(leg) if leg in self.circuit.inputs else leg for leg in columns)
        legs = (self._legs(self.state) - frozenset(columns)) | frozenset(gate.rows)
        self.present.difference_update(gate.columns)
        self.present.update(gate.rows)
        if gate.name not in self.applied:
            self.state = self._add_step(Step("reshape", (self.state,), legs, 0, gate=gate, axes=columns))
            return
        count = volume(self._legs(self.state) - frozenset(columns), self.sizes)
        pauli = self.applied[gate.name](count)
        inputs = (self.state, *self.leaves_of[gate.name])
        self.state = self._add_step(Step("call", inputs, legs, pauli.flops, gate=gate, axes=columns, pauli=pauli))

    def _finish(self) -> tuple[int, ...]:
        if self.batch is not None:
            return (self.batch, *self.circuit.outputs)
        outputs = tuple(self._tie(leg) if leg in self.circuit.inputs else leg for leg in self.circuit.outputs)
        return (*outputs, *self.circuit.inputs)
