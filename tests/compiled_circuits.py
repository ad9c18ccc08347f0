"""Random circuits compiled once a process, and independent ways to evaluate and to measure them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import opt_einsum
import torch
from drawn_kinds import KINDS
from plain_oracle import plain_operator
from random_circuits import random_file, scale_gates
from torch.utils.flop_counter import FlopCounterMode

from quanta_compiler.bench.memory import StorageMeter
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.nn import circuit_tensors
from quanta_compiler.oracle.reference import gate_matrix

torch.set_num_threads(1)


@lru_cache(maxsize=256)
def compiled(seed: int) -> CompiledCircuit:
    """Return the random circuit of a seed, compiled."""
    return compile_circuit(random_file(seed))


def scaled_module(circuit: CompiledCircuit, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.nn.Module:
    """Return the circuit's emitted module with well-scaled gates."""
    return scale_gates(circuit.module(dtype=dtype, backend="torch"), seed)


def plain_matrix(file: dict[str, Any], module: torch.nn.Module) -> torch.Tensor:
    """Return the second oracle's matrix for a module's gates."""
    tensors = {key: value.double().numpy() for key, value in module.state_dict().items()}
    return torch.from_numpy(plain_operator(file, tensors))


def published_result(circuit: CompiledCircuit, module: torch.nn.Module, x: torch.Tensor | None) -> torch.Tensor:
    """Evaluate the einsum and the path that the report publishes: on `x` [tokens, in_features], or for the operator.

    Differentiable with respect to `x` and the module's parameters.
    """
    report = circuit.report.operator if x is None else circuit.report.apply
    terms = report.einsum.split("->")[0].split(",")
    assert len(terms) == len(report.operands)
    tensors: list[torch.Tensor] = []
    if x is not None:
        width = math.prod(circuit.report.layout.values())
        resized = torch.nn.functional.pad(x, (0, width - x.shape[1]))
        tensors.append(resized.reshape(len(x), *circuit.report.layout.values()))
    tensors += [_operand(circuit, place, module) for place in range(len(circuit.report.gates))]
    sizes = {
        symbol: size
        for term, tensor in zip(terms, tensors, strict=False)
        for symbol, size in zip(term, tensor.shape, strict=True)
    }
    # An axis that no gate touches is seen by its identity alone.
    layout = list(circuit.report.layout.values())
    sizes |= dict(zip(report.einsum[-len(layout) :], layout, strict=True)) if x is None else {}
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float64)
    for name, term in zip(report.operands[len(tensors) :], terms[len(tensors) :], strict=True):
        assert name == "eye"
        assert len(term) == 2
        known = sizes[term[1]] if term[1] in sizes else sizes[term[0]]
        tensors.append(torch.eye(known, dtype=dtype))
    result = opt_einsum.contract(report.einsum, *tensors, optimize=list(report.path))
    assert isinstance(result, torch.Tensor)
    spec = circuit.spec
    if x is not None:
        result = result.reshape(len(x), -1)
        return torch.nn.functional.pad(result, (0, spec.out_features - result.shape[1]))
    result = result.reshape(-1, math.prod(layout))
    pads = (0, spec.in_features - result.shape[1], 0, spec.out_features - result.shape[0])
    return torch.nn.functional.pad(result, pads)


def _operand(circuit: CompiledCircuit, place: int, module: torch.nn.Module) -> torch.Tensor:
    """Return a gate as an operand, `[*per, *to, *axes]`, a diagonal one `[*per, *axes]`, differentiable."""
    spec = circuit.spec.gates[place]
    gate = circuit.circuit.gates_in_file_order()[place]
    assert gate.name == spec.name == circuit.report.gates[place].name
    tensors = {key.removeprefix("gates."): value for key, value in module.named_parameters()}
    per, to, axes = ([axis.size for axis in group] for group in (spec.per, spec.to, spec.axes))
    if gate.kind == "diagonal":
        return tensors[gate.parameter].reshape(*per, *axes)
    matrix = gate_matrix(circuit.circuit, gate, tensors)
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float64)
    if gate.is_diagonal:
        return matrix[0].diagonal().to(dtype).reshape(*axes)
    return matrix.to(dtype).reshape(*per, *to, *axes)


def computed_kinds(circuit: CompiledCircuit) -> set[str]:
    """Return the kinds of those gates whose matrices are made when a module runs."""
    return {gate.kind for gate in circuit.circuit.gates if KINDS[gate.kind].is_computed}


def counted_flops(run: Callable[[], object]) -> int:
    """Return the matmul FLOPs that torch counts."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def own_tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return what a module holds, and of an emitted one what its file fixes."""
    fixed = [tensor for _, tensor in circuit_tensors(module)] if hasattr(module, "circuit") else []
    return [*module.parameters(), *module.buffers(), *fixed]


def saved_bytes(module: torch.nn.Module, run: Callable[[], object]) -> int:
    """Return the bytes of distinct storages kept for backward that are no parameters or constants of the module."""
    own = {tensor.untyped_storage().data_ptr() for tensor in own_tensors(module)}
    saved: dict[int, int] = {}
    held: list[object] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        held.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held.append(run())
    return sum(saved.values())


def peak_meter(module: torch.nn.Module, *held: torch.Tensor) -> StorageMeter:
    """Return a meter of what operations make, beside the module's own tensors and those `held` by the caller."""
    return StorageMeter([*own_tensors(module), *held])


@torch.no_grad()
def peak_bytes(module: torch.nn.Module, given: torch.Tensor | None, run: Callable[[], object]) -> int:
    """Return the most bytes alive at once while `run` is evaluated, its input included, parameters not."""
    with peak_meter(module) as meter:
        if given is not None:
            meter.note(given)
        run()
    return int(meter.peak)
