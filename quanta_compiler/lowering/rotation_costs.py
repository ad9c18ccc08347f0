"""What computing and applying rotations costs, as the emitted functions (emit/rotations.py) do it on torch.

Functions of a matrix, an exponential or the solution of a system, stand among the steps as `elementwise`: torch's
FlopCounterMode counts products only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.parameters import TRAINED_KINDS
from quanta_compiler.ir.two_design import ANGLES
from quanta_compiler.lowering.account import Account, Books, Storage, Tensor
from quanta_compiler.lowering.program import Load, PauliProgram
from quanta_compiler.spec.rotations import TURN_FLOPS, lie_numbers

Apply = Callable[[Account, PauliProgram, Tensor, Tensor], Tensor]

RY_FLOPS = 4
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
        sizes = tuple(account.volume((leg,)) for leg in gate.columns)
        made = _once(account, f"cz {sizes}", lambda: Tensor("", _signs(account, sizes), needs_grad=False))
        return replace(made, name=_owner(account, gate))
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


def _owner(account: Account, gate: Gate) -> str:
    """Return the gate of the file that a leaf belongs to: within a `pauli` gate that is always this one."""
    return account.computed[ANGLES].name if ANGLES in account.computed else gate.parameter


def _signs(account: Account, sizes: tuple[int, ...]) -> Storage:
    """Count the signs of a CZ, which are padded from a single number."""
    single = account.books.new_storage(1)
    signs = account.books.new_storage(math.prod(sizes))
    account.books.free(single)
    return signs


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
    names = tuple(dict.fromkeys(_owner(account, gate) for gate in gates))
    joined = [books.new_storage(count)] if len(owners) > 1 and ANGLES not in account.computed else []
    half = books.new_storage(count)
    half.saved = needs_grad
    # The cosine, the sine, and the sine with the other sign.
    parts = [books.new_storage(count) for _ in range(3)]
    books.step("elementwise", names, (count, 2, 2), RY_FLOPS * count)
    tensor = Tensor(books.result_name(), books.new_storage(4 * count), needs_grad)
    for storage in (*joined, half, *parts):
        books.free(storage)
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
    count, turned, sizes = plan.count, plan.turned, [half.plan.size for half in pauli.halves]
    with books.holding(source.storage):
        parts: list[Tensor] = []
        for half in pauli.halves:
            parts.append(apply(account, half, _part(books, source, count, half.plan.size), angles))
        needs_grad = angles.needs_grad or source.needs_grad
        tables = [books.new_storage(turned) for _ in ("half", "cos", "sin")]
        tables[0].saved = angles.needs_grad
        for storage in tables[1:]:
            storage.saved = any(part.needs_grad for part in parts)
        for part in parts:
            part.storage.saved = part.storage.saved or angles.needs_grad
        names = parts[0].name, parts[1].name
        mixed = [_turned(books, names, count, (size, turned), needs_grad) for size in sizes]
        for part in parts:
            books.free(part.storage)
        with books.holding(*(part.storage for part in mixed)):
            made = [apply(account, half, part, angles) for half, part in zip(pauli.halves, mixed, strict=True)]
            books.step("copy", tuple(one.name for one in made), (count, plan.size))
            result = Tensor(books.result_name(), books.new_storage(count * plan.size), needs_grad)
        for storage in (*tables, *(one.storage for one in (*mixed, *made))):
            books.free(storage)
    books.free(source.storage)
    return result


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


def _orthogonal(account: Account, gate: Gate) -> Tensor:
    blocks, rows, columns = (account.volume(legs) for legs in (gate.per, gate.rows, gate.columns))
    return orthogonal_matrix(account.books, gate, blocks, rows, columns)


def orthogonal_matrix(books: Books, gate: Gate, blocks: int, rows: int, columns: int) -> Tensor:
    """Count an exponential or a Cayley transform: of the whole matrix, or of its factors where they are smaller."""
    size, smaller = max(rows, columns), min(rows, columns)
    kept = smaller if gate.rank_parameters is None else min(smaller, gate.rank_parameters)
    lie = _LieMap(books, gate, blocks, size, smaller, kept)
    return lie.whole() if 2 * kept >= size else lie.factored()


@dataclass(slots=True)
class _LieMap:
    """The steps and the memory of `exponential` and `cayley` in rotation_functions.py, in numbers of 4 bytes."""

    books: Books
    gate: Gate
    blocks: int
    size: int
    columns: int
    kept: int

    @property
    def is_exponential(self) -> bool:
        return self.gate.map != "cayley"

    @property
    def wide(self) -> int:
        """Return the numbers of 4 bytes in one: an exponential is computed in float64."""
        return 2 if self.is_exponential else 1

    def take(self, *sides: int, saved: bool = False) -> Storage:
        """Take memory for a matrix of every block."""
        storage = self.books.new_storage(self.wide * self.blocks * math.prod(sides))
        storage.saved = saved and is_trained(self.gate)
        return storage

    def step(self, op: str, operands: tuple[str, ...], shape: tuple[int, ...], flops: int) -> str:
        """Add a step; return the name of its result."""
        self.books.step(op, operands, (self.blocks, *shape), self.blocks * flops)
        return self.books.result_name()

    def lower(self) -> Storage:
        """Place the stored numbers below the diagonal, by two indices of 8 bytes for each."""
        numbers = lie_numbers(self.size, self.kept)
        given = [self.take(numbers)] if self.is_exponential else []
        places = self.books.new_storage(4 * numbers)
        places.saved = is_trained(self.gate)
        lower = self.take(self.size, self.kept)
        for storage in (*given, places):
            self.books.free(storage)
        return lower

    def exponential(self, name: str, matrix: Storage, side: int) -> tuple[str, Storage]:
        """Count the exponential of a matrix of so many rows; return the result's name and memory."""
        matrix.saved = is_trained(self.gate)
        return self.step("elementwise", (name,), (side, side), 2 * _EXP_PRODUCTS * side**3), self.take(side, side)

    def solution(self, name: str, side: int) -> tuple[str, list[Storage]]:
        """Count the solution of a system of so many equations; return the result's name and the memory that it takes.

        Beside the matrix, its factorization and the pivots, there are an identity and what is taken from it.
        """
        matrices = [self.take(side, side, saved=True) for _ in ("matrix", "factorization")]
        matrices += [self.take(side, side) for _ in ("identity", "half")]
        pivots = self.books.new_storage(self.blocks * side)
        pivots.saved = is_trained(self.gate)
        solution = self.take(side, self.columns, saved=True)
        flops = 2 * side**3 // 3 + 2 * side * side * self.columns
        return self.step("elementwise", (name,), (side, self.columns), flops), [*matrices, pivots, solution]

    def result(self, name: str, temporary: list[Storage]) -> Tensor:
        """Take the matrix itself and give everything else back."""
        storage = self.books.new_storage(self.blocks * self.size * self.columns)
        for one in temporary:
            self.books.free(one)
        return Tensor(name, storage, is_trained(self.gate))

    def whole(self) -> Tensor:
        """Count a function of the whole skew-symmetric matrix."""
        lower, padded = self.lower(), self.take(self.size, self.size - self.kept)
        skew = self.take(self.size, self.size)
        self.books.free(padded)
        if self.is_exponential:
            name, result = self.exponential(self.gate.parameter, skew, self.size)
            return self.result(name, [lower, skew, result])
        name, taken = self.solution(self.gate.parameter, self.size)
        return self.result(name, [lower, skew, *taken])

    def factored(self) -> Tensor:
        """Count a function of the small matrix V^T U, and what it is multiplied by."""
        size, inner = self.size, 2 * self.kept
        lower = self.lower()
        scale = self.take(1, saved=True)
        factors = [self.take(size, inner, saved=True) for _ in ("U", "V")]
        name = self.step("matmul", (self.gate.parameter,) * 2, (inner, inner), 2 * inner * inner * size)
        product = self.take(inner, inner)
        temporary = [lower, scale, *factors, product]
        if self.is_exponential:
            corner = self.take(2 * inner, 2 * inner)
            name, function = self.exponential(name, corner, 2 * inner)
            function.saved = is_trained(self.gate)
            flops = 2 * inner * inner * self.columns
            name = self.step("matmul", (name, self.gate.parameter), (inner, self.columns), flops)
            taken = [corner, function, self.take(inner, self.columns, saved=True)]
        else:
            name, taken = self.solution(name, inner)
        flops = 2 * size * inner * self.columns
        name = self.step("matmul", (self.gate.parameter, name), (size, self.columns), flops)
        temporary += [*taken, self.take(size, self.columns)]
        return self.result(name, temporary)
