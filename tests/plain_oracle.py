"""A second oracle: a circuit's matrix from the file's dict alone, in numpy, by the words of the interface.

It imports nothing of the compiler, so that an error in reading axes cannot hide in both the reference and the module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from plain_patterns import Axes, written_out
from plain_rotations import Array, plain_givens, plain_orthogonal, plain_pauli, plain_ry


def plain_operator(file: Mapping[str, Any], tensors: Mapping[str, Array]) -> Array:
    """Return the matrix `[out_features, in_features]` of a file; `tensors` as in the state dict."""
    state = Axes(file["layout"])
    width = math.prod(state.present.values())
    in_features = file.get("in_features", width)
    kept = min(width, in_features)
    columns = np.zeros((width, in_features))
    columns[:kept, :kept] = np.eye(kept)
    gates = {gate.get("name", f"g{place}"): gate for place, gate in enumerate(written_out(file)["gates"])}
    for name in gates:
        columns = _apply(state, gates, name, tensors, columns)
    order = [state.name(ref) for ref in file.get("output", state.present)]
    tensor = columns.reshape(*state.present.values(), in_features)
    tensor = tensor.transpose(*(list(state.present).index(name) for name in order), len(order))
    result = tensor.reshape(-1, in_features)
    out_features = file.get("out_features", len(result))
    kept = min(out_features, len(result))
    padded = np.zeros((out_features, in_features))
    padded[:kept] = result[:kept]
    return padded


def _apply(
    state: Axes,
    gates: dict[str, dict[str, Any]],
    name: str,
    tensors: Mapping[str, Array],
    columns: Array,
) -> Array:
    before, gate = state.present, gates[name]
    axes = [state.name(ref) for ref in gate["axes"]]
    per, to = state.per(gate, axes), state.target(gate, axes)
    n_rows, n_columns = math.prod(to.values()), math.prod(before[axis] for axis in axes)
    matrix = _matrix(gates, name, tensors, n_rows, n_columns)
    rest = [axis for axis in before if axis not in axes and axis not in per]
    old = [*per, *axes, *rest]
    tensor = columns.reshape(*before.values(), -1)
    tensor = tensor.transpose(*(list(before).index(axis) for axis in old), len(old))
    blocks = tensor.reshape(math.prod(before[axis] for axis in per), n_columns, -1)
    moved = np.array([matrix[min(block, len(matrix) - 1)] @ blocks[block] for block in range(len(blocks))])
    state.replace(axes, to)
    after = [*per, *to, *rest]
    tensor = moved.reshape(*(state.present[axis] for axis in after), -1)
    tensor = tensor.transpose(*(after.index(axis) for axis in state.present), len(after))
    flat: Array = tensor.reshape(-1, columns.shape[1])
    return flat


def _matrix(
    gates: dict[str, dict[str, Any]],
    name: str,
    tensors: Mapping[str, Array],
    n_rows: int,
    n_columns: int,
) -> Array:
    """Return `[blocks, rows, columns]`; one block serves all where the matrix is fixed."""
    gate = gates[name]
    if "share" in gate:
        turned = bool(gate.get("transpose"))
        shape = (n_columns, n_rows) if turned else (n_rows, n_columns)
        matrix = _matrix(gates, gate["share"], tensors, *shape)
        return matrix.swapaxes(1, 2) if turned else matrix
    kind = gate.get("kind", "dense")
    if kind == "slice":
        return np.eye(n_rows, n_columns)[None]
    if kind == "constant":
        return np.array(gate["value"], dtype=np.float64)[None]
    if kind == "lowrank":
        left = tensors[f"gates.{name}.B"].reshape(-1, n_rows, gate["rank"])
        right = tensors[f"gates.{name}.A"].reshape(-1, gate["rank"], n_columns)
        return np.array([b @ a for b, a in zip(left, right, strict=True)])
    if kind == "diagonal":
        return np.array([np.diag(numbers) for numbers in tensors[f"gates.{name}"].reshape(-1, n_rows)])
    if kind == "cz":
        signs = np.ones(n_rows)
        signs[-1] = -1
        return np.diag(signs)[None]
    if kind in ("ry", "orthogonal", "givens", "pauli"):
        stored = tensors[f"gates.{name}"]
        blocks = stored.reshape(math.prod(stored.shape[:-1]), stored.shape[-1])
        return np.array([_rotation(gate, numbers, n_rows, n_columns) for numbers in blocks])
    return tensors[f"gates.{name}"].reshape(-1, n_rows, n_columns)


def _rotation(gate: dict[str, Any], numbers: Array, n_rows: int, n_columns: int) -> Array:
    """Return the matrix of a block: the first rows and columns of a square one."""
    size, kept = max(n_rows, n_columns), gate.get("rank_parameters")
    if gate["kind"] == "ry":
        return plain_ry(numbers.item())
    if gate["kind"] == "givens":
        return plain_givens(size, numbers, gate.get("pairs"))
    if gate["kind"] == "pauli":
        return plain_pauli(size, gate.get("layers", 1), numbers, kept)[:n_rows, :n_columns]
    trained = min(n_rows, n_columns) if kept is None else kept
    how = gate.get("map", "exp")
    whole = plain_orthogonal(size, trained, numbers, how, gate.get("order", 5))
    # Reflections and rotations make columns.
    is_turned = how in ("householder", "givens") and n_rows < n_columns
    return whole[:, :n_rows].T if is_turned else whole[:n_rows, :n_columns]
