"""Plan -> Program: every tensor gets a layout, and as few are moved as the plan allows.

The steps from a chosen leaf to the result form a chain; what joins it from the side has been lowered before. Along the
chain a beam of layouts is kept, cheapest first, where cost is the number of elements moved. A product may leave the new
legs in front or behind, in any order (the gate's rows are permuted, not the state), so one copy can serve several
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest

from quanta_compiler.lowering.moves import (
    ContractionMoves,
    Move,
    Situation,
    ordered,
    pick_moves,
    present,
    shared_runs,
    slice_moves,
    tie_moves,
)
from quanta_compiler.lowering.program import (
    Access,
    Call,
    Copy,
    Function,
    Groups,
    Layout,
    Load,
    Maker,
    Matmul,
    Multiply,
    Operation,
    Pick,
    Resize,
    Tie,
)
from quanta_compiler.lowering.slicing import Slicing
from quanta_compiler.planner.plan import Plan, Step

Called = tuple[Function | None, Maker]
"""What a structured gate needs; one of its blocks needs no function."""

BEAM = (2, 24)
"""Layouts kept after every step, at the least and at the most: more found nothing better on the examples."""
BEAM_STEPS = 800
"""Layouts looked at along one chain, which bounds the time that a long one takes."""
FORESIGHT = 3
"""Later steps whose legs a copy may put in place."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A layout reached after some steps of a chain, and how."""

    cost: int
    layout: Layout
    earlier: _Node | None = None
    move: Move | None = None
    """How the layout was reached from the earlier one."""


@dataclass(frozen=True, slots=True)
class _Link:
    """A step of a chain: what joins from the side is a value already. Without a step: where the loop is entered."""

    tensor: int
    step: Step | None
    side: int | None
    is_inside: bool = False
    """Whether the loop runs it, once for every slice."""


class Lowering:
    """Gathers the operations that carry out a plan, or a slicing of one."""

    def __init__(self, plan: Plan, functions: Mapping[int, Called], slicing: Slicing | None = None) -> None:
        self.plan = plan
        self.functions = functions
        """For structured gates, by the tensor of the plan that each makes."""
        self.slicing = slicing
        self.fixed = frozenset(slicing.legs) if slicing is not None else frozenset[int]()
        self.slices = slicing.slices if slicing is not None else 1
        self.inside = slicing.inside if slicing is not None else frozenset[int]()
        self.operations: list[Operation] = []
        self.cost = 0
        """What the chosen layouts cost, in elements moved."""
        self.has_input = [leaf.source == "input" for leaf in plan.leaves]
        """Of which tensors the input is a part."""
        for step in plan.steps:
            self.has_input.append(any(self.has_input[tensor] for tensor in step.inputs))

    def lower(self, tensor: int, target: Layout, rows: int | None = None) -> int:
        """Emit the operations that compute `tensor`; return its value.

        With `rows` it stands in the layout `target` at last, a matrix whose rows are this number of legs. Without, the
        reader brings it into that order: a slice, as it is written.
        """
        # By hand, not by recursion: chains join chains as deep as a circuit is long.
        waiting, chains = [tensor], []
        while waiting:
            root = waiting.pop()
            chain, start = self._chain(root)
            chains.append((root, chain, start))
            waiting += [side for _, side in chain if side is not None]
        values: dict[int, int] = {}
        for root, chain, start in reversed(chains):
            links = [
                _Link(node, self._step(node), None if side is None else values[side], node in self.inside)
                for node, side in chain
            ]
            self._add_entry(root, start, links)
            leaf = self.plan.leaves[start]
            value = self._add(Load(len(self.operations), leaf.legs, leaf, *self.functions.get(start, ())))
            for move, link in self._best_moves(leaf.legs, links, target if root == tensor else None):
                value = self._emit(value, move, link)
            values[root] = value
        if rows is not None and self.operations[value].layout != target:
            return self._copy(value, target, (target[:rows], target[rows:]))
        return value

    def _add_entry(self, root: int, start: int, links: list[_Link]) -> None:
        """Add the place where a chain comes into the loop, if it does: from there on it has fewer legs."""
        outer = next((place for place, link in enumerate(links) if link.is_inside), len(links))
        before = links[outer - 1].tensor if outer else start
        if self.slicing is None or self.fixed.isdisjoint(self.plan.legs(before)):
            return
        if outer < len(links) or self.slicing.consumes_in_loop(root):
            links.insert(outer, _Link(before, None, None))

    def _chain(self, tensor: int) -> tuple[list[tuple[int, int | None]], int]:
        """Return the steps from a leaf up to `tensor`, each with what joins it from the side, and the leaf."""
        chain: list[tuple[int, int | None]] = []
        while tensor >= len(self.plan.leaves):
            step = self._step(tensor)
            heavy = self._heavy(tensor)
            chain.append((tensor, next((node for node in step.inputs if node != heavy), None)))
            tensor = heavy
        return chain[::-1], tensor

    def _step(self, tensor: int) -> Step:
        return self.plan.steps[tensor - len(self.plan.leaves)]

    def _heavy(self, tensor: int) -> int:
        """Return the input of a step that the chain goes through: the one with more numbers, where it is computed."""
        step = self._step(tensor)
        fixed = self.fixed if tensor in self.inside else frozenset[int]()

        def weight(node: int) -> tuple[bool, int]:
            return self.has_input[node], self.plan.size(self.plan.legs(node) - fixed)

        return max(step.inputs, key=weight)

    def _best_moves(self, start: Layout, links: list[_Link], target: Layout | None) -> list[tuple[Move, _Link]]:
        needs = [self._needs(link) for link in links]
        width = max(BEAM[0], min(BEAM[1], BEAM_STEPS // max(1, len(links))))
        beam = [_Node(0, start)]
        for place, link in enumerate(links):
            situation = Situation(self.plan.sizes, tuple(needs[place + 1 : place + 1 + FORESIGHT]), target)
            times = self.slices if link.is_inside else 1
            moves_from = self._moves(frozenset(beam[0].layout), link, situation)
            reached: dict[Layout, tuple[int, _Node, Move]] = {}
            for node in beam:
                for move in moves_from(node.layout):
                    cost = node.cost + move.cost * times
                    known = reached.get(move.after)
                    if known is None or cost < known[0]:
                        reached[move.after] = (cost, node, move)
            kept = nsmallest(width, [(cost, layout) for layout, (cost, _, _) in reached.items()])
            beam = [_Node(cost, layout, *reached[layout][1:]) for cost, layout in kept]
        closing = Situation(self.plan.sizes, (), target)
        write_cost = closing.write_cost(beam[0].layout)

        def total(node: _Node) -> tuple[int, Layout]:
            if target is None or node.layout == target:
                return node.cost, node.layout
            # What is in another order is moved once more, a slice as it is written to its place.
            return node.cost + closing.copy_cost(node.layout, target, write_cost) * self.slices, node.layout

        best = min(beam, key=total)
        self.cost += total(best)[0]
        last: _Node | None = best
        found: list[Move] = []
        while last is not None and last.move is not None:
            found.append(last.move)
            last = last.earlier
        return list(zip(reversed(found), links, strict=True))

    def _needs(self, link: _Link) -> frozenset[int]:
        """Return the legs that a step wants together at an end of the layout."""
        step = link.step
        if step is None:
            return self.fixed
        if step.op in ("reshape", "call"):
            return frozenset(step.axes)
        if link.side is None:
            return frozenset()
        return frozenset(self.operations[link.side].layout) - step.legs

    def _moves(self, state: frozenset[int], link: _Link, situation: Situation) -> Callable[[Layout], Iterable[Move]]:
        step = link.step
        if step is None:
            return lambda layout: pick_moves(layout, self.fixed, situation)
        if step.gate is not None:
            rows, at_end = step.gate.rows, step.op == "call"
            return lambda layout: slice_moves(layout, step.axes, rows, situation, at_end=at_end)
        if step.op == "tie":
            return lambda layout: tie_moves(layout, step.axes[0], step.axes[1], situation)
        assert link.side is not None
        result = step.legs - self.fixed if link.is_inside else step.legs
        return ContractionMoves(state, self.operations[link.side].layout, result, situation).moves

    def _add(self, operation: Operation) -> int:
        self.operations.append(operation)
        return operation.result

    def _copy(self, value: int, layout: Layout, groups: Groups) -> int:
        # A reshape only merges dimensions: beside a batch that is not known, it cannot take one apart.
        starts = {group[0] for group in groups if group} if self.plan.batch in layout else set[int]()
        source = shared_runs(self.operations[value].layout, layout, starts)
        return self._add(Copy(len(self.operations), layout, Access(value, source), groups))

    def _pick(self, value: int, move: Move) -> int:
        assert self.slicing is not None
        layout = self.operations[value].layout
        picked = tuple(leg for leg in self.slicing.legs if leg in layout)
        groups = shared_runs(layout, move.after)
        return self._add(Pick(len(self.operations), move.after, Access(value, (picked, *groups)), groups))

    def _emit(self, value: int, move: Move, link: _Link) -> int:
        step = link.step
        if step is None:
            return self._pick(value, move)
        if step.op == "contract":
            return self._emit_contraction(value, move, link)
        if step.op == "tie":
            old, new = step.axes
            held = (old,) if old in self.operations[value].layout else ()
            access, groups = Access(value, (*move.groups, held)), tuple((leg,) for leg in move.after)
            return self._add(Tie(len(self.operations), move.after, access, groups, (new, old), "tie"))
        assert step.gate is not None
        if move.copy is not None:
            value = self._copy(value, move.copy, ordered(move.groups, move.copy))
        rows, (before, _, after) = step.gate.rows, move.groups
        if step.op == "call":
            assert link.side is not None
            function, maker = self.functions[link.tensor]
            assert function is not None
            return self._add(
                Call(
                    result=len(self.operations),
                    layout=move.after,
                    source=Access(value, (before, step.axes)),
                    groups=(before, rows),
                    function=function,
                    flops=step.flops,
                    label=step.gate.name,
                    gate=step.gate,
                    angles=Access(link.side, ()),
                    maker=maker,
                )
            )
        return self._add(
            Resize(
                result=len(self.operations),
                layout=move.after,
                source=Access(value, move.groups),
                groups=(before, rows, after),
                old_size=self.plan.size(step.axes),
                new_size=self.plan.size(rows),
                label=step.gate.name,
            )
        )

    def _emit_contraction(self, value: int, move: Move, link: _Link) -> int:
        side = link.side
        assert side is not None
        assert link.step is not None
        label = self._label(link.tensor)
        flops = link.step.flops
        if link.is_inside:
            flops = flops // self.plan.size(self.fixed) * self.slices
        if not move.side_groups:
            if move.side_copy is not None:
                side = self._copy(side, move.side_copy, ordered(move.groups, move.side_copy))
            left, right = (Access(one, present(move.groups, self.operations[one].layout)) for one in (value, side))
            groups = tuple(one or other for one, other in zip(left.groups, right.groups, strict=True))
            return self._add(Multiply(len(self.operations), move.after, left, right, groups, flops, label))
        if move.copy is not None:
            value = self._copy(value, move.copy, ordered(move.groups, move.copy))
        if move.side_copy is not None:
            side = self._copy(side, move.side_copy, ordered(move.side_groups, move.side_copy))
        batch, kept, contracted = move.groups
        _, _, new = move.side_groups
        lead = (batch,) if batch else ()
        if move.swapped:
            left, right = Access(side, (*lead, new, contracted)), Access(value, (*lead, contracted, kept))
        else:
            left, right = Access(value, (*lead, kept, contracted)), Access(side, (*lead, contracted, new))
        groups = (*left.groups[:-1], right.groups[-1])
        return self._add(Matmul(len(self.operations), move.after, left, right, groups, flops, label))

    def _label(self, tensor: int) -> str:
        """Return the gates that a step brings to the chain."""
        heavy = self._heavy(tensor)
        names: dict[int, str] = {}
        # The leaf that the chain begins with enters with its first step.
        waiting = [node for node in self._step(tensor).inputs if node != heavy or node < len(self.plan.leaves)]
        while waiting:
            node = waiting.pop()
            if node >= len(self.plan.leaves):
                waiting += self._step(node).inputs
                continue
            gate = self.plan.leaves[node].gate
            if gate is not None:
                names[gate.position] = gate.name
        return ", ".join(names[position] for position in sorted(names))
