"""What an `orthogonal` gate's matrix costs, as rotation_functions.py makes it.

Functions of a matrix, an exponential or the solution of a system, stand among the steps as `elementwise`: torch's
FlopCounterMode counts products only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.kinds.angles import lie_numbers
from quanta_compiler.lowering.account import Books, Storage, Tensor

_EXP_PRODUCTS = 8
"""An exponential by scaling and squaring: five products for its polynomial, and some squarings."""


def is_trained(gate: Gate) -> bool:
    """Return whether a gate's numbers need a gradient."""
    return gate.trains


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
        self.books.step(op, operands, (self.blocks, *shape), self.gate, self.blocks * flops)
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
