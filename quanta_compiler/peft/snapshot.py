"""A model as it is before an adapter is put on it, for where that fails."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.layer import QuantaCircuitLayer
from quanta_compiler.peft.shared import Shared


def snapshot(model: nn.Module, config: QuantaConfig) -> Callable[[], None]:
    """Return a function that gives a model back the modules, tensors and adapters that it has now."""
    resolved, target_parameters = config.resolved, config.target_parameters
    registries = [(registry, dict(registry)) for module in model.modules() for registry in _registries(module)]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def undo() -> None:
        config.resolved, config.target_parameters = resolved, target_parameters
        for registry, entries in registries:
            registry.clear()
            registry.update(entries)
        for parameter, requires_grad in trained:
            parameter.requires_grad = requires_grad

    return undo


def _registries(module: Any) -> Iterator[dict[Any, Any]]:
    yield from (module._modules, module._parameters, module._buffers)
    if isinstance(module, nn.ParameterDict):
        yield module._keys
    if isinstance(module, Shared):
        yield module.members
    if isinstance(module, QuantaCircuitLayer):
        named = (getattr(module, name) for name in (*module.adapter_layer_names, *module.other_param_names))
        yield from (registry for registry in named if isinstance(registry, dict))
