"""Block-diagonal matrices and the families of orthogonal ones, in numpy: an oracle that reads the parameters alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Gates = dict[str, Array]


def transposing(rows: int, columns: int) -> Array:
    """The permutation that reads a vector as a matrix [rows, columns] and writes it transposed."""
    matrix = np.zeros((rows * columns, rows * columns))
    for row, column in itertools.product(range(rows), range(columns)):
        matrix[column * rows + row, row * columns + column] = 1
    return matrix


def block_diagonal(blocks: Array) -> Array:
    count, rows, columns = blocks.shape
    matrix = np.zeros((count * rows, count * columns))
    for k in range(count):
        matrix[k * rows : (k + 1) * rows, k * columns : (k + 1) * columns] = blocks[k]
    return matrix


def cayley(numbers: Array) -> Array:
    """(1 - S / 2)^-1 (1 + S / 2), S skew-symmetric with the numbers below its diagonal, column by column."""
    size = round((1 + math.sqrt(1 + 8 * len(numbers))) / 2)
    skew = np.zeros((size, size))
    for number, (column, row) in zip(numbers, itertools.combinations(range(size), 2), strict=True):
        skew[row, column], skew[column, row] = number, -number
    return np.asarray(np.linalg.solve(np.eye(size) - skew / 2, np.eye(size) + skew / 2), dtype=np.float64)


def turned(gate: Array) -> Array:
    return block_diagonal(np.array([cayley(numbers) for numbers in gate.reshape(-1, gate.shape[-1])]))


def oft(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    return turned(gates["g0"])


def boft(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    """T = B_1 B_2 ...: B_i puts those halves of blocks together whose numbers differ in the i-th bit."""
    operator: Any = np.eye(1)
    for i, gate in enumerate(reversed(gates.values())):
        blocks = turned(gate)
        size = round((1 + math.sqrt(1 + 8 * gate.shape[-1])) / 2)
        halves = [j for j in range(2 * len(blocks) // size) if not j >> i & 1]
        order = [(j + bit * 2**i) * size // 2 + k for j in halves for bit in (0, 1) for k in range(size // 2)]
        p = np.eye(len(blocks))[order]
        operator = (operator if i else np.eye(len(blocks))) @ p.T @ blocks @ p
    return np.asarray(operator)


def gsoft(gates: Gates, options: dict[str, Any], n: int, m: int) -> Array:
    """P reads the blocks of R as the rows of a matrix, and writes it column by column."""
    left, right = turned(gates["g1"]), turned(gates["g0"])
    blocks = len(gates["g0"])
    p = transposing(blocks, len(right) // blocks)
    product: Array = p.T @ left @ p @ right
    return product
