"""The oracle: a circuit's matrix gate by gate, dense, in float64, by the definition of the file format.

It imports neither planner nor lowering nor emit, so that it shares no code with what it judges.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.kinds.plugins import blamed
from quanta_compiler.spec import load_spec


def reference_operator(module: torch.nn.Module) -> torch.Tensor:
    """Return the matrix of a compiled module: float64 `[out_features, in_features]`, on the CPU, without gradient.

    The circuit is read from the module's own `circuit` text and the gates from its state dict.
    """
    circuit = build_circuit(load_spec(json.loads(str(module.circuit))))
    tensors = {
        key.removeprefix("gates."): value.detach().to("cpu", torch.float64)
        for key, value in module.state_dict().items()
    }
    return circuit_operator(circuit, tensors)


def circuit_operator(circuit: Circuit, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the matrix of a circuit, `[out_features, in_features]`; `tensors` are named as in the state dict."""
    return apply_gates(circuit, tensors, torch.eye(circuit.in_features, dtype=torch.float64)).T.contiguous()


def apply_gates(circuit: Circuit, tensors: Mapping[str, torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
    """Return `[tokens, in_features] -> [tokens, out_features]`, one gate after the other, in float64."""
    vectors = vectors.to(torch.float64)
    tokens = vectors.shape[0]
    state = torch.zeros(tokens, circuit.in_size, dtype=torch.float64)
    kept = min(circuit.in_features, circuit.in_size)
    state[:, :kept] = vectors[:, :kept]
    legs = list(circuit.inputs)
    for gate in circuit.gates:
        for part in gate.parts or (gate,):
            matrix = gate_matrix(circuit, part, tensors)
            state, legs = _apply(circuit, part, matrix, state, legs)
    order = [legs.index(leg) for leg in circuit.outputs]
    shape = [circuit.legs[leg].size for leg in legs]
    state = state.reshape(tokens, *shape).permute(0, *(place + 1 for place in order)).reshape(tokens, -1)
    result = torch.zeros(tokens, circuit.out_features, dtype=torch.float64)
    kept = min(circuit.out_features, circuit.out_size)
    result[:, :kept] = state[:, :kept]
    return result


def gate_matrix(circuit: Circuit, gate: Gate, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return a gate's matrices, `[blocks, rows, columns]`, one block for every index of its `per` axes."""
    rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
    if gate.kind == "slice":
        return torch.eye(rows, columns, dtype=torch.float64)[None]
    if gate.kind == "constant":
        return torch.tensor(gate.matrix.given, dtype=torch.float64)[None]
    if gate.kind == "diagonal":
        return torch.diag_embed(tensors[gate.parameter].to(torch.float64).reshape(-1, rows))
    if gate.kind == "cz":
        # The last index of both axes is the last of all.
        return torch.diag(torch.tensor([1.0] * (rows - 1) + [-1.0], dtype=torch.float64))[None]
    if gate.matrix.is_made:
        stored = tensors[gate.parameter].to(torch.float64)
        shape = (columns, rows) if gate.transpose else (rows, columns)
        (part,) = gate.matrix.stored(*shape)
        blocks = stored.reshape(circuit.size(gate.per), *stored.shape[-len(part.shape) :])
        matrix = torch.stack([_rotation(gate, numbers, *shape) for numbers in blocks])
    elif gate.kind == "lowrank":
        left, right = tensors[f"{gate.parameter}.B"], tensors[f"{gate.parameter}.A"]
        matrix = left.to(torch.float64) @ right.to(torch.float64)
    else:
        matrix = tensors[gate.parameter].to(torch.float64)
    matrix = matrix.reshape(-1, *matrix.shape[-2:])
    return matrix.transpose(1, 2) if gate.transpose else matrix


def _rotation(gate: Gate, numbers: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return `[rows, columns]` from what one block stores: a square matrix, its first columns, or its first rows."""
    if gate.kind == "ry":
        angle = numbers[gate.angle or 0]
        return _turned(angle, torch.eye(2, dtype=torch.float64), 1)
    size, options = max(rows, columns), gate.matrix.data()
    if gate.kind == "orthogonal":
        return _orthonormal(options, numbers, rows, columns)
    if gate.kind == "givens":
        return _planes(options.get("pairs"), numbers, size)
    if gate.kind != "pauli":
        with blamed(gate.kind, "gives no reference"):
            return torch.as_tensor(gate.matrix.reference(numbers.numpy(), rows, columns), dtype=torch.float64)
    angles, kept = iter(numbers), options.get("rank_parameters")
    matrix = _pauli(torch.eye(size, columns, dtype=torch.float64), options["layers"], kept, angles)
    assert next(angles, None) is None, "every angle is used"
    return matrix[:rows]


def _orthonormal(options: Mapping[str, Any], numbers: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return `[rows, columns]`; `numbers` lie below the diagonal of the first columns, one column after the other.

    Reflections and rotations make columns, of which wide matrices are the transpose; all else is a function of a
    skew-symmetric matrix, cut on either side.
    """
    size, smaller = max(rows, columns), min(rows, columns)
    trained = min(smaller, options.get("rank_parameters", smaller))
    if options["map"] in ("householder", "givens"):
        made = (_reflected if options["map"] == "householder" else _turned_planes)(numbers, size, trained)
        return made[:, :smaller] if rows >= columns else made[:, :smaller].T
    below = torch.zeros(size, size, dtype=torch.float64)
    for column, entries in enumerate(_apart(numbers, size, trained)):
        below[column + 1 :, column] = entries
    return _of_skew(options, below - below.T)[:rows, :columns]


def _apart(numbers: torch.Tensor, size: int, trained: int) -> Sequence[torch.Tensor]:
    """Return the numbers of each column: one for each row below the diagonal."""
    return torch.split(numbers, [size - 1 - column for column in range(trained)])


def _of_skew(options: Mapping[str, Any], skew: torch.Tensor) -> torch.Tensor:
    """Return the exponential, the Cayley transform, or what is left of either's series."""
    one = torch.eye(len(skew), dtype=torch.float64)
    if options["map"] == "exp":
        return torch.matrix_exp(skew)
    if options["map"] == "cayley":
        quotient: torch.Tensor = torch.linalg.solve(one - skew / 2, one + skew / 2)
        return quotient
    power, series = one, one
    for degree in range(1, options["order"] + 1):
        power = power @ skew / (degree if options["map"] == "taylor" else 2)
        series = series + power
    return series if options["map"] == "taylor" else series @ (one + skew / 2)


def _reflected(numbers: torch.Tensor, size: int, trained: int) -> torch.Tensor:
    """Return the product of reflections, the first one's on the left, their columns negated: the identity at zero."""
    matrix = torch.eye(size, dtype=torch.float64)
    for column, entries in enumerate(_apart(numbers, size, trained)):
        vector = torch.cat([torch.zeros(column), torch.ones(1), entries])
        matrix = torch.addr(matrix, matrix @ vector, vector * (-2 / vector.dot(vector)))
    return torch.cat([-matrix[:, :trained], matrix[:, trained:]], dim=1)


def _turned_planes(numbers: torch.Tensor, size: int, trained: int) -> torch.Tensor:
    """Return the product of rotations of a column's index with each below it, the first one's on the left."""
    pairs = [(column, row) for column in range(trained) for row in range(column + 1, size)]
    return _planes(pairs[::-1], numbers.flip(0), size)


def _planes(pairs: Sequence[tuple[int, int]] | None, angles: torch.Tensor, size: int) -> torch.Tensor:
    """Return the product of rotations, the first pair's applied first; without pairs those of all neighbours."""
    if pairs is None:
        pairs = [(index, index + 1) for start in (0, 1) for index in range(start, size - 1, 2)]
    matrix = torch.eye(size, dtype=torch.float64)
    for (i, j), angle in zip(pairs, angles, strict=True):
        cosine, sine = torch.cos(angle / 2), torch.sin(angle / 2)
        one, other = matrix[i].clone(), matrix[j].clone()
        matrix[i], matrix[j] = cosine * one - sine * other, sine * one + cosine * other
    return matrix


def _pauli(state: torch.Tensor, layers: int, kept: int | None, angles: Iterator[torch.Tensor]) -> torch.Tensor:
    """Apply the matrix of a `pauli` gate to columns, `[size, columns]`; angles are taken as they are needed.

    A size that is no power of two is `first + second`: diag(U1, U2) C diag(V1, V2), where C turns entry i of the first
    part with entry i of the second.
    """
    size = state.shape[0]
    first = 1 << (size.bit_length() - 1)
    if first == size:
        return _two_design(state, layers, kept, angles)
    second = size - first
    pairs = second if kept is None else min(kept, second)

    def apart(state: torch.Tensor) -> torch.Tensor:
        above = _pauli(state[:first], layers, kept, angles)
        return torch.cat([above, _pauli(state[first:], layers, kept, angles)])

    state = apart(state)
    half = torch.stack([next(angles) for _ in range(pairs)])[:, None] / 2
    upper, lower = state[:pairs], state[first : first + pairs]
    turned = torch.cos(half) * upper - torch.sin(half) * lower
    lower = torch.sin(half) * upper + torch.cos(half) * lower
    return apart(torch.cat([turned, state[pairs:first], lower, state[first + pairs :]]))


def _two_design(state: torch.Tensor, layers: int, kept: int | None, angles: Iterator[torch.Tensor]) -> torch.Tensor:
    """Apply RY on all wires, then for each layer CZ and RY on the pairs from wire 0, and on those from wire 1."""
    wires = state.shape[0].bit_length() - 1
    for wire in range(wires)[:kept]:
        state = _turned(next(angles), state, 1 << wire)
    for start in [0, 1] * layers:
        pairs = [(wire, wire + 1) for wire in range(start, wires - 1, 2)]
        for wire, _ in pairs:
            signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
            quarters = state.reshape(1 << wire, 2, 2, -1)
            state = (quarters * signs[None, :, :, None]).reshape(state.shape)
        for wire in [wire for pair in pairs for wire in pair][:kept]:
            state = _turned(next(angles), state, 1 << wire)
    return state


def _turned(angle: torch.Tensor, state: torch.Tensor, slower: int) -> torch.Tensor:
    """Apply an RY to columns, `[size, columns]`, on the bit with this number of slower indices before it."""
    zero, one = state.reshape(slower, 2, -1).unbind(1)
    cosine, sine = torch.cos(angle / 2), torch.sin(angle / 2)
    return torch.stack([cosine * zero - sine * one, sine * zero + cosine * one], dim=1).reshape(state.shape)


def _apply(
    circuit: Circuit, gate: Gate, matrix: torch.Tensor, state: torch.Tensor, legs: list[int]
) -> tuple[torch.Tensor, list[int]]:
    """Bring per and contracted axes to the end, multiply, and let the new axes stay there."""
    tokens = state.shape[0]
    rest = [leg for leg in legs if leg not in gate.columns and leg not in gate.per]
    order = [legs.index(leg) for leg in [*rest, *gate.per, *gate.columns]]
    tensor = state.reshape(tokens, *(circuit.legs[leg].size for leg in legs)).permute(0, *(o + 1 for o in order))
    tensor = tensor.reshape(-1, circuit.size(gate.per), circuit.size(gate.columns))
    moved = torch.stack([tensor[:, block] @ matrix[block].T for block in range(tensor.shape[1])], dim=1)
    return moved.reshape(tokens, -1), [*rest, *gate.per, *gate.rows]
