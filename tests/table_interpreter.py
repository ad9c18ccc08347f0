"""A gate table run as its docstring says, number by number, in numpy: no code of the lowering, and no speed.

A state is `[numbers, tokens]` and begins as NaN, so that a place which nothing writes is seen in the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from quanta_compiler.ir.circuit import Circuit, Leg
from quanta_compiler.lowering.table import GateTable, MatrixSource, TableEntry, Walk
from quanta_compiler.oracle.reference import circuit_operator, gate_matrix

Array = npt.NDArray[np.float64]


def places(walk: Walk) -> npt.NDArray[np.int64]:
    """Return the places that nested loops (size, stride) visit, in order."""
    indices = itertools.product(*(range(size) for size, _ in walk))
    return np.array([sum(i * stride for i, (_, stride) in zip(index, walk, strict=True)) for index in indices])


def matrix_of(entry: TableEntry, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return an entry's matrices `[blocks, rows, columns]`, differentiable; tensors are named as gates store them."""
    if entry.matrix is None:
        return torch.eye(entry.rows, entry.columns, dtype=torch.float64).expand(entry.blocks, -1, -1)
    gate, factor = entry.matrix.gate, entry.matrix.factor
    if gate.kind in ("block", "ry", "cz", "orthogonal", "givens", "pauli"):
        return _rotation(entry.matrix, tensors).reshape(entry.blocks, entry.rows, entry.columns)
    if gate.kind == "constant":
        matrix = torch.tensor(gate.matrix.given, dtype=torch.float64)
    elif gate.kind == "diagonal":
        matrix = tensors[gate.parameter].reshape(-1, 1, 1)
    elif factor:
        matrix = tensors[f"{gate.parameter}.{factor}"]
    elif gate.kind == "lowrank":
        matrix = tensors[f"{gate.parameter}.B"] @ tensors[f"{gate.parameter}.A"]
    else:
        matrix = tensors[gate.parameter]
    matrix = matrix.reshape(-1, *matrix.shape[-2:])
    return matrix.transpose(1, 2) if gate.transpose else matrix


def _rotation(source: MatrixSource, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the reference's matrices of a gate, `[per, rows, columns]`, or the numbers of a diagonal one, `[per]`.

    Those of a block are cut out of the operator of a circuit that consists of it.
    """
    gate = source.gate
    legs = tuple(Leg(str(number), size) for number, size in enumerate(source.sizes))
    circuit = Circuit("one gate", 0, 0, legs, gate.per + gate.columns, gate.per + gate.rows, (gate,))
    if not gate.parts:
        matrices = gate_matrix(circuit, gate, tensors)
        return matrices[0].diagonal() if gate.is_diagonal else matrices
    circuit = replace(circuit, in_features=circuit.in_size, out_features=circuit.out_size)
    blocks, rows, columns = map(circuit.size, (gate.per, gate.rows, gate.columns))
    whole = circuit_operator(circuit, tensors).reshape(blocks, rows, blocks, columns)
    return whole.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def matrices_of(table: GateTable, tensors: Mapping[str, torch.Tensor]) -> list[Array]:
    """Return the matrices of all entries."""
    return [matrix_of(entry, tensors).detach().numpy() for entry in table.entries]


def forward(table: GateTable, matrices: Sequence[Array], x: Array) -> tuple[Array, list[Array]]:
    """Return `[tokens, in_features] -> [tokens, out_features]`, and every state."""
    state = _unwritten(table.in_size, len(x))
    state[places(table.read)] = _resized(x.T, table.in_size)
    states = [state]
    for entry, matrix in zip(table.entries, matrices, strict=True):
        state = _unwritten(entry.blocks * entry.rest * entry.rows, len(x))
        rows = places(entry.write_row)
        for (block, stretch), place in zip(_stretches(entry), places(entry.write_rest), strict=True):
            columns = states[-1][stretch * entry.columns : (stretch + 1) * entry.columns]
            state[place + rows] = matrix[block] @ columns
        states.append(state)
    return _resized(states[-1], table.out_features).T, states


def backward(table: GateTable, matrices: Sequence[Array], dy: Array) -> tuple[Array, list[Array]]:
    """Return `[tokens, out_features] -> [tokens, in_features]`, and every state's gradient as its maker stores it."""
    gradient = _unwritten(table.out_size, len(dy))
    gradient[places(table.read_grad)] = _resized(dy.T, table.out_size)
    gradients = [gradient]
    for entry, matrix in zip(reversed(table.entries), reversed(matrices), strict=True):
        gradient = _unwritten(entry.blocks * entry.rest * entry.columns, len(dy))
        columns = places(entry.grad_column)
        for (block, stretch), place in zip(_stretches(entry), places(entry.grad_rest), strict=True):
            rows = gradients[0][stretch * entry.rows : (stretch + 1) * entry.rows]
            gradient[place + columns] = matrix[block].T @ rows
        gradients.insert(0, gradient)
    return _resized(gradients[0], table.in_features).T, gradients


def matrix_gradient(entry: TableEntry, state: Array, gradient: Array) -> Array:
    """Return the gradient `[blocks, rows, columns]` of an entry: dM[b] is the sum of dy x^T over rest and tokens."""
    found = np.zeros((entry.blocks, entry.rows, entry.columns))
    for block, stretch in _stretches(entry):
        columns = state[stretch * entry.columns : (stretch + 1) * entry.columns]
        rows = gradient[stretch * entry.rows : (stretch + 1) * entry.rows]
        found[block] += rows @ columns.T
    return found


def parameter_gradients(
    table: GateTable, tensors: Mapping[str, torch.Tensor], states: Sequence[Array], gradients: Sequence[Array]
) -> dict[str, torch.Tensor]:
    """Return the gradient of every stored tensor: what the entries that read it contribute, added."""
    found = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    for place, entry in enumerate(table.entries):
        matrix = matrix_of(entry, leaves)
        if not matrix.requires_grad:
            continue
        given = torch.from_numpy(matrix_gradient(entry, states[place], gradients[place + 1]))
        pulled_back = torch.autograd.grad(matrix, list(leaves.values()), given, allow_unused=True)
        for name, gradient in zip(leaves, pulled_back, strict=True):
            found[name] += 0 if gradient is None else gradient
    return found


def _stretches(entry: TableEntry) -> Iterator[tuple[int, int]]:
    """Return every (block, block * rest + index of the rest): one stretch of columns in the state that is read."""
    return ((block, block * entry.rest + rest) for block in range(entry.blocks) for rest in range(entry.rest))


def _unwritten(numbers: int, tokens: int) -> Array:
    return np.full((numbers, tokens), np.nan)


def _resized(vectors: Array, size: int) -> Array:
    """Return the first `size` numbers of vectors `[numbers, tokens]`, zeros behind them."""
    kept = vectors[:size]
    return np.concatenate([kept, np.zeros((size - len(kept), vectors.shape[1]))])
