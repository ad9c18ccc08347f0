"""Compose runs of gates into blocks where one matrix is cheaper to build and apply than its gates are to apply."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quanta_compiler.ir.circuit import Block, Circuit, Gate
from quanta_compiler.kinds.kind import Merging

LOOK_AHEAD = 64
"""Gates looked at for one block, which keeps the pass linear in the number of gates."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which gates become blocks, and what is saved by it."""

    merging: Merging
    """What their kinds say of it."""
    largest: int
    """Blocks contract at most this many indices."""
    memory_flops: int
    """What going through the memory once costs, in FLOPs for every number: nothing where FLOPs alone count."""
    numbers: int | None = None
    """The matrices of a block have at most this many together, where there is a limit."""


BLOCKS = Policy(
    merging=Merging.BLOCKS,
    # Past that their matrix no longer stays in a core's first-level caches.
    largest=256,
    memory_flops=0,
)


def merge_blocks(circuit: Circuit, tokens: int, policy: Policy = BLOCKS) -> Circuit:
    """Compose gates on the same axes, on a subset, or on few axes together, where it pays for `tokens` vectors.

    A gate joins a block past others only where it commutes with all of them, so the operator is unchanged. A block
    stays a composition of trainable parameters: it holds its gates in `parts`. Where nothing is merged, that is the
    circuit itself.
    """
    gates: tuple[Gate, ...] = ()
    merged = circuit.gates
    while len(merged) != len(gates):
        # A gate that found nobody may find a partner once the gates that it would have taken first are in blocks.
        gates, merged = merged, _sweep(circuit, merged, tokens, policy)
    return circuit if len(merged) == len(circuit.gates) else replace(circuit, gates=merged)


def _sweep(circuit: Circuit, gates: Sequence[Gate], tokens: int, policy: Policy) -> tuple[Gate, ...]:
    waiting = list(gates)
    merged: list[Gate] = []
    while waiting:
        near, far = waiting[: LOOK_AHEAD + 1], waiting[LOOK_AHEAD + 1 :]
        parts = _best_run(circuit, near, tokens, policy)
        merged.append(parts[0] if len(parts) == 1 else _block(parts))
        taken = {part.name for part in parts}
        waiting = [gate for gate in near if gate.name not in taken] + far
    return tuple(merged)


def _best_run(circuit: Circuit, gates: Sequence[Gate], tokens: int, policy: Policy) -> list[Gate]:
    """Return the run from the first gate on that saves the most; the gate alone where none does."""
    best, most = [gates[0]], 0
    if gates[0].matrix.merging is not policy.merging:
        return best
    run = _Run(circuit, tokens, policy)
    run.add(gates[0])
    passed_over: set[int] = set()
    for gate in gates[1:]:
        touched = gate.columns + gate.per
        if gate.matrix.merging is not policy.merging or not passed_over.isdisjoint(touched) or not run.has_room(gate):
            passed_over.update(touched, gate.rows)
            continue
        run.add(gate)
        saved = run.saved_flops()
        if saved >= most:
            best, most = list(run.gates), saved
    return best


class _Run:
    """Gates composed so far, with the legs of their product and what it costs."""

    def __init__(self, circuit: Circuit, tokens: int, policy: Policy) -> None:
        self.circuit = circuit
        self.tokens = tokens
        self.policy = policy
        self.width = max(circuit.in_size, circuit.out_size)
        self.gates: list[Gate] = []
        self.legs = _OpenLegs()
        self.build = 0
        self.separate = 0

    def has_room(self, gate: Gate) -> bool:
        """Return whether the product with `gate` still contracts few enough indices."""
        new = [leg for leg in gate.columns if leg not in self.legs.made]
        limit = self.policy.numbers
        if limit is not None and self.circuit.size(_OpenLegs([*self.gates, gate]).all) > limit:
            return False
        return self.circuit.size((*self.legs.read, *new)) <= self.policy.largest

    def add(self, gate: Gate) -> None:
        self.legs.add(gate)
        if self.gates:
            # Each gate is contracted into the matrix of those before it, whose open columns act as the batch.
            self.build += 2 * self.circuit.size(self.legs.all) * self.circuit.size(gate.columns)
        self.gates.append(gate)
        self.separate += self._apply_flops(gate.rows, gate.columns, diagonal=gate.is_diagonal)

    def saved_flops(self) -> int:
        """Return what the product saves against its gates one by one, what it costs to build included."""
        together = self._apply_flops(tuple(self.legs.made), tuple(self.legs.read), diagonal=not self.legs.read)
        return self.separate - self.build - together

    def _apply_flops(self, rows: tuple[int, ...], columns: tuple[int, ...], *, diagonal: bool) -> int:
        per_number = 1 if diagonal else 2 * min(self.circuit.size(rows), self.circuit.size(columns))
        return self.tokens * self.width * (per_number + self.policy.memory_flops)


class _OpenLegs:
    """The legs of a product of gates: those that they do not make and use up among themselves, in order."""

    def __init__(self, gates: Sequence[Gate] = ()) -> None:
        self.read: dict[int, None] = {}
        self.made: dict[int, None] = {}
        self.through: dict[int, None] = {}
        for gate in gates:
            self.add(gate)

    @property
    def all(self) -> tuple[int, ...]:
        return (*self.read, *self.made, *self.through)

    def add(self, gate: Gate) -> None:
        diagonal = gate.rows == gate.columns
        for leg in gate.per + (gate.columns if diagonal else ()):
            if leg not in self.made:
                self.through.setdefault(leg)
        if diagonal:
            return
        for leg in gate.columns:
            if leg in self.made:
                del self.made[leg]
                continue
            self.read[leg] = None
            self.through.pop(leg, None)
        self.made.update(dict.fromkeys(gate.rows))


def _block(parts: Sequence[Gate]) -> Gate:
    legs = _OpenLegs(parts)
    return Gate(
        name="+".join(gate.name for gate in parts),
        matrix=Block(),
        columns=tuple(legs.read),
        rows=tuple(legs.made),
        per=tuple(legs.through),
        position=parts[0].position,
        parameter="",
        parts=tuple(parts),
    )
