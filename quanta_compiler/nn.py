"""Circuits as functions of their tensors: what an adapted layer applies. Layers of one shape share one plan.

    fitted = fit_circuit({"version": 1, "name": "c", "layout": {"auto": 4}, "gates": ["all_pairs"]}, 4096, 1024)
    tensors = fitted.draw(seed=0)
    y = fitted.apply(tensors, x)        # [..., 4096] -> [..., 1024]

An emitted module owns its parameters; an adapted layer holds those of several adapters side by side, flat. Here the
emitted forward pass is applied to tensors that the caller owns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from quanta_compiler.driver import compile_circuit
from quanta_compiler.kernels.executable import executable
from quanta_compiler.kernels.modules import difference, stored_in
from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.models.across import together
from quanta_compiler.models.fitting import fitted_spec
from quanta_compiler.presets.layouts import AUTO_RULE
from quanta_compiler.runtime.backends import BACKENDS, check_backend
from quanta_compiler.runtime.loading import load_class, make_module
from quanta_compiler.spec import load_spec, to_dict
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec

_BLOCK_BYTES = 2**21
"""What applying the circuit to one block of columns may hold at once, in float32."""
_TILES = 32
"""A weight is not updated in fewer blocks of rows: one must be a small part of it."""

Place = tuple[slice, slice]
"""Rows and columns of a matrix."""


class FittedCircuit:
    """A circuit compiled for layers of one shape; its tensors are passed in by name.

    Names are those of the gates; the factors of a low-rank gate `g` are `g-B` and `g-A`, and the matrix of a `constant`
    gate `g` is `constant-g`. Instances are immutable: a copy is the instance itself, and a pickle holds the document.
    """

    def __init__(self, spec: CircuitSpec) -> None:
        self.spec = spec
        self.in_features, self.out_features = spec.in_features, spec.out_features
        compiled = compile_circuit(spec)
        self.source = compiled.source
        blank = load_class(self.source)(device="meta")
        tensors = dict(circuit_tensors(blank))
        self._keys = {_flat_name(key): key for key in tensors}
        self.shapes = {_flat_name(key): tuple(tensor.shape) for key, tensor in tensors.items()}
        self.trained = tuple(_flat_name(key) for key, tensor in blank.named_parameters() if tensor.requires_grad)
        """Names of the tensors that train, in the order of the file."""
        self.fixed = tuple(name for name in self._keys if name not in self.trained)
        """Names of the others: gates with `frozen: true`, and constants."""
        # All of them now: torch.compile should find functions, not follow what makes them.
        self._forwards: dict[tuple[str, bool], Any] = {
            (backend, recompute): load_class(self.source, backend, recompute).forward
            for backend in BACKENDS
            for recompute in (False, True)
        }
        self._differences = {
            how: difference(load_class(self.source), *how, forward) for how, forward in self._forwards.items()
        }
        self._class = load_class(self.source)
        self._block = max(1, int(_BLOCK_BYTES / compiled.report.apply.peak_bytes_per_token))

    def __deepcopy__(self, memo: dict[int, Any]) -> FittedCircuit:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _refit, (json.dumps(to_dict(self.spec)),)

    def __repr__(self) -> str:
        return f"FittedCircuit({self.spec.name}: {self.in_features} -> {self.out_features})"

    @property
    def starts_at_zero(self) -> bool:
        """Say whether the operator is zero however the other gates are drawn."""
        return any(gate.starts_at_zero for gate in self.spec.gates)

    def from_identity(self, differences: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the trained tensors of a circuit that begins as the identity, from their differences to its start.

        Stored matrices begin as ones on the diagonal, diagonals as ones, and angles at zero.
        """
        tensors = dict(differences)
        for gate in self.spec.gates:
            difference = tensors.get(gate.name)
            if difference is None or gate.matrix.stores_angles:
                continue
            if gate.matrix.is_diagonal:
                tensors[gate.name] = difference + 1
            else:
                one = torch.eye(difference.shape[-1], dtype=difference.dtype, device=difference.device)
                tensors[gate.name] = difference + one
        return tensors

    def draw(self, seed: int) -> dict[str, torch.Tensor]:
        """Return all tensors as the file says they begin, on the CPU; torch's global generator is not touched.

        Gates are drawn in float32; the constants of the file are given in float64, as precise as it writes them.
        """
        return _drawn(self.source, seed)

    def draw_gate(self, name: str, seed: int) -> dict[str, torch.Tensor]:
        """Return the tensors of one gate as the file says they begin, whatever other gates there are."""
        (gate,) = (gate for gate in self.spec.gates if gate.name == name)
        return circuit_of_gate(gate).draw(seed)

    def owner(self, name: str) -> str:
        """Return the gate that a tensor is of."""
        key = self._keys[name]
        return key.split(".")[1] if key.startswith("gates.") else key.removeprefix("constant_")

    def together(self, layer: str) -> dict[str, str]:
        """Return the tensors that a layer has together with others, and what each is called by all of them."""
        parameters = together(self.spec, layer)
        gates = {name: gate for name in self.shapes if (gate := self.owner(name)) in parameters}
        return {name: parameters[gate] + name.removeprefix(gate) for name, gate in gates.items()}

    def draw_apart(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors drawn uniformly whatever the file says: a circuit that is neither zero nor S.

        From torch's global generator, as PEFT's methods draw with `init_weights=False`.
        """
        tensors = {}
        for name in self.trained:
            shape = self.shapes[name]
            bound = max(1, shape[-1]) ** -0.5 if len(shape) > 1 else 1.0
            tensors[name] = torch.empty(shape, dtype=torch.float32, device="cpu").uniform_(-bound, bound)
        return tensors

    def apply(
        self, tensors: Mapping[str, torch.Tensor], x: torch.Tensor, backend: str = "auto", recompute: bool = False
    ) -> torch.Tensor:
        """Apply the circuit: `[..., in_features] -> [..., out_features]`; the tensors have the dtype of `x`.

        `backend` and `recompute` are those of `CompiledCircuit.module`.
        """
        if backend not in BACKENDS:
            check_backend(backend)
        result: torch.Tensor = self._forwards[backend, recompute](self._parts(tensors), x)
        return result

    def apply_transposed(self, tensors: Mapping[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
        """Apply the transposed circuit, without gradient: `[..., out_features] -> [..., in_features]`."""
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(*y.shape[:-1], self.in_features, dtype=y.dtype, device=y.device, requires_grad=True)
            detached = {name: tensor.detach().clone() for name, tensor in tensors.items()}
            return torch.autograd.grad(self.apply(detached, x), x, y.clone())[0]

    def apply_difference(
        self,
        tensors: Mapping[str, torch.Tensor],
        minus: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        backend: str = "auto",
        recompute: bool = False,
    ) -> torch.Tensor:
        """Return T x - S x, where T has `tensors` and S has `minus`: in the dtype of `x` or in theirs.

        Both are computed alike, so that it is exactly zero for equal tensors.
        """
        return self._differences[backend, recompute](self._parts(tensors), self._parts(minus), x)

    def operator(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the operator, `[out_features, in_features]`, differentiable, also under torch.vmap."""
        # Large ones are built slice by slice, which torch.func does not know.
        build: Any = getattr(self._class, "_operator_at_once", self._class.operator)
        result: torch.Tensor = build(self._parts(tensors))
        return result

    def _parts(self, tensors: Mapping[str, torch.Tensor]) -> _Parts:
        parts = _Parts()
        for name, key in self._keys.items():
            path = key.split(".")[1:]
            if not path:
                setattr(parts, key, tensors[name])
            elif len(path) == 1:
                parts.gates[path[0]] = tensors[name]
            else:
                parts.gates.setdefault(path[0], {})[path[1]] = tensors[name]
        return parts

    def operator_blocks(
        self, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, device: torch.device
    ) -> Iterator[tuple[Place, torch.Tensor]]:
        """Yield the operator in blocks, and where each stands in it: some rows, or some columns, in order.

        One block is in memory at a time, so that a weight can be updated without a second matrix of its size.
        """
        tensors = {name: whole(tensor).to(dtype) for name, tensor in tensors.items()}
        if torch.compiler.is_compiling():
            yield (slice(None), slice(0, self.in_features)), self.operator(tensors)
            return
        found = executable(self._class.circuit).rows
        if found is not None and found.tiles >= _TILES:
            blocks = found.blocks(stored_in(self._parts(tensors)), dtype, device)
            yield from (((rows, slice(None)), block) for rows, block in blocks)
            return
        for first in range(0, self.in_features, self._block):
            columns = slice(first, min(first + self._block, self.in_features))
            rows = torch.arange(columns.stop - first, device=device)
            unit = torch.zeros(columns.stop - first, self.in_features, dtype=dtype, device=device)
            unit[rows, rows + first] = 1.0
            yield (slice(None), columns), self.apply(tensors, unit).T


def whole(tensor: Any) -> torch.Tensor:
    """Return a tensor that FSDP2 has sharded gathered from all processes, and any other as it is."""
    full: torch.Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return full


def is_sharded(tensor: Any) -> bool:
    """Say whether FSDP2 holds a tensor in parts."""
    # A plain tensor is known by its class, ten times as fast: every call of an adapted layer asks this of each.
    return type(tensor) not in _PLAIN and hasattr(tensor, "full_tensor")


_PLAIN = (nn.Parameter, torch.Tensor)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32, one of more as it is: what T = S + D and D = T - S are computed in."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _Parts:
    """What an emitted forward pass reads as `self`: gates (`gates.g`, `gates.g.B`), constants (`constant_g`)."""

    def __init__(self) -> None:
        self.gates: dict[str, Any] = {}

    def _require_memory(self, numbers: int) -> None:
        """Leave it to the allocation to tell: there are several operators, and their owner knows how many."""


def circuit_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what an emitted forward pass reads: the parameters, and the properties that hold what the file fixes."""
    yield from module.named_parameters()
    for circuit_class in type(module).__mro__:
        if circuit_class is torch.nn.Module:
            return
        fixed = [name for name, member in vars(circuit_class).items() if isinstance(member, property)]
        yield from ((name, getattr(module, name)) for name in fixed)


def _drawn(source: str, seed: int) -> dict[str, torch.Tensor]:
    """Return the tensors of an emitted module as they begin."""
    module = make_module(source, seed=seed, dtype=torch.float64, device="cpu", backend="torch")
    trained = dict(module.named_parameters())
    return {
        _flat_name(key): tensor.detach().float() if key in trained else tensor
        for key, tensor in circuit_tensors(module)
    }


@lru_cache(maxsize=512)
def circuit_of_gate(gate: GateSpec) -> FittedCircuit:
    """Compile a circuit of one gate, its blocks beside each other; axes that were named by position get names."""
    per, axes, to = (
        tuple(AxisSize(f"a{axis.name}", axis.size) for axis in group) for group in (gate.per, gate.axes, gate.to)
    )
    layout, output = (*per, *axes), (*per, *to)
    spec = CircuitSpec(
        name="gate",
        layout=layout,
        positional=False,
        in_features=math.prod(axis.size for axis in layout),
        out_features=math.prod(axis.size for axis in output),
        gates=(replace(gate, per=per, axes=axes, to=to),),
        output=output,
        tokens=1,
        optimizer="auto",
    )
    return FittedCircuit(spec)


def _flat_name(key: str) -> str:
    """Return a key of the emitted class without dots; gates are identifiers, so that `-` makes no two alike."""
    if key.startswith("gates."):
        return key.removeprefix("gates.").replace(".", "-")
    return key.replace("constant_", "constant-", 1)


def fit_circuit(
    document: Mapping[str, Any] | str, in_features: int, out_features: int, *, auto_rule: int = AUTO_RULE
) -> FittedCircuit:
    """Compile a circuit for layers of one shape; the same object for the same circuit and shape within a process.

    Which circuit it is says `fitted_spec`.

    Raises:
        SpecError: the document is no circuit.
        FeaturesError: the document writes `in_features` or `out_features`, and they are not those of the layer.

    """
    text = document if isinstance(document, str) else json.dumps(document)
    return _fit(text, in_features, out_features, auto_rule)


@lru_cache(maxsize=512)
def _fit(text: str, in_features: int, out_features: int, auto_rule: int) -> FittedCircuit:
    return _compiled(fitted_spec(json.loads(text), in_features, out_features, auto_rule=auto_rule))


def _refit(text: str) -> FittedCircuit:
    return _compiled(load_spec(json.loads(text)))


@lru_cache(maxsize=512)
def _compiled(spec: CircuitSpec) -> FittedCircuit:
    """Compile a circuit once, whether it is met as a template or with its layout written out."""
    return FittedCircuit(spec)
