"""What computing and applying rotations costs, as the emitted functions (emit/rotations.py) do it on torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.two_design import ANGLES
from quanta_compiler.kinds.two_design import TURN_FLOPS
from quanta_compiler.lowering.account import Account, Books, Storage, Tensor
from quanta_compiler.lowering.lie_costs import is_trained, orthogonal_matrix
from quanta_compiler.lowering.program import BlocksProgram, Load, PauliProgram, pauli_gates

Apply = Callable[[Account, PauliProgram, Tensor, Sequence[Tensor]], Tensor]
"""Counts what applies a rotation to vectors, from its blocks."""
Run = Callable[[Account], None]
"""Counts all operations of a program."""

RY_FLOPS = 4
"""An angle halved, its cosine and sine, and the sine with the other sign."""
_TURN_FLOPS = 3
"""An angle halved, its cosine and sine."""


def compute_leaf(account: Account, load: Load, apply: Apply, run: Run) -> Tensor:
    """Return a leaf that is computed; what serves several leaves is computed once."""
    gate = load.leaf.gate
    assert gate is not None
    if gate.block is not None:
        assert load.pauli is not None
        return gate_blocks(account, load.pauli, run)[gate.block]
    if gate.kind == "ry":
        return _once(account, "all ry", lambda: (_all_ry(account),))[0]
    if gate.kind == "cz":
        sizes = account.gate_size(gate.columns[:-1]), account.gate_size(gate.columns[-1:])
        made = _once(account, f"cz {sizes}", lambda: (Tensor("", _signs(account, sizes), needs_grad=False),))[0]
        return replace(made, name=account.names[0] if account.names else gate.parameter)
    if gate.kind == "pauli":
        return _once(account, gate.parameter, lambda: (_pauli_matrix(account, load, apply, run),))[0]
    return _once(account, gate.parameter, lambda: (_orthogonal(account, gate),))[0]


def _once(account: Account, key: str, compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return what is computed once; a key with a space in it is no gate's name."""
    if key not in account.computed:
        account.computed[key] = compute()
    return account.computed[key]


def _signs(account: Account, sizes: tuple[int, ...]) -> Storage:
    """Count the signs of a CZ, which are padded from a single number."""
    single = account.books.new_storage(1)
    signs = account.books.new_storage(math.prod(sizes))
    account.books.free(single)
    return signs


def _all_ry(account: Account) -> Tensor:
    """Count the matrices of every RY of a program, which are one storage."""
    loads = [operation for operation in account.program.operations if isinstance(operation, Load)]
    gates = [load.leaf.gate for load in loads if load.leaf.gate is not None and load.leaf.gate.kind == "ry"]
    owners = {gate.parameter: account.gate_size(gate.per) for gate in gates}
    count = sum(owners.values())
    joined = [account.books.new_storage(count)] if len(owners) > 1 else []
    tensor = _ry(account.books, tuple(owners), count, any(is_trained(gate) for gate in gates))
    for storage in joined:
        account.books.free(storage)
    return tensor


def _ry(books: Books, names: tuple[str, ...], count: int, needs_grad: bool) -> Tensor:
    """Count so many matrices of RY."""
    half = books.new_storage(count)
    half.saved = needs_grad
    # The cosine, the sine, and the sine with the other sign.
    parts = [books.new_storage(count) for _ in range(3)]
    books.step("elementwise", names, (count, 2, 2), RY_FLOPS * count)
    tensor = Tensor(books.result_name(), books.new_storage(4 * count), needs_grad)
    for storage in (half, *parts):
        books.free(storage)
    return tensor


def gate_blocks(account: Account, pauli: PauliProgram, run: Run) -> tuple[Tensor, ...]:
    """Return the blocks of a `pauli` gate, which are made for all gates that are alike at once."""
    blocks = pauli.blocks
    assert blocks is not None

    def compute() -> tuple[Tensor, ...]:
        alike = [gate for gate, other in pauli_gates(account.program) if other.plan.alike == pauli.plan.alike]
        names = tuple(dict.fromkeys(gate.parameter for gate in alike))
        angles = Tensor(names[0], account.books.new_storage(blocks.plan.stack * blocks.plan.angles), needs_grad=False)
        angles.needs_grad = any(is_trained(gate) for gate in alike)
        made = _made_blocks(account.books, blocks, angles, names, run)
        account.books.free(angles.storage)
        return made

    return _once(account, f"blocks {pauli.plan.alike}", compute) if blocks.plan.tensors else ()


def _made_blocks(
    books: Books, blocks: BlocksProgram, angles: Tensor, names: tuple[str, ...], run: Run
) -> tuple[Tensor, ...]:
    if blocks.halves is not None:
        return _sum_blocks(books, blocks, angles, names, run)
    ry = _ry(books, names, blocks.plan.stack * blocks.plan.angles, angles.needs_grad)
    made: list[Tensor] = []
    signs: dict[str, tuple[Tensor, ...]] = {}
    for program in blocks.programs:
        inner = Account(program, books, given={ANGLES: ry}, computed=signs, names=names)
        run(inner)
        made.append(inner.tensors[program.output])
    kept = [one.storage for one in made]
    for storage in (ry.storage, *(tensor.storage for tensors in signs.values() for tensor in tensors)):
        if not any(storage is one for one in kept):
            books.free(storage)
    return tuple(made)


def _sum_blocks(
    books: Books, blocks: BlocksProgram, angles: Tensor, names: tuple[str, ...], run: Run
) -> tuple[Tensor, ...]:
    """Count the blocks of both halves, each for twice as many gates, and the cosines and sines between them."""
    assert blocks.halves is not None
    plan, made = blocks.plan, list[Tensor]()
    for half in blocks.halves:
        if half.plan.tensors:
            both = books.new_storage(half.plan.stack * half.plan.angles)
            books.step("copy", (angles.name,), (half.plan.stack, half.plan.angles))
            made += _made_blocks(books, half, Tensor(books.result_name(), both, angles.needs_grad), names, run)
            books.free(both)
    halved = books.new_storage(plan.stack * plan.turned)
    halved.saved = angles.needs_grad
    books.step("elementwise", (angles.name,), (plan.stack, plan.turned), _TURN_FLOPS * plan.stack * plan.turned)
    name = books.result_name()
    turns = [Tensor(name, books.new_storage(plan.stack * plan.turned), angles.needs_grad) for _ in ("cos", "sin")]
    books.free(halved)
    return (*turns, *made)


def _orthogonal(account: Account, gate: Gate) -> Tensor:
    blocks, rows, columns = (account.gate_size(legs) for legs in (gate.per, gate.rows, gate.columns))
    return orthogonal_matrix(account.books, gate, blocks, rows, columns)


def _pauli_matrix(account: Account, load: Load, apply: Apply, run: Run) -> Tensor:
    """Apply a rotation to the first rows of an identity, once for every index of `per`."""
    gate, pauli, books = load.leaf.gate, load.pauli, account.books
    assert gate is not None
    assert pauli is not None
    numbers = pauli.plan.count * pauli.plan.size
    blocks = gate_blocks(account, pauli, run)
    before = len(books.storages), len(books.steps)
    eye = Tensor("eye", books.new_storage(numbers), needs_grad=False)
    made = apply(account, pauli, eye, blocks)
    if made.storage is not eye.storage:
        books.free(eye.storage)
    if not gate.per:
        return made
    others = books.repeat(*before, made.storage, account.gate_size(gate.per) - 1)
    books.step("copy", (made.name,), (len(others) + 1, pauli.plan.count, pauli.plan.size))
    stacked = Tensor(books.result_name(), books.new_storage((len(others) + 1) * numbers), made.needs_grad)
    for storage in (made.storage, *others):
        books.free(storage)
    return stacked


def apply_sum(account: Account, pauli: PauliProgram, source: Tensor, blocks: Sequence[Tensor], apply: Apply) -> Tensor:
    """Take vectors apart, rotate both halves, turn pairs of them, rotate again, and put them together."""
    assert pauli.halves is not None
    books, plan = account.books, pauli.plan
    count, turned, sizes = plan.count, plan.turned, [half.plan.size for half in pauli.halves]
    turns, behind = blocks[:2], 2 + _tensors(pauli.halves[0])
    own = blocks[2:behind], blocks[behind:]
    with books.holding(source.storage):
        parts = [
            apply(account, half, _part(books, source, count, size), given)
            for half, size, given in zip(pauli.halves, sizes, own, strict=True)
        ]
        needs_grad = turns[0].needs_grad or source.needs_grad
        for turn in turns:
            turn.storage.saved = turn.storage.saved or any(part.needs_grad for part in parts)
        for part in parts:
            part.storage.saved = part.storage.saved or turns[0].needs_grad
        names = parts[0].name, parts[1].name
        mixed = [_turned(books, names, count, (size, turned), needs_grad) for size in sizes]
        for part in parts:
            books.free(part.storage)
        made: list[Tensor] = []
        for half, part, given in zip(pauli.halves, mixed, own, strict=True):
            with books.holding(part.storage):
                made.append(apply(account, half, part, given))
            if made[-1] is not part:
                books.free(part.storage)
        books.step("copy", tuple(one.name for one in made), (count, plan.size))
        result = Tensor(books.result_name(), books.new_storage(count * plan.size), needs_grad)
        for one in made:
            books.free(one.storage)
    books.free(source.storage)
    return result


def _tensors(pauli: PauliProgram) -> int:
    """Return how many tensors a rotation is applied by."""
    if pauli.halves is not None:
        return 2 + sum(map(_tensors, pauli.halves))
    return 0 if pauli.plan.circuit is None else len(pauli.plan.circuit.gates)


def _part(books: Books, source: Tensor, count: int, size: int) -> Tensor:
    """Count some columns of the vectors as vectors of their own: a view where there is one vector only."""
    if count == 1:
        return source
    books.step("copy", (source.name,), (count, size))
    return Tensor(books.result_name(), books.new_storage(count * size), source.needs_grad)


def _turned(books: Books, names: tuple[str, ...], count: int, sizes: tuple[int, int], needs_grad: bool) -> Tensor:
    """Count one half after the rotation, so many numbers of its size turned: two products, their sum, and the rest."""
    size, turned = sizes
    products = [books.new_storage(count * turned) for _ in range(2)]
    summed = books.new_storage(count * turned)
    for storage in products:
        books.free(storage)
    books.step("elementwise", names, (count, turned), TURN_FLOPS // 2 * count * turned)
    tensor = Tensor(books.result_name(), summed, needs_grad)
    if turned == size:
        return tensor
    books.step("copy", (tensor.name,), (count, size))
    whole = Tensor(books.result_name(), books.new_storage(count * size), needs_grad)
    books.free(summed)
    return whole
