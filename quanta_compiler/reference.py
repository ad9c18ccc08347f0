"""The oracle: a circuit's matrix gate by gate, dense, in float64, by the definition of the file format.

It imports neither planner nor lowering nor emit, so that it shares no code with what it judges.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.spec import load_spec


def reference_operator(module: torch.nn.Module) -> torch.Tensor:
    """Return the matrix of a compiled module: float64 `[out_features, in_features]`, on the CPU, without gradient.

    The circuit is read from the module's own `circuit` text and the gates from its state dict.
    """
    import json

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
        return torch.tensor(gate.value, dtype=torch.float64)[None]
    if gate.kind == "diagonal":
        return torch.diag_embed(tensors[gate.parameter].to(torch.float64).reshape(-1, rows))
    if gate.kind == "lowrank":
        left, right = tensors[f"{gate.parameter}.B"], tensors[f"{gate.parameter}.A"]
        matrix = left.to(torch.float64) @ right.to(torch.float64)
    else:
        matrix = tensors[gate.parameter].to(torch.float64)
    matrix = matrix.reshape(-1, *matrix.shape[-2:])
    return matrix.transpose(1, 2) if gate.transpose else matrix


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
