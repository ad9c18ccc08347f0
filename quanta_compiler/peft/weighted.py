"""A weighted sum of adapters as one adapter: circuits of one shape side by side, as branches of one circuit.

    x -> [n, ...]       the constant gate `branches`: a copy of x for each adapter
      -> [n, ...]       every gate of the circuits with `per` over the branches: n matrices
      -> [...]          the constant gate `weights`: the sum, each branch by its weight and its adapter's scale

So the update of the sum is the sum of the updates, exactly: S is stacked as T is. The sum of LoRAs is again a LoRA, of
the sum of the ranks.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from peft.utils.other import ModulesToSaveWrapper

from quanta_compiler.kinds.constant import Constant
from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.kinds.lowrank import Lowrank
from quanta_compiler.models.targets import stored_document
from quanta_compiler.nn import wide
from quanta_compiler.peft.errors import AdapterError, Problem, raise_problems
from quanta_compiler.peft.resolved import record
from quanta_compiler.peft.tensors import Tensors, held
from quanta_compiler.spec import to_dict
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec

EXACT = ("cat", "linear", "svd")
"""What LoRA calls the combinations that mean the weighted sum; here all of them are exact."""


class _Sum(NamedTuple):
    """What one layer gets: the circuit, its residual, the adapters in it, and how their tensors become one."""

    spec: CircuitSpec
    residual: str
    adapters: tuple[str, ...]
    join: Callable[[str, list[torch.Tensor]], torch.Tensor]


def add_weighted_adapter(
    tuner: Any, adapters: Sequence[str], weights: Sequence[float], name: str, combination_type: str
) -> None:
    """Add the weighted sum of adapters as an adapter `name`; it trains and is saved as any other.

    Raises:
        AdapterError: there is no circuit for the sum; every layer is named, and nothing was changed.

    """
    _check(tuner, adapters, weights, name, combination_type)
    weighted = dict.fromkeys(adapters, 0.0)
    for adapter, weight in zip(adapters, weights, strict=True):
        weighted[adapter] += float(weight)
    layers = {
        key: layer
        for key, layer in tuner.model.named_modules()
        if hasattr(layer, "quanta_circuit_plan") and any(map(layer.has_adapter, weighted))
    }
    owners = _modules_to_save(tuner, list(weighted))
    scaled = _scaled(tuner, layers, weighted)
    raise_problems("there is no circuit for the weighted sum:", list(_whole(layers, weighted, is_one=bool(scaled))))
    config, sums = scaled or _summed(tuner, layers, weighted)
    tuner.peft_config[name] = config
    try:
        tuner.inject_adapter(tuner.model, name)
    except BaseException:
        del tuner.peft_config[name]
        raise
    for key, layer in layers.items():
        _fill(layer, name, sums[key])
    for wrapper, owner in owners:
        wrapper.modules_to_save[name].load_state_dict(wrapper.modules_to_save[owner].state_dict())


def _check(tuner: Any, adapters: Sequence[str], weights: Sequence[float], name: str, combination_type: str) -> None:
    unknown = sorted(set(adapters) - set(tuner.peft_config))
    if unknown or not adapters:
        which = f"Adapter {', '.join(unknown)} does not exist" if unknown else "no adapter is given"
        raise AdapterError(f"{which}\nhint: there is {', '.join(tuner.peft_config)}")
    if len(adapters) != len(weights) or not all(math.isfinite(weight) for weight in weights):
        raise AdapterError(f"`weights` is a list with a finite number for each of {len(adapters)} adapters: {weights}")
    if name in tuner.peft_config:
        raise AdapterError(
            f"there is an adapter {name!r} already\nhint: take another name, or delete_adapter({name!r})"
        )
    if combination_type not in EXACT:
        raise AdapterError(
            f"`combination_type={combination_type!r}` changes the numbers of LoRA's factors, and circuits are added as "
            f"they are\nhint: leave it out ({', '.join(map(repr, EXACT))} mean the same here: the exact sum), or turn "
            "the adapters into LoRAs with peft.convert_to_lora, and combine those"
        )


def _modules_to_save(tuner: Any, adapters: list[str]) -> list[tuple[Any, str]]:
    """Return the modules that one of the adapters has trained whole, and which; two of them cannot be added."""
    wrappers = [module for module in tuner.modules() if isinstance(module, ModulesToSaveWrapper)]
    owners = [(wrapper, [name for name in adapters if name in wrapper.modules_to_save]) for wrapper in wrappers]
    twice = sum(len(names) > 1 for _, names in owners)
    if twice:
        raise AdapterError(
            f"Cannot add weighted adapters if they target the same module with modules_to_save, but found {twice} such "
            "instance(s).\nhint: leave all but one of these adapters out"
        )
    return [(wrapper, names[0]) for wrapper, names in owners if names]


def _scaled(tuner: Any, layers: dict[str, Any], weighted: dict[str, float]) -> tuple[Any, dict[str, _Sum]] | None:
    """Return one adapter with another scale, where it is one adapter, of one scale on all of its layers."""
    (adapter, weight), *others = weighted.items()
    scales = {layer.quanta_circuit_scale.get(adapter) for layer in layers.values()}
    if others or len(scales) != 1 or tuner.peft_config[adapter].dora:
        return None
    config = dataclasses.replace(tuner.peft_config[adapter], scale=scales.pop() * weight, init_weights=True)
    sums = {}
    for key, layer in layers.items():
        spec, residual = layer.quanta_circuit_plan[adapter].spec, layer.quanta_circuit_residual[adapter]
        sums[key] = _Sum(spec, residual, (adapter,), lambda _, tensors: tensors[0])
    return config, sums


def _summed(tuner: Any, layers: dict[str, Any], weighted: dict[str, float]) -> tuple[Any, dict[str, _Sum]]:
    """Return the configuration of a sum, and its circuit for every layer."""
    problems = [problem for key, layer in layers.items() for problem in _problems(key, layer, weighted)]
    raise_problems("there is no circuit for the weighted sum:", problems)
    sums = {key: _sum(layer, weighted) for key, layer in layers.items()}
    documents = {key: stored_document(to_dict(own.spec)) for key, own in sums.items()}
    # Layers of one name share an entry where they have the same circuit.
    ends = {key: key.rpartition(".")[2] for key in sums}
    variants: dict[str, set[str]] = {}
    for key, own in sums.items():
        variants.setdefault(ends[key], set()).add(json.dumps([documents[key], own.residual]))
    configs = [tuner.peft_config[adapter] for adapter in weighted]
    config = dataclasses.replace(
        configs[0],
        circuit={re.escape(ends[key] if len(variants[ends[key]]) == 1 else key): documents[key] for key in sums},
        circuit_hash=None,
        preset=None,
        resolved=None,
        residual="auto",
        scale=1.0,
        init_weights=True,
        # These layers and no others: a name of a list also means what ends in it.
        target_modules="|".join(map(re.escape, sums)),
        exclude_modules=None,
        layers_to_transform=None,
        layers_pattern=None,
        modules_to_save=sorted({name for config in configs for name in config.modules_to_save or ()}) or None,
    )
    for key, own in sums.items():
        record(config, key, own.spec, own.residual)
    return config, sums


def _whole(layers: dict[str, Any], weighted: dict[str, float], *, is_one: bool) -> Iterator[Problem]:
    """Yield the layers whose circuits are no layer's own; experts and what is rounded can have another scale."""
    for layer in layers.values():
        key = layer._layer_name
        if hasattr(layer, "tensor_name") and not is_one:
            yield Problem(f"{key}: experts have a circuit each, and no sum of them is made", _IN_ORDER)
        rounded = next((adapter for adapter in weighted if layer.quanta_circuit_rounding.get(adapter)), None)
        rounded = None if is_one else rounded
        if rounded is not None:
            yield Problem(f"{key}: {rounded!r} is rounded (`bits`), and its sum with others would be again", _IN_ORDER)
        shared = next((adapter for adapter in weighted if adapter in layer.quanta_circuit_shared), None)
        if shared is not None:
            yield Problem(f"{key}: {shared!r} has parameters together with other layers (`across`)", _IN_ORDER)


def _problems(key: str, layer: Any, weighted: dict[str, float]) -> Iterator[Problem]:
    """Yield what keeps a layer's adapters from being one circuit."""
    own = [adapter for adapter in weighted if layer.has_adapter(adapter)]
    for adapter in own:
        placement = layer.quanta_circuit_placement[adapter]
        if placement != "parallel":
            text = f"{adapter!r} multiplies the weight (`placement={placement!r}`), and products do not add up"
            yield Problem(f"{key}: {text}", _IN_ORDER)
        if adapter in layer.quanta_circuit_magnitude:
            text = f"{adapter!r} has a magnitude over the rows of W + update (`dora`), which does not add up"
            yield Problem(f"{key}: {text}", _IN_ORDER)
    specs = {adapter: layer.quanta_circuit_plan[adapter].spec for adapter in own}
    first = specs[own[0]]
    other = next((adapter for adapter in own if _shape(specs[adapter]) != _shape(first)), None)
    without = [adapter for adapter in own if layer.quanta_circuit_residual[adapter] == "none"]
    if other is not None and not _are_loras(layer, own):
        text = f"the circuits of {own[0]!r} and {other!r} differ, {first.name!r} and {specs[other].name!r}"
        yield Problem(f"{key}: {text}: only those of one layout and the same gates add up to a circuit", _TOGETHER)
    elif 0 < len(without) < len(own):
        text = f"{without[0]!r} has no frozen copy (`residual='none'`), and others have one"
        yield Problem(f"{key}: {text}: a circuit has one for all of its branches, or none", _TOGETHER)
    for gate in first.gates:
        if gate.matrix.schemes and not gate.matrix.takes_per:
            text = f"gate {gate.name!r} is of kind {gate.kind!r}, which takes no `per`"
            yield Problem(f"{key}: {text}: there is no matrix of it for each adapter", _TOGETHER)


_IN_ORDER = (
    "give one adapter its weight by layer.set_scale('a', weight) of the adapted layers; activate several together, "
    "model.base_model.set_adapter(['a', 'b']): updates beside a layer are added, others act one after the other"
)
_TOGETHER = (
    "activate the adapters together, and their updates are added: model.base_model.set_adapter(['a', 'b']), each "
    "weighted by layer.set_scale('a', weight) of the adapted layers; or turn them into LoRAs with "
    "peft.convert_to_lora, and combine those"
)


def _shape(spec: CircuitSpec) -> CircuitSpec:
    """Return a circuit without its name, how it begins and how it is planned."""
    gates = tuple(dataclasses.replace(gate, init=None) for gate in spec.gates)
    return dataclasses.replace(spec, name="", gates=gates, tokens=1, optimizer="auto")


def _are_loras(layer: Any, adapters: Sequence[str]) -> bool:
    """Say whether the updates are products of two trained factors, of any ranks, and nothing else."""
    specs = [layer.quanta_circuit_plan[adapter].spec for adapter in adapters]
    return (
        all(len(spec.gates) == len(spec.layout) == 1 and spec.gates[0].kind == Lowrank.name for spec in specs)
        and all(layer.quanta_circuit_residual[adapter] == "none" for adapter in adapters)
        and len({_shape(_of_rank(spec, 1)) for spec in specs}) == 1
    )


def _of_rank(spec: CircuitSpec, rank: int) -> CircuitSpec:
    return dataclasses.replace(spec, gates=(dataclasses.replace(spec.gates[0], matrix=Lowrank(rank=rank)),))


def _sum(layer: Any, weighted: dict[str, float]) -> _Sum:
    """Return the circuit of a layer's sum."""
    own = tuple(adapter for adapter in weighted if layer.has_adapter(adapter))
    weights = tuple(weighted[adapter] * layer.quanta_circuit_scale[adapter] for adapter in own)
    specs = [layer.quanta_circuit_plan[adapter].spec for adapter in own]
    if _are_loras(layer, own):

        def joined(key: str, tensors: list[torch.Tensor]) -> torch.Tensor:
            if key.endswith("-A"):
                return torch.cat(tensors, dim=0)
            return torch.cat([weight * tensor for weight, tensor in zip(weights, tensors, strict=True)], dim=1)

        rank = sum(spec.gates[0].matrix.rank for spec in specs)
        return _Sum(_of_rank(specs[0], rank), "none", own, joined)
    residual = "none" if layer.quanta_circuit_residual[own[0]] == "none" else "frozen_copy"
    return _Sum(_branched(specs[0], weights), residual, own, lambda _, tensors: torch.stack(tensors))


def _branched(spec: CircuitSpec, weights: Sequence[float]) -> CircuitSpec:
    """Return a circuit with a first axis of branches, summed with the weights at its end."""
    axes = {axis.name for axis in spec.layout} | {axis.name for gate in spec.gates for axis in gate.to}
    # Axes of a positional layout are named by where they stand.
    name = "0" if spec.positional else _free("branch", axes)
    one, many = AxisSize(name, 1), AxisSize(name, len(weights))

    def moved(axes: tuple[AxisSize, ...]) -> tuple[AxisSize, ...]:
        return tuple(AxisSize(str(int(axis.name) + 1), axis.size) if axis.name.isdigit() else axis for axis in axes)

    def branched(gate: GateSpec) -> GateSpec:
        per = (many, *moved(gate.per)) if gate.matrix.takes_per else gate.per
        return dataclasses.replace(gate, axes=moved(gate.axes), to=moved(gate.to), per=per)

    taken = {gate.name for gate in spec.gates}
    copies, weighting = Constant(value=((1.0,),) * len(weights)), Constant(value=(tuple(weights),))
    gates = (
        GateSpec(name=_free("branches", taken), matrix=copies, axes=(one,), to=(many,)),
        *map(branched, spec.gates),
        GateSpec(name=_free("weights", taken), matrix=weighting, axes=(many,), to=(one,)),
    )
    layout, output = (one, *moved(spec.layout)), (one, *moved(spec.output))
    return dataclasses.replace(spec, name=f"{spec.name[:60]}-sum", layout=layout, gates=gates, output=output)


def _free(word: str, taken: set[str]) -> str:
    return next(name for name in (word, *(f"{word}_{number}" for number in range(len(taken)))) if name not in taken)


@torch.no_grad()
def _fill(layer: Any, name: str, own: _Sum) -> None:
    """Give a layer's new adapter the numbers of those that it is the sum of."""
    parts = [_tensors(layer, adapter, own.residual) for adapter in own.adapters]
    for position, holder in enumerate((layer._holder(name), layer.quanta_circuit_frozen[name])):
        for key, parameter in holder.items():
            # The file gives constants, and none of them has a branch.
            if not key.startswith("constant-"):
                parameter.copy_(own.join(key, [tensors[position][key] for tensors in parts]))
    layer._fold_again(name)


def _tensors(layer: Any, adapter: str, residual: str) -> tuple[Tensors, Tensors]:
    """Return what trains of an adapter and what is frozen, with a copy where the residual wants one."""
    layer.take_difference(adapter)
    own, frozen = (
        {key: wide(tensor) for key, tensor in held(holder).items()}
        for holder in (layer._holder(adapter), layer.quanta_circuit_frozen[adapter])
    )
    if residual == "frozen_copy" and layer.quanta_circuit_residual[adapter] == "identity":
        start = {key: torch.zeros_like(tensor) for key, tensor in own.items()}
        frozen |= layer.quanta_circuit_plan[adapter].from_identity(start)
    return own, frozen
