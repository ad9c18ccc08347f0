"""Experts that are one tensor for all of them, with a circuit for each: computed and added in one batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import nn
from torch.utils.checkpoint import checkpoint

from quanta_compiler.kernels.precision import without_autocast
from quanta_compiler.nn import FittedCircuit, is_sharded, wide
from quanta_compiler.peft.bases import FLOATS, is_partitioned, offloading
from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.errors import AdapterError, Problem
from quanta_compiler.peft.expert_tensors import ExpertTensor, expert_tensors
from quanta_compiler.peft.layer import QuantaCircuitLayer
from quanta_compiler.peft.resolved import Resolved
from quanta_compiler.peft.rounding import described
from quanta_compiler.peft.tensors import Tensors
from quanta_compiler.peft.weights import check_finite


class ExpertCircuits:
    """A circuit of one shape for every expert: every tensor has a leading dimension of experts.

    The names of tensors begin with that of the parameter: where the adapter stands in the module is no name for it.
    """

    def __init__(self, fitted: FittedCircuit, experts: int, key: str) -> None:
        """Take the circuit of one expert, their count, and what the module calls the parameter."""
        self.fitted, self.experts, self.key = fitted, experts, key
        self.spec = fitted.spec
        self.shapes = {self._long(name): (experts, *shape) for name, shape in fitted.shapes.items()}
        self.trained = tuple(map(self._long, fitted.trained))
        self.fixed = tuple(map(self._long, fitted.fixed))

    def __repr__(self) -> str:
        return f"{self.experts} x {self.fitted!r}"

    def draw(self, seed: int) -> Tensors:
        """Return all tensors as the file says they begin, those of each expert drawn by themselves."""
        return self._stacked(lambda expert: self.fitted.draw(seed + expert))

    def draw_apart(self) -> Tensors:
        """Return the trained tensors drawn whatever the file says, by torch's global generator."""
        return self._stacked(lambda _: self.fitted.draw_apart())

    def from_identity(self, differences: Mapping[str, torch.Tensor]) -> Tensors:
        """Return the trained tensors of circuits that begin as the identity, from their differences to its start."""
        return self._named(self.fitted.from_identity(self._short(differences)))

    def operators(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the operators of all experts in one batch, `[experts, out_features, in_features]`, differentiable.

        In float32 or better.
        """
        stacked = {name: wide(tensor) for name, tensor in self._short(tensors).items()}
        operators: torch.Tensor = torch.vmap(self.fitted.operator)(stacked)
        return operators

    def _long(self, name: str) -> str:
        return f"{self.key}-{name}"

    def _named(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        return {self._long(name): tensor for name, tensor in tensors.items()}

    def _short(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        return {name.removeprefix(f"{self.key}-"): tensor for name, tensor in tensors.items()}

    def _stacked(self, draw: Callable[[int], Tensors]) -> Tensors:
        drawn = [draw(expert) for expert in range(self.experts)]
        return self._named({name: torch.stack([one[name] for one in drawn]) for name in drawn[0]})


class QuantaCircuitExperts(nn.Module, QuantaCircuitLayer):
    """A module of experts with circuits on one of its parameters; around it stands that of the next parameter.

    The module reads the parameter itself, so that for the time of its forward pass the adapted tensor is put in the
    parameter's place. All parameters of three axes have their place around the module, with adapters or without: an
    adapter's keys do not depend on what others have adapted.
    """

    def __init__(self, base_layer: nn.Module, tensor: ExpertTensor, active: list[str], **kwargs: Any) -> None:
        super().__init__()
        self.tensor_name = tensor.key
        self.experts = tensor.shape[0]
        self.fan_in_fan_out = tensor.is_transposed
        self._tensor_features = tensor.features
        QuantaCircuitLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = active
        self.watch_loading()

    def _describe_base(self) -> None:
        self.in_features, self.out_features = self._tensor_features

    def _get_base_layer_device_and_dtype(self, base_layer: Any) -> tuple[torch.device, torch.dtype]:
        parameter = getattr(base_layer, self.tensor_name)
        return parameter.device, parameter.dtype

    def take_circuit(self, adapter: str, config: QuantaConfig, fit: Resolved, name: str, **kwargs: Any) -> None:
        """Give the experts an adapter, or give the adapter its initial values again."""
        circuits: Any = ExpertCircuits(fit.fitted, self.experts, self.tensor_name)
        self.update_layer(adapter, config, fit._replace(fitted=circuits), name, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with the adapted tensor in the place of its parameter."""
        if kwargs.pop("adapter_names", None) is not None:
            raise AdapterError(f"{self._layer_name}: {_BY_ROW}")
        self.was_called = True
        if self.disable_adapters and self.merged:
            self.unmerge()
        active = [adapter for adapter in self.active_adapters if self.has_adapter(adapter)]
        if self.disable_adapters or self.merged or not active:
            return self.base_layer(*args, **kwargs)
        if self.quanta_circuit_features.replaced_adapters:
            self.settle()
        if not torch.compiler.is_compiling():
            for adapter in active:
                self.take_difference(adapter)
        weight = self._weight()
        if any(self.quanta_circuit_backend[adapter][1] for adapter in active):
            adapted = checkpoint(self._adapted, weight, active, use_reentrant=False)
        else:
            adapted = self._adapted(weight, active)
        place = f"{_WRAPPED * self._depth()}{self.tensor_name}"
        return torch.func.functional_call(self.base_layer, {place: adapted}, args, kwargs)

    def _depth(self) -> int:
        """Return how many others of this class stand between this one and the module."""
        inner: Any = self.base_layer
        return 1 + inner._depth() if isinstance(inner, QuantaCircuitExperts) else 0

    def _weight(self) -> nn.Parameter:
        """Return the parameter.

        Raises:
            AdapterError: FSDP2 holds it in parts.

        """
        weight: nn.Parameter = getattr(self.get_base_layer(), self.tensor_name)
        if is_sharded(weight):
            raise AdapterError(f"{self._layer_name}: {_SHARDED}")
        return weight

    def _adapted(self, weight: torch.Tensor, adapters: Sequence[str]) -> torch.Tensor:
        for adapter in adapters:
            weight = self._changed(weight, adapter, self.quanta_circuit_scale[adapter])
        return weight

    def _changed(self, weight: torch.Tensor, adapter: str, scale: float) -> torch.Tensor:
        """Return a weight with an adapter merged into it: computed in float32 or better, and rounded once."""
        with without_autocast(weight.device):
            update = self._update(weight, adapter)
            return torch.add(weight.to(update.dtype), update, alpha=scale).to(weight.dtype)

    def _update(self, weight: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the update of a weight, stored as it is: T - S, T - 1 or T of every expert, or W T - W or T W - W."""
        circuits: Any = self.quanta_circuit_plan[adapter]
        trained, frozen = self.circuits(adapter)
        update: torch.Tensor = circuits.operators(trained)  # [experts, out_features, in_features]
        placement = self.quanta_circuit_placement[adapter]
        if placement != "parallel":
            matrix = self._as_matrix(weight).to(update.dtype)
            update = (matrix @ update if placement == "input" else update @ matrix) - matrix
        elif frozen is not None:
            update = update - circuits.operators(frozen)
        elif self.quanta_circuit_residual[adapter] == "identity":
            update = update - torch.eye(self.in_features, dtype=update.dtype, device=update.device)
        return self._as_matrix(update)

    def _as_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a view with the last two axes as a linear layer stores them, or as the experts do."""
        return weight.mT if self.fan_in_fan_out else weight

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merge the adapters into the parameter; `safe_merge` refuses a result that is not finite."""
        for adapter in check_adapters_to_merge(self, adapter_names):
            if not self.has_adapter(adapter):
                continue
            weight, scale = self._weight(), self.quanta_circuit_scale[adapter]
            with torch.no_grad():
                merged = self._changed(weight.data, adapter, scale)
            if safe_merge:
                check_finite(self, adapter, merged)
            weight.data = merged
            self._merged_scales[adapter] = scale
            self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Take the merged adapters out again; the parameter is what it was, but for rounding."""
        if self.merged:
            weight = self._weight()
            weight.data = self._unmerged(weight.data)
            self.merged_adapters.clear()

    @torch.no_grad()
    def _unmerged(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight without the adapters that are merged into it."""
        for adapter in filter(self.has_adapter, reversed(self.merged_adapters)):
            scale = self._merged_scales[adapter]
            if self.quanta_circuit_placement[adapter] == "parallel":
                weight = self._changed(weight, adapter, -scale)
            else:
                with without_autocast(weight.device):
                    weight = self._divided(weight, adapter, scale)
        return weight

    def _divided(self, weight: torch.Tensor, adapter: str, scale: float) -> torch.Tensor:
        """Return a weight without an adapter that it was multiplied by."""
        circuits: Any = self.quanta_circuit_plan[adapter]
        precise = torch.float32 if weight.device.type == "mps" else torch.float64
        turned = circuits.operators(self.circuits(adapter)[0]).to(precise)
        turned = torch.lerp(torch.eye(turned.shape[-1], dtype=precise, device=turned.device), turned, scale)
        is_left = self.quanta_circuit_placement[adapter] == "output"
        try:
            matrix = torch.linalg.solve(turned, self._as_matrix(weight).to(precise), left=is_left)
        except RuntimeError:
            raise AdapterError(
                f"{self._layer_name}: a circuit of {adapter!r} is singular, and what it was multiplied by cannot be "
                "divided out again\nhint: load the base model anew"
            ) from None
        return self._as_matrix(matrix).to(weight.dtype).contiguous()

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """Return the update of an adapter, shaped as the parameter is, in the adapter's dtype.

        Raises:
            KeyError: there is no such adapter.

        """
        if not self.has_adapter(adapter):
            raise KeyError(f"no adapter {adapter!r} on these experts: there is {', '.join(self.quanta_circuit_plan)}")
        with torch.no_grad(), without_autocast(self._base_device()):
            update = self._update(self._unmerged(self._weight().data), adapter)
        return update.mul_(self.quanta_circuit_scale[adapter])

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """Return the module of experts, with the adapters of all its parameters merged or gone."""
        inner: Any = self
        while isinstance(inner, QuantaCircuitExperts):
            if merge:
                inner.merge(safe_merge=safe_merge, adapter_names=adapter_names)
            inner = inner.base_layer
        module: nn.Module = inner
        return module

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Say that PEFT's conversion, which takes one matrix per layer, knows nothing of experts."""
        return False

    def extra_repr(self) -> str:
        """Name the parameter and the circuits in `print(model)`."""
        plans = [f"{adapter}={plan!r}" for adapter, plan in self.quanta_circuit_plan.items()]
        return ", ".join([f"tensor_name={self.tensor_name!r}", *plans]) + described(self)

    def __repr__(self) -> str:
        return "quanta_circuit." + super().__repr__()


def adapter_of(parent: nn.Module, tensor: ExpertTensor, active: list[str]) -> QuantaCircuitExperts:
    """Return what holds the adapters on a tensor, put around its module, in `parent`, if it is not there yet."""
    child = tensor.path.rpartition(".")[2]
    outer: Any = getattr(parent, child)
    if not isinstance(outer, QuantaCircuitExperts):
        for one in expert_tensors(tensor.module):
            if not one.path:
                outer = QuantaCircuitExperts(outer, one, active)
        setattr(parent, child, outer)
    while outer.tensor_name != tensor.key:
        outer = outer.base_layer
    experts: QuantaCircuitExperts = outer
    return experts


def obstacles_to_experts(config: QuantaConfig, tensor: ExpertTensor) -> Iterator[Problem]:
    """Yield why no circuits can be put on a tensor of experts."""
    parameter: Any = getattr(tensor.module, tensor.key)
    if not tensor.path:
        yield Problem(f"{tensor.name}: it is a parameter of the model itself", "put the experts into a module of it")
    if config.dropout:
        text = f"{tensor.name}: experts read their weights, so that there is no input that `dropout` could drop from"
        yield Problem(text, f"leave `dropout` out, or the experts: {_LEAVE_OUT}")
    if config.dora:
        yield Problem(f"{tensor.name}: experts have no magnitudes", f"leave `dora` out, or the experts: {_LEAVE_OUT}")
    if config.residual == "folded":
        yield Problem(f"{tensor.name}: experts have no folded copy", "take `frozen_copy`, which costs them no more")
    if parameter.dtype not in FLOATS:
        dtype = str(parameter.dtype).removeprefix("torch.")
        yield Problem(f"{tensor.name}: it is {dtype}, quantized, and no circuit can be added to it", _LEAVE_OUT)
    if is_partitioned(parameter):
        yield Problem(f"{tensor.name}: DeepSpeed has partitioned it (ZeRO-3)", _LEAVE_OUT)
    if offloading(tensor.module) is not None:
        yield Problem(
            f"{tensor.name}: it is offloaded", f"keep the experts on a device, or leave them out: {_LEAVE_OUT}"
        )


_WRAPPED = "base_layer."
_LEAVE_OUT = "QuantaConfig(exclude_modules=['experts'])"
_BY_ROW = (
    "experts have the same adapters for all rows of a batch (`adapter_names`)\n"
    "hint: call the model once for each adapter, after model.set_adapter(name)"
)
_SHARDED = (
    "FSDP2 gathers the experts by themselves, after their circuits were added\n"
    "hint: call fully_shard on the block around them, not on the experts; gather the model before merging"
)
