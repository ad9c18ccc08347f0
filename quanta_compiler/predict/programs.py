"""What a program asks of a machine: its operations on torch, and what autograd makes of them.

A product has one more for every operand that needs a gradient, and a copy into another order goes back by another copy.
"""

from __future__ import annotations

from quanta_compiler.lowering.account import ELEMENT_BYTES
from quanta_compiler.lowering.lie_costs import is_trained
from quanta_compiler.lowering.ownership import copies_input
from quanta_compiler.lowering.program import (
    Copy,
    Groups,
    Load,
    Matmul,
    Multiply,
    PauliProgram,
    Program,
    Resize,
    Rotate,
    is_computed,
    pauli_gates,
    sources,
)
from quanta_compiler.predict.rotations import blocks_work, cosine_sine_work, orthogonal_work, ry_work
from quanta_compiler.predict.steps import Value, Walk, copy, cut_or_pad, matmul, multiply, resize
from quanta_compiler.predict.work import Pass, Work


def program_work(program: Program) -> Work:
    """Return the work of a batch of the size that a program was planned for, its input requiring a gradient."""
    walk = _walk_of(program)
    tokens = program.plan.tokens
    resize(walk, tokens, program.in_features, program.in_size, needs_grad=True)
    _run(walk, input_needs_grad=True)
    needs_grad = walk.values[program.output].needs_grad
    resize(walk, tokens, program.out_size, program.out_features, needs_grad=needs_grad)
    if copies_input(program):
        walk.forward.append(Pass(2 * ELEMENT_BYTES * tokens * program.out_features))
    return Work(tuple(walk.forward), tuple(reversed(walk.backward)))


def _walk_of(program: Program, trains: bool | None = None) -> Walk:
    """Return a walk at its start; `trains` says whether the blocks of a `pauli` gate do."""
    readers = {one.value: reader for reader in program.operations for one in sources(reader)}
    gates = [operation.leaf.gate for operation in program.operations if isinstance(operation, Load)]
    turns = {(gate.parameter, gate.angle): gate for gate in gates if gate is not None and gate.kind == "ry"}
    return Walk(program, readers, turns=turns, turns_train=any(map(is_trained, turns.values())), trains=trains)


def _run(walk: Walk, *, input_needs_grad: bool) -> None:
    for operation in walk.program.operations:
        if isinstance(operation, Load):
            _load(walk, operation, input_needs_grad)
        elif isinstance(operation, Matmul):
            matmul(walk, operation)
        elif isinstance(operation, Rotate):
            _rotate(walk, operation)
        elif isinstance(operation, Multiply):
            multiply(walk, operation)
        elif isinstance(operation, Copy):
            copy(walk, operation)
        else:
            assert isinstance(operation, Resize), "ties and picks stand in operators only"
            cut_or_pad(walk, operation)


def _made(program: Program, load: Load) -> Groups:
    """Return the dimensions of a leaf: those of the input are the batch and all others."""
    batch = program.plan.batch
    if load.leaf.kind != "input" or batch is None:
        return tuple((leg,) for leg in load.layout)
    return (batch,), tuple(leg for leg in load.layout if leg != batch)


def _load(walk: Walk, load: Load, input_needs_grad: bool) -> None:
    gate = load.leaf.gate
    needs_grad = input_needs_grad if gate is None else is_trained(gate) if walk.trains is None else walk.trains
    if gate is not None and gate.kind == "ry":
        needs_grad = walk.turns_train
    walk.values[load.result] = Value(load.layout, needs_grad, _made(walk.program, load))
    if is_computed(load):
        _compute(walk, load, needs_grad)


def _compute(walk: Walk, load: Load, needs_grad: bool) -> None:
    """Add what makes a leaf from what is stored, the first time that it is needed.

    The signs of a CZ take next to nothing.
    """
    gate = load.leaf.gate
    assert gate is not None
    # No gate has a space in its name.
    key = "all ry" if gate.kind == "ry" else gate.parameter
    if gate.kind == "cz" or key in walk.computed:
        return
    walk.computed.add(key)
    if gate.kind == "ry":
        walk.include(ry_work(sum(walk.volume(one.per) for one in walk.turns.values()), needs_grad=needs_grad))
        return
    blocks = walk.volume(gate.per)
    if load.pauli is None:
        walk.include(orthogonal_work(gate, blocks, walk.volume(gate.rows), walk.volume(gate.columns)))
        return
    _make_blocks(walk, load.pauli)
    for _ in range(blocks):
        _apply_pauli(walk, load.pauli, input_needs_grad=False, trains=needs_grad)
    if gate.per:
        # The matrices of all indices are put together.
        size = 2 * ELEMENT_BYTES * blocks * load.pauli.plan.count * load.pauli.plan.size
        walk.add(Pass(size), *([Pass(size)] if needs_grad else []))


def _rotate(walk: Walk, operation: Rotate) -> None:
    """Add a rotation of the last dimension, which is padded to the gate's size before or cut behind."""
    source, angles = walk.values[operation.source.value], walk.values[operation.angles.value]
    others, columns = map(walk.volume, operation.source.groups)
    size = operation.pauli.plan.size
    _make_blocks(walk, operation.pauli)
    resize(walk, others, columns, size, source.needs_grad)
    _apply_pauli(walk, operation.pauli, input_needs_grad=source.needs_grad, trains=angles.needs_grad)
    needs_grad = source.needs_grad or angles.needs_grad
    resize(walk, others, size, walk.volume(operation.groups[-1]), needs_grad)
    walk.values[operation.result] = Value(operation.layout, needs_grad, operation.groups)


def _make_blocks(walk: Walk, pauli: PauliProgram) -> None:
    """Add what makes the blocks of all gates that are alike, the first time that they are needed."""
    alike = [gate for gate, other in pauli_gates(walk.program) if other.plan.alike == pauli.plan.alike]
    key = f"blocks {pauli.plan.alike}"
    if key in walk.computed or pauli.blocks is None:
        return
    walk.computed.add(key)
    walk.include(blocks_work(pauli.blocks.plan, needs_grad=any(map(is_trained, alike))))


def _apply_pauli(walk: Walk, pauli: PauliProgram, *, input_needs_grad: bool, trains: bool) -> None:
    if pauli.halves is not None:
        for half in pauli.halves:
            _apply_pauli(walk, half, input_needs_grad=input_needs_grad, trains=trains)
        needs_grad = input_needs_grad or trains
        walk.include(cosine_sine_work(pauli.plan, pauli.plan.count, needs_grad=needs_grad))
        for half in pauli.halves:
            _apply_pauli(walk, half, input_needs_grad=needs_grad, trains=trains)
    if pauli.program is None:
        return
    inner = _walk_of(pauli.program, trains)
    _run(inner, input_needs_grad=input_needs_grad)
    walk.forward += inner.forward
    walk.backward += inner.backward
