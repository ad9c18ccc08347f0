"""Matrices of `ry`, `orthogonal`, `givens` and `pauli` gates in numpy, by the words of the interface.

It imports nothing of the compiler. A circuit's columns are Kronecker products, exponentials come from
eigenvalues.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def plain_ry(angle: float) -> Array:
    """Return the rotation of a plane by half an angle."""
    cosine, sine = np.cos(angle / 2), np.sin(angle / 2)
    turn: Array = np.array([[cosine, -sine], [sine, cosine]])
    return turn


def plain_orthogonal(size: int, trained: int, numbers: Array, how: str, order: int = 5) -> Array:
    """Return the matrix of the numbers below the diagonal, column by column; of some maps the first columns count."""
    below = np.zeros((size, size))
    below.T[np.triu_indices(size, 1)] = np.concatenate([numbers, np.zeros(size * (size - 1) // 2 - len(numbers))])
    assert not below[:, trained:].any()
    skew, one = below - below.T, np.eye(size)
    if how == "householder":
        normals = [np.where(np.arange(size) == j, 1, below[:, j]) for j in range(trained)]
        mirrors = [one - 2 * np.outer(normal, normal) / (normal @ normal) for normal in normals]
        signs = np.diag([-1.0] * trained + [1.0] * (size - trained))
        return np.asarray(functools.reduce(np.matmul, [one, *mirrors, signs]), dtype=np.float64)
    if how == "givens":
        pairs = [[j, i] for j in range(trained) for i in range(j + 1, size)]
        return plain_givens(size, np.array([below[i, j] for j, i in reversed(pairs)]), pairs[::-1])
    if how == "cayley":
        quotient: Array = np.linalg.inv(one - skew / 2) @ (one + skew / 2)
        return quotient
    if how in ("taylor", "neumann"):
        step = skew if how == "taylor" else skew / 2
        powers = [np.linalg.matrix_power(step, power) for power in range(order + 1)]
        if how == "neumann":
            return np.asarray(sum(powers) @ (one + step), dtype=np.float64)
        return np.asarray(sum(power / math.factorial(p) for p, power in enumerate(powers)), dtype=np.float64)
    # A skew-symmetric matrix times i is Hermitian: its exponential turns the eigenvectors by the eigenvalues.
    values, vectors = np.linalg.eigh(1j * skew)
    turned: Array = ((vectors * np.exp(-1j * values)) @ vectors.conj().T).real
    return turned


def plain_givens(size: int, numbers: Array, pairs: list[list[int]] | None) -> Array:
    """Return the product of rotations of planes, the last pair's on the left."""
    if pairs is None:
        pairs = [[i, i + 1] for i in range(0, size - 1, 2)] + [[i, i + 1] for i in range(1, size - 1, 2)]
    matrix = np.eye(size)
    for (i, j), angle in zip(pairs, numbers, strict=True):
        turn = np.eye(size)
        turn[np.ix_([i, j], [i, j])] = plain_ry(angle)
        matrix = turn @ matrix
    return matrix


def plain_pauli(size: int, layers: int, numbers: Array, kept: int | None = None) -> Array:
    """Return the matrix of a `pauli` gate; with `kept` the first angles of each column are given."""
    matrix, used = _pauli(size, layers, numbers, kept)
    assert used == len(numbers)
    return matrix


def _pauli(size: int, layers: int, numbers: Array, kept: int | None) -> tuple[Array, int]:
    """Return the matrix and how many of the numbers it takes."""
    wires = int(np.log2(size))
    if size == 2**wires:
        return _two_design(wires, layers, numbers, kept)
    first, second = 2**wires, size - 2**wires
    parts: list[Array] = []
    used = 0
    for part in (first, second, None, first, second):
        if part is not None:
            matrix, taken = _pauli(part, layers, numbers[used:], kept)
        else:
            taken = second if kept is None else min(second, kept)
            matrix = _cosine_sine(first, second, numbers[used : used + taken])
        parts.append(matrix)
        used += taken
    return _apart(*parts[3:]) @ parts[2] @ _apart(*parts[:2]), used


def _apart(above: Array, below: Array) -> Array:
    """Return diag(above, below)."""
    none = np.zeros((len(above), len(below)))
    return np.block([[above, none], [none.T, below]])


def _cosine_sine(first: int, second: int, angles: Array) -> Array:
    """Return the matrix that turns x_i and x_(first + i): blocks of cosines and of sines."""
    half = np.concatenate([angles, np.zeros(second - len(angles))]) / 2
    cosines, sines = np.diag(np.cos(half)), np.diag(np.sin(half))
    untouched, none = np.eye(first - second), np.zeros((first - second, second))
    return np.block([[cosines, none.T, -sines], [none, untouched, none], [sines, none.T, cosines]])


def _two_design(wires: int, layers: int, numbers: Array, kept: int | None) -> tuple[Array, int]:
    """Return the product of all columns, each a Kronecker product of its RY after the signs of its CZ."""
    bits = np.arange(2**wires)[:, None] >> np.arange(wires)[::-1] & 1
    columns = [(wires, 0, np.ones(2**wires))]
    for start in [0, 1] * layers:
        pairs = max(0, wires - start) // 2
        left = bits[:, start : start + 2 * pairs : 2]
        right = bits[:, start + 1 : start + 2 * pairs : 2]
        columns.append((2 * pairs, start, (-1.0) ** (left * right).sum(axis=1)))
    matrix, used = np.eye(2**wires), 0
    for count, start, signs in columns:
        taken = count if kept is None else min(count, kept)
        turns = [np.eye(2)] * wires
        for wire in range(taken):
            turns[start + wire] = plain_ry(numbers[used + wire])
        used += taken
        column: Array = np.eye(1)
        for turn in turns:
            column = np.asarray(np.kron(column, turn), dtype=np.float64)
        matrix = column @ (signs[:, None] * matrix)
    return matrix, used
