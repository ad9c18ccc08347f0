"""What computing and applying rotations costs, as the emitted functions (emit/rotations.py) do it on torch.

Functions of a matrix, an exponential or the solution of a system, stand among the steps as `elementwise`: torch's
FlopCounterMode counts products only.
"""

from __future__ import annotations

from collections.abc import Callable

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.parameters import TRAINED_KINDS
from quanta_compiler.lowering.account import Account, Storage, Tensor
from quanta_compiler.lowering.program import Load, PauliProgram

Apply = Callable[[Account, PauliProgram, Tensor, Tensor], Tensor]

_RY_FLOPS = 4
"""An angle halved, its cosine and sine, and the sine with the other sign."""
_EXP_PRODUCTS = 8
"""An exponential by scaling and squaring: five products for its polynomial, and some squarings."""


def compute_leaf(account: Account, load: Load, apply: Apply) -> Tensor:
    """Return a leaf that is computed; what serves several leaves is computed once."""
    gate = load.leaf.gate
    assert gate is not None
    if gate.kind == "ry":
        return _once(account, "ry", lambda: _all_ry(account))
    if gate.kind == "cz":
        size = account.volume(load.layout)
        return _once(account, f"cz {size}", lambda: Tensor("cz", account.books.new_storage(size), needs_grad=False))
    if gate.kind == "pauli":
        return _once(account, gate.parameter, lambda: _pauli_matrix(account, load, apply))
    return _once(account, gate.parameter, lambda: _orthogonal(account, gate))


def is_trained(gate: Gate) -> bool:
    """Return whether a gate's numbers need a gradient."""
    return gate.kind in TRAINED_KINDS and not gate.frozen


def _once(account: Account, key: str, compute: Callable[[], Tensor]) -> Tensor:
    if key not in account.computed:
        account.computed[key] = compute()
    return account.computed[key]


def _all_ry(account: Account) -> Tensor:
    """Count the matrices of every RY of a program, which are one storage."""
    gates = [
        operation.leaf.gate
        for operation in account.program.operations
        if isinstance(operation, Load) and operation.leaf.gate is not None and operation.leaf.gate.kind == "ry"
    ]
    owners = {(gate.parameter, gate.angle): account.volume(gate.per) for gate in gates}
    count = sum(owners.values())
    needs_grad = any(is_trained(gate) for gate in gates)
    books = account.books
    half = books.new_storage(count)
    half.saved = needs_grad
    books.step("elementwise", tuple(dict.fromkeys(gate.parameter for gate in gates)), (count, 2, 2), _RY_FLOPS * count)
    tensor = Tensor(books.result_name(), books.new_storage(4 * count), needs_grad)
    books.free(half)
    return tensor


def _pauli_matrix(account: Account, load: Load, apply: Apply) -> Tensor:
    """Apply a rotation to the first rows of an identity, once for every index of `per`."""
    gate, pauli, books = load.leaf.gate, load.pauli, account.books
    assert gate is not None
    assert pauli is not None
    numbers = pauli.plan.count * pauli.plan.size
    angles = Tensor(gate.parameter, Storage(pauli.plan.angles, is_parameter=True), is_trained(gate))
    made: list[Tensor] = []
    for _ in range(account.volume(gate.per)):
        eye = Tensor("eye", books.new_storage(numbers), needs_grad=False)
        made.append(apply(account, pauli, eye, angles))
        if made[-1].storage is not eye.storage:
            books.free(eye.storage)
    if not gate.per:
        return made[0]
    books.step("copy", tuple(one.name for one in made), (len(made), pauli.plan.count, pauli.plan.size))
    stacked = Tensor(books.result_name(), books.new_storage(len(made) * numbers), made[0].needs_grad)
    for one in made:
        books.free(one.storage)
    return stacked


def apply_sum(account: Account, pauli: PauliProgram, source: Tensor, angles: Tensor, apply: Apply) -> Tensor:
    """Take vectors apart, rotate both halves, turn pairs of them, rotate again, and put them together."""
    assert pauli.halves is not None
    books, plan = account.books, pauli.plan
    count, turned = plan.count, plan.turned
    sizes = [half.plan.size for half in pauli.halves]
    parts: list[Tensor] = []
    for half in pauli.halves:
        books.step("copy", (source.name,), (count, half.plan.size))
        part = Tensor(books.result_name(), books.new_storage(count * half.plan.size), source.needs_grad)
        parts.append(apply(account, half, part, angles))
    both = (parts[0].name, parts[1].name)
    needs_grad = angles.needs_grad or any(part.needs_grad for part in parts)
    for one in (books.new_storage(turned), *(books.new_storage(turned) for _ in "cs")):
        one.saved = angles.needs_grad or (one is not None and any(part.needs_grad for part in parts))
    for part in parts:
        part.storage.saved = part.storage.saved or angles.needs_grad
    after: list[Tensor] = []
    for half, size in zip(pauli.halves, sizes, strict=True):
        books.step("elementwise", both, (count, size), 3 * count * turned)
        fresh = Tensor(books.result_name(), books.new_storage(count * size), needs_grad)
        after.append(apply(account, half, fresh, angles))
    for part in parts:
        books.free(part.storage)
    books.step("copy", tuple(one.name for one in after), (count, plan.size))
    result = Tensor(books.result_name(), books.new_storage(count * plan.size), needs_grad)
    for one in after:
        books.free(one.storage)
    return result


def _orthogonal(account: Account, gate: Gate) -> Tensor:
    """Count an exponential or a Cayley transform: of the whole matrix, or of its factors where they are smaller."""
    books = account.books
    rows, columns = account.volume(gate.rows), account.volume(gate.columns)
    size, smaller = max(rows, columns), min(rows, columns)
    kept = smaller if gate.rank_parameters is None else min(smaller, gate.rank_parameters)
    blocks = account.volume(gate.per)
    is_whole = 2 * kept >= size
    side = size if is_whole else 2 * kept
    name = gate.parameter
    if not is_whole:
        books.step("matmul", (name, name), (blocks, side, side), 2 * blocks * side * side * size)
        name = books.result_name()
    if gate.map == "cayley":
        right = smaller
        books.step("elementwise", (name,), (blocks, side, right), blocks * (2 * side**3 // 3 + 2 * side * side * right))
    else:
        width = side if is_whole else 2 * side
        books.step("elementwise", (name,), (blocks, width, width), blocks * 2 * _EXP_PRODUCTS * width**3)
    name = books.result_name()
    if not is_whole:
        if gate.map != "cayley":
            books.step("matmul", (name, gate.parameter), (blocks, side, smaller), 2 * blocks * side * side * smaller)
            name = books.result_name()
        books.step("matmul", (gate.parameter, name), (blocks, size, smaller), 2 * blocks * size * side * smaller)
        name = books.result_name()
    return Tensor(name, books.new_storage(blocks * size * smaller), is_trained(gate))
