"""What computing and applying rotations costs, as the emitted functions (emit/rotations.py) do it on torch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.parameters import made_matrix
from quanta_compiler.ir.two_design import ANGLES
from quanta_compiler.kinds.kind import Form
from quanta_compiler.kinds.two_design import TURN_FLOPS
from quanta_compiler.lowering.account import Account, Books, Elementwise, Making, Storage, Tensor
from quanta_compiler.lowering.functions import made_gates
from quanta_compiler.lowering.program import Function, Load, Maker, Split, Turn

RY_FLOPS = 4
"""An angle halved, its cosine and sine, and the sine with the other sign."""
ANGLE_FLOPS = 3
"""An angle halved, its cosine and sine."""


def ry_passes(count: int, needs_grad: bool) -> tuple[Elementwise, ...]:
    """Return what makes a number of RY: angles halved, their cosines and sines, the sines negated, all put together."""
    return Elementwise(count, count, needs_grad, times=RY_FLOPS), Elementwise(RY_FLOPS * count, 0, needs_grad)


def angle_passes(count: int, needs_grad: bool) -> tuple[Elementwise, ...]:
    """Return what makes the cosines and sines of a number of angles."""
    return (Elementwise(count, count, needs_grad, times=ANGLE_FLOPS),)


def turn_passes(count: int, needs_grad: bool) -> tuple[Elementwise, ...]:
    """Return what turns one number of each pair: two products and their sum."""
    return (Elementwise(count, count, needs_grad, operands=2, times=TURN_FLOPS // 2),)


def compute_leaf(account: Account, load: Load) -> Tensor:
    """Return a leaf that is computed; what serves several leaves is computed once."""
    gate = load.leaf.gate
    assert gate is not None
    if gate.block is not None:
        assert load.maker is not None
        return gate_blocks(account, load.maker)[gate.block]
    if gate.form is Form.ANGLE:
        return _once(account, "all ry", lambda: (_all_ry(account),))[0]
    if gate.form is Form.SIGNS:
        sizes = account.program.plan.gate_size(gate.columns[:-1]), account.program.plan.gate_size(gate.columns[-1:])
        made = _once(account, f"cz {sizes}", lambda: (_signs(account.books, math.prod(sizes)),))[0]
        return replace(made, name=account.names[0] if account.names else gate.parameter)
    if load.function is not None:
        return _once(account, gate.parameter, lambda: (_pauli_matrix(account, load),))[0]
    return _once(account, gate.parameter, lambda: (_made(account, gate),))[0]


def _once(account: Account, key: str, compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return what is computed once; a key with a space in it is no gate's name."""
    if key not in account.computed:
        account.computed[key] = compute()
    return account.computed[key]


def _signs(books: Books, numbers: int) -> Tensor:
    """Count the signs of a CZ, which are padded from a single number."""
    single, signs = books.new_storage(1), books.new_storage(numbers)
    books.free(single)
    return Tensor("", signs, needs_grad=False)


def _all_ry(account: Account) -> Tensor:
    """Count the matrices of every RY of a program, which are one storage."""
    loads = [operation for operation in account.program.operations if isinstance(operation, Load)]
    gates = [load.leaf.gate for load in loads if load.leaf.gate is not None and load.leaf.gate.form is Form.ANGLE]
    owners = {gate.parameter: account.program.plan.gate_size(gate.per) for gate in gates}
    count = sum(owners.values())
    joined = [account.books.new_storage(count)] if len(owners) > 1 else []
    tensor = _ry(account.books, tuple(owners), count, any(gate.trains for gate in gates))
    for storage in joined:
        account.books.free(storage)
    return tensor


def _ry(books: Books, names: tuple[str, ...], count: int, needs_grad: bool) -> Tensor:
    half = books.new_storage(count)
    half.saved = needs_grad
    # The cosine, the sine, and the sine with the other sign.
    parts = [books.new_storage(count) for _ in range(3)]
    name = books.step("elementwise", names, (count, 2, 2), ry_passes(count, needs_grad), RY_FLOPS * count)
    tensor = Tensor(name, books.new_storage(4 * count), needs_grad)
    for storage in (half, *parts):
        books.free(storage)
    return tensor


def gate_blocks(account: Account, maker: Maker) -> tuple[Tensor, ...]:
    """Return the blocks of a gate, which are made for all gates that are alike at once."""

    def compute() -> tuple[Tensor, ...]:
        alike = [gate for gate, other in made_gates(account.program) if other.alike == maker.alike]
        names = tuple(dict.fromkeys(gate.parameter for gate in alike))
        storage = account.books.new_storage(maker.stack * maker.angles)
        angles = Tensor(names[0], storage, any(gate.trains for gate in alike))
        made = _made_blocks(account.books, maker, angles, names)
        account.books.free(storage)
        return made

    return _once(account, f"blocks {maker.alike}", compute) if maker.blocks else ()


def _made_blocks(books: Books, maker: Maker, angles: Tensor, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    if maker.halves:
        return _blocks_of_halves(books, maker, angles, names)
    ry = _ry(books, names, maker.stack * maker.angles, angles.needs_grad)
    made: list[Tensor] = []
    signs: dict[str, tuple[Tensor, ...]] = {}
    for program in maker.programs:
        inner = Account(program, books, given={ANGLES: ry}, computed=signs, names=names)
        books.run(inner)
        made.append(inner.tensors[program.output])
    kept = [one.storage for one in made]
    for storage in (ry.storage, *(tensor.storage for tensors in signs.values() for tensor in tensors)):
        if not any(storage is one for one in kept):
            books.free(storage)
    return tuple(made)


def _blocks_of_halves(books: Books, maker: Maker, angles: Tensor, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Count the blocks of both halves, each for twice as many gates, and the cosines and sines between them."""
    numbers, needs_grad, made = maker.stack * maker.pairs, angles.needs_grad, list[Tensor]()
    for half in maker.halves:
        if half.blocks:
            origin = (Elementwise(half.stack * half.angles, 0, needs_grad),)
            both = books.copied([angles], (half.stack, half.angles), origin)
            made += _made_blocks(books, half, both, names)
            books.free(both.storage)
    halved = books.new_storage(numbers)
    halved.saved = needs_grad
    passes, shape = angle_passes(numbers, needs_grad), (maker.stack, maker.pairs)
    name = books.step("elementwise", (angles.name,), shape, passes, ANGLE_FLOPS * numbers)
    turns = [Tensor(name, books.new_storage(numbers), needs_grad) for _ in ("cos", "sin")]
    books.free(halved)
    # Those of V and those of U are parts of the same tensors.
    return (*turns, *made, *made)


def _made(account: Account, gate: Gate) -> Tensor:
    count, rows, columns = (account.program.plan.gate_size(legs) for legs in (gate.per, gate.rows, gate.columns))
    books, made = account.books, made_matrix(gate, rows, columns)
    lasting: dict[int | None, list[Storage]] = {}
    """What is taken, by the place of the last step that it is in memory for."""
    name = gate.parameter
    for place, step in enumerate(made.steps):
        for memory in step.memory:
            storage = books.new_storage(memory.numbers * (1 if memory.is_shared else count))
            storage.saved = memory.saved and gate.trains
            last = None if memory.lasts is None else place + memory.lasts
            lasting.setdefault(last, []).append(storage)
        if step.op != "place":
            operands = tuple(gate.parameter if side == "stored" else name for side in step.reads)
            op = "matmul" if step.op == "matmul" else "elementwise"
            origin = Making(step, count, gate.trains)
            name = books.step(op, operands, (count, *step.shape), origin, count * step.flops)
        for storage in lasting.pop(place, ()):
            books.free(storage)
    result = books.new_storage(count * rows * columns)
    for storage in (storage for left in lasting.values() for storage in left):
        books.free(storage)
    return Tensor(name, result, gate.trains)


def _pauli_matrix(account: Account, load: Load) -> Tensor:
    """Call a function with the first rows of an identity, once for every index of `per`."""
    gate, function, maker, books = load.leaf.gate, load.function, load.maker, account.books
    assert gate is not None
    assert function is not None
    assert maker is not None
    numbers = function.count * function.size
    blocks = gate_blocks(account, maker)
    before = len(books.storages), len(books.steps)
    eye = Tensor("eye", books.new_storage(numbers), needs_grad=False)
    made = call_function(books, function, eye, blocks)
    if made.storage is not eye.storage:
        books.free(eye.storage)
    if not gate.per:
        return made
    others = books.repeat(*before, made.storage, account.program.plan.gate_size(gate.per) - 1)
    count = len(others) + 1
    origin = (Elementwise(count * numbers, 0, made.needs_grad),)
    stacked = books.copied([made], (count, function.count, function.size), origin)
    for storage in (made.storage, *others):
        books.free(storage)
    return stacked


def call_function(books: Books, function: Function, source: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Return what a function makes of its vectors, everything on the same books."""
    # A block may be a part of what is stored for a stack of gates, so it is never given back here.
    given = {f"block{place}": block for place, block in enumerate(blocks)}
    inner = Account(function.program, books, input=source, given=given)
    if not any(isinstance(operation, Split) for operation in function.program.operations):
        books.run(inner)
        return inner.tensors[function.program.output]
    # What is taken apart has a name to the end.
    with books.holding(source.storage):
        books.run(inner)
    books.free(source.storage)
    return inner.tensors[function.program.output]


def turned(account: Account, turn: Turn) -> Tensor:
    """Count one half after the rotation, a number of its size turned: two products, their sum, and the rest."""
    books, halves = account.books, [account.tensors[half.value] for half in turn.halves]
    turns = account.blocks(0, 2)
    for one in turns:
        one.storage.saved = one.storage.saved or any(half.needs_grad for half in halves)
    for half in halves:
        half.storage.saved = half.storage.saved or turns[0].needs_grad
    needs_grad = turns[0].needs_grad or any(half.needs_grad for half in halves)
    count, size = map(account.program.plan.size, turn.groups)
    numbers = count * turn.pairs
    products = [books.new_storage(numbers) for _ in range(2)]
    summed = books.new_storage(numbers)
    for storage in products:
        books.free(storage)
    names, shape = tuple(half.name for half in halves), (count, turn.pairs)
    name = books.step("elementwise", names, shape, turn_passes(numbers, needs_grad), TURN_FLOPS // 2 * numbers)
    tensor = Tensor(name, summed, needs_grad)
    if turn.pairs == size:
        return tensor
    whole = books.copied([tensor], (count, size), (Elementwise(count * size, 0, needs_grad),))
    books.free(summed)
    return whole
