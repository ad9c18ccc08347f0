"""Parameters that layers have together (`across`): held once by the adapted model, and reached by its layers.

Not by the tuner, as PEFT's VeRA does it: where transformers loads an adapter into a model no tuner is left, and the
model alone is moved, saved and sharded. FSDP2 gathers them with what it does not gather block by block.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from quanta_compiler.models.across import alone, shared_gates, together
from quanta_compiler.nn import FittedCircuit, whole, wide
from quanta_compiler.peft.errors import Problem
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.peft.resolved import Resolved
from quanta_compiler.peft.tensors import FrozenParameters, Tensors, held
from quanta_compiler.spec.circuit_spec import CircuitSpec

SHARED = f"{METHOD}_shared"
"""The attribute of an adapted model that holds them: `<shared>.<adapter>.<part>-<parameter>`."""


class SharedTensors(FrozenParameters):
    """What layers have together for one adapter: D or T, which train, and S and what is fixed, which never do."""

    frozen = "frozen-"


class Shared(nn.ModuleDict):
    """The tensors of all adapters, `SharedTensors` by adapter; a tensor is here while a layer has it."""

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[tuple[str, str, str], None] = {}
        """Adapter, tensor and layer."""
        self.drawn: set[tuple[str, str]] = set()
        """Adapter and tensor of what the current injection has made: others of that name are of an earlier one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input: an `nn.Sequential` that is adapted calls all that it holds."""
        return x

    def held(self, adapter: str) -> dict[str, Any]:
        """Return an adapter's parameters by name."""
        holder: Any = self._modules.get(adapter)
        return {} if holder is None else holder._parameters

    def add(self, adapter: str, key: str, tensor: torch.Tensor) -> None:
        """Store a tensor, in the place of what an earlier injection has made."""
        if adapter not in self._modules:
            self.add_module(adapter, SharedTensors())
        holder: Any = self._modules[adapter]
        holder[key] = nn.Parameter(tensor)
        self.drawn.add((adapter, key))

    def widen(self, adapter: str) -> None:
        """Have an adapter's tensors in float32 at least, as PEFT has those of layers."""
        for tensor in self.held(adapter).values():
            tensor.data = wide(tensor.data)

    def state_shapes(self, adapter: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the keys and shapes of what is saved for an adapter, as a layer does: after the model's name."""
        for key, tensor in self.held(adapter).items():
            yield f"{SHARED}.{adapter}.{key}", tuple(tensor.shape)

    def leave(self, adapter: str, layer: str) -> None:
        """Take a layer off an adapter's tensors; what no layer has any more is deleted."""
        for member in [member for member in self.members if member[0] == adapter and member[2] == layer]:
            del self.members[member]
        kept = {key for own, key, _ in self.members if own == adapter}
        holder: Any = self._modules.get(adapter, {})
        for key in [key for key in holder if key not in kept]:
            del holder[key]
            self.drawn.discard((adapter, key))
        if not kept:
            self._modules.pop(adapter, None)


class Reach:
    """What one layer has together with others for an adapter.

    Not a module, so that the tensors are no part of the layer: a state dict, an optimizer and `to` meet them once.
    """

    def __init__(self, shared: Shared, adapter: str, layer: str, fitted: FittedCircuit) -> None:
        self.shared, self.adapter, self.layer, self.fitted = shared, adapter, layer, fitted
        self.together = fitted.together(layer)
        """The tensors that are shared, and what each is called by all layers."""
        self.keys: dict[str, dict[str, str]] = {"trained": {}, "frozen": {}}
        """The tensors of D or T and those of S that are shared, each with its key."""

    def join(self, names: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
        """Take part in what other layers have of these tensors; return those that are to be made yet.

        They are given by part: `delta`, `gates` or `frozen`.
        """
        left: dict[str, Sequence[str]] = {}
        for part, group in names.items():
            keys = {name: f"{part}-{self.together[name]}" for name in group if name in self.together}
            self.keys["frozen" if part == "frozen" else "trained"] = keys
            self.shared.members.update({(self.adapter, key, self.layer): None for key in keys.values()})
            left[part] = [name for name in group if (self.adapter, keys.get(name)) not in self.shared.drawn]
        return left

    def store(self, which: str, tensors: Tensors) -> Tensors:
        """Store those of the tensors, `trained` or `frozen`, that are shared, and return the others."""
        keys = self.keys[which]
        for name, key in keys.items():
            if name in tensors:
                self.shared.add(self.adapter, key, tensors[name])
        return {name: tensor for name, tensor in tensors.items() if name not in keys}

    def drawn_by(self, names: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the gates of some tensors, and what each is drawn by: the layer's name or what the layers call it."""
        parameters = together(self.fitted.spec, self.layer)
        for gate in dict.fromkeys(self.fitted.owner(name) for name in self.fitted.shapes if name in names):
            yield gate, parameters.get(gate, f"{self.layer}:{gate}")

    def raw(self, which: str) -> Tensors:
        """Return the tensors that are `trained` or `frozen` as they are held, by their names in the circuit."""
        held = self.shared.held(self.adapter)
        return {name: held[key] for name, key in self.keys[which].items()}

    def parameters(self) -> Iterator[torch.Tensor]:
        """Yield what trains, as PEFT asks the holders of trained tensors."""
        yield from self.raw("trained").values()

    def expected(self) -> Iterator[tuple[str, torch.Tensor, tuple[int, ...]]]:
        """Yield what the layer has: its key after the model's name, the tensor, and the shape that it should have."""
        for which, keys in self.keys.items():
            for name, tensor in self.raw(which).items():
                yield f"{SHARED}.{self.adapter}.{keys[name]}", tensor, self.fitted.shapes[name]


class SharingLayer(BaseTunerLayer):
    """A layer's tensors: those of its own, and those that it has together with other layers."""

    quanta_circuit_shared: dict[str, Reach]
    _holder: Callable[[str], Any]

    def reach_shared(self, shared: Shared | None, adapter: str, fitted: FittedCircuit) -> None:
        """Have a circuit's shared gates together with the other layers of `shared`; None for one that has none."""
        self._leave_shared(adapter)
        if shared is not None:
            self.quanta_circuit_shared[adapter] = Reach(shared, adapter, self._layer_name, fitted)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; what no other layer has together with this one is gone."""
        self._leave_shared(adapter_name)
        super().delete_adapter(adapter_name)

    def _leave_shared(self, adapter: str) -> None:
        reach = self.quanta_circuit_shared.pop(adapter, None)
        if reach is not None:
            reach.shared.leave(adapter, reach.layer)

    def shared_tensors(self, adapter: str, which: str) -> Tensors:
        """Return those of the tensors, `trained` or `frozen`, that other layers have too, as they are held."""
        reach = self.quanta_circuit_shared.get(adapter)
        return {} if reach is None else reach.raw(which)

    def move_shared(self, adapter: str, device: torch.device) -> None:
        """Move what the layer shares, but for what is still to be loaded."""
        for which in ("trained", "frozen"):
            for tensor in self.shared_tensors(adapter, which).values():
                tensor.data = tensor.data if tensor.is_meta else tensor.data.to(device)

    def trained_parameters(self, adapter: str) -> Iterator[torch.Tensor]:
        """Yield what trains as it is held."""
        yield from self._holder(adapter)._parameters.values()
        yield from self.shared_tensors(adapter, "trained").values()

    def trained_tensors(self, adapter: str) -> Tensors:
        """Return D or T by name, gathered where FSDP2 has sharded them."""
        return self._with_shared(adapter, "trained", held(self._holder(adapter)))

    def frozen_tensors(self, adapter: str) -> Tensors:
        """Return S and what is fixed of T by name, gathered where FSDP2 has sharded them."""
        return self._with_shared(adapter, "frozen", held(self.quanta_circuit_frozen[adapter]))

    def _with_shared(self, adapter: str, which: str, own: Tensors) -> Tensors:
        # Layers may be on several devices; the features are where the layer's own tensors are.
        device = self.quanta_circuit_features._parameters[adapter].device
        shared = {name: whole(tensor) for name, tensor in self.shared_tensors(adapter, which).items()}
        # What is still to be loaded is on no device.
        return own | {name: tensor if tensor.is_meta else tensor.to(device) for name, tensor in shared.items()}


def shared_of(model: Any) -> Shared | None:
    """Return what layers of a model have together; None where no gate is shared."""
    found: Shared | None = model._modules.get(SHARED)
    return found


def shared_for(model: nn.Module, spec: CircuitSpec) -> Shared | None:
    """Return what layers of a model have together, made where there is none yet; None for one that shares nothing."""
    if all(gate.across is None for gate in spec.gates):
        return None
    if SHARED not in model._modules:
        model.add_module(SHARED, Shared())
    return shared_of(model)


def conflict(fit: Resolved, layer: str, known: dict[str, tuple[str, Any]]) -> Problem | None:
    """Return what is wrong where a gate cannot be the one that an earlier layer has; `known` is added to."""
    for _, gate, parameter in shared_gates([(layer, fit.fitted.spec)]):
        # What trains is T with `none`, and a difference with every other residual.
        is_whole = fit.residual == "none" and not gate.frozen
        own = (gate.matrix, gate.init, gate.frozen, gate.across), is_whole
        other, first = known.setdefault(parameter, (layer, own))
        if own != first:
            why = "they are not alike" if own[0] != first[0] else "`residual` is 'none' for one of the two alone"
            return Problem(f"{layer}: gate {gate.name!r} would be that of {other}, and {why}", _UNLIKE)
    return None


def unshared(layers: Iterable[tuple[str, CircuitSpec]]) -> list[Problem]:
    """Return the gates with `across` that no other layer has."""
    return [
        Problem(
            f"{name} ({spec.in_features} -> {spec.out_features}): gate {gate.name!r} is `across: {gate.across}`, and "
            f"no other {_WHICH[gate.across or '']} has it with a matrix {' x '.join(map(str, gate.shape))}",
            _ALONE,
        )
        for (name, spec), gate in alone(layers)
    ]


_UNLIKE = (
    "write `kind`, `init`, `frozen` and `across` of gates of one name alike, with one residual for all of their layers "
    "(QuantaConfig(residual='frozen_copy')), or call one of them otherwise"
)
_WHICH = {"layers": "layer of this target name", "targets": "target in the same layer", "all": "adapted layer"}
_ALONE = (
    "leave `across` out of the gate, adapt other layers too (`target_modules`), give such a layer a circuit of its own "
    "(QuantaConfig(circuit={...})), or exclude it (`exclude_modules`)"
)
