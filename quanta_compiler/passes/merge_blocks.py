"""Compose runs of gates into blocks where one matrix is cheaper to build and apply than its gates are to apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quanta_compiler.ir.circuit import Circuit, Gate

BLOCK_SIZE = 256
"""Blocks contract at most this many indices: past that their matrix no longer stays in a core's first-level caches."""
LOOK_AHEAD = 64
"""Gates looked at for one block, which keeps the pass linear in the number of gates."""


def merge_blocks(circuit: Circuit, tokens: int) -> Circuit:
    """Compose gates on the same axes, on a subset, or on few axes together, where it pays for `tokens` vectors.

    A gate joins a block past others only where it commutes with all of them, so the operator is unchanged. A block
    stays a composition of trainable parameters: it holds its gates in `parts`.
    """
    waiting = list(circuit.gates)
    merged: list[Gate] = []
    while waiting:
        parts = _best_run(circuit, waiting[: LOOK_AHEAD + 1], tokens)
        merged.append(parts[0] if len(parts) == 1 else _block(parts))
        taken = {part.name for part in parts}
        waiting = [gate for gate in waiting if gate.name not in taken]
    return replace(circuit, gates=tuple(merged))


def _best_run(circuit: Circuit, gates: Sequence[Gate], tokens: int) -> list[Gate]:
    """Return the run from the first gate on that saves the most FLOPs; the gate alone where none does."""
    run, best, most = [gates[0]], [gates[0]], 0
    if gates[0].kind in ("slice", "block"):
        return best
    passed_over: set[int] = set()
    for gate in gates[1:]:
        touched = set(gate.columns + gate.per)
        joins = gate.kind not in ("slice", "block", "lowrank") and passed_over.isdisjoint(touched)
        if joins:
            candidate = _block([*run, gate])
            joins = circuit.size(candidate.columns) <= BLOCK_SIZE and circuit.size(candidate.rows) <= BLOCK_SIZE
        if not joins:
            passed_over.update(touched, gate.rows)
            continue
        run.append(gate)
        saved = _saved_flops(circuit, run, tokens)
        if saved >= most and saved > 0:
            best, most = list(run), saved
    return best


def _saved_flops(circuit: Circuit, run: Sequence[Gate], tokens: int) -> int:
    separate = sum(_apply_flops(circuit, gate, tokens) for gate in run)
    build = 0
    for count in range(2, len(run) + 1):
        block = _block(run[:count])
        # Each part is contracted into the matrix of those before it, whose open columns act as the batch.
        build += 2 * circuit.size(block.rows + block.columns + block.per) * circuit.size(run[count - 1].columns)
    return separate - build - _apply_flops(circuit, _block(run), tokens)


def _apply_flops(circuit: Circuit, gate: Gate, tokens: int) -> int:
    """Return what `gate` costs on a state of the circuit's width: a block's own legs stand for its share of it."""
    rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
    width = max(circuit.in_size, circuit.out_size)
    if gate.kind == "diagonal":
        return tokens * width
    if gate.kind == "lowrank":
        return 2 * tokens * (gate.rank or 1) * (rows + columns) * max(1, width // max(rows, columns))
    return 2 * tokens * min(rows, columns) * width


def _block(parts: Sequence[Gate]) -> Gate:
    """Return the composition of gates: open legs are those that it does not make and use up itself."""
    read: list[int] = []
    made: list[int] = []
    through: list[int] = []
    for gate in parts:
        passing = gate.per + (gate.columns if gate.rows == gate.columns else ())
        through += [leg for leg in passing if leg not in made and leg not in through]
        for leg in gate.columns:
            if leg in passing:
                continue
            if leg in made:
                made.remove(leg)
                continue
            read.append(leg)
            if leg in through:
                through.remove(leg)
        made += [leg for leg in gate.rows if leg not in passing]
    return Gate(
        name="+".join(gate.name for gate in parts),
        kind="block",
        columns=tuple(read),
        rows=tuple(made),
        per=tuple(through),
        position=parts[0].position,
        parameter="",
        parts=tuple(parts),
    )
