"""Experts of a mixture of experts that are one tensor for all of them, where no adapter of ours can be put."""

import warnings
from collections.abc import Iterator
from typing import Any

from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists
from torch import nn

from quanta_compiler.text.words import listed

_FUSED = {
    "gate_up_proj": ("gate_proj", "up_proj", "w1", "w3"),
    "up_proj": ("w1", "w3"),
    "down_proj": ("w2",),
}
"""Names under which users know what such a tensor holds, from models whose experts are linear layers."""


def warn_about_experts(model: nn.Module, config: Any) -> None:
    """Name the tensors of experts that the targets mean and that no linear layer holds."""
    missed = [
        f"{name} {list(parameter.shape)}"
        for name, parameter in expert_tensors(model)
        if _is_meant(config, *name.rpartition(".")[::2])
    ]
    if missed:
        warnings.warn(
            f"`target_modules` means experts that get no circuit: they are tensors of all experts, and circuits go on "
            f"linear layers: {listed(missed, 2)}\n"
            "hint: target the layers that each token passes (attention, shared experts); "
            "exclude_modules=['experts'], or how the module is called, says that the experts are left out on purpose",
            stacklevel=2,
        )


def expert_tensors(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters `[experts, rows, columns]` of modules of experts, with their names."""
    for name, module in model.named_modules():
        if not _holds_experts(name, module):
            continue
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3 and parameter.shape[0] > 1:
                yield f"{name}.{key}" if name else key, parameter


def _holds_experts(name: str, module: nn.Module) -> bool:
    counted = any(isinstance(getattr(module, key, None), int) for key in ("num_experts", "num_local_experts"))
    return counted or "expert" in f"{name} {type(module).__name__}".lower()


def _is_meant(config: Any, module: str, parameter: str) -> bool:
    """Say whether the targets would match a tensor of experts if each expert had a linear layer in its place."""
    targets = config.target_modules
    if targets is None:
        return False
    names = [f"{module}.{alias}" for alias in (parameter, *_FUSED.get(parameter, ()))]
    names += [f"{module}.0.{alias}" for alias in (parameter, *_FUSED.get(parameter, ()))]
    found = [check_target_module_exists(config, name) for name in (module, *names)]
    if any(isinstance(one, _ExcludedModule) for one in found[:2]):
        return False
    return (isinstance(targets, str) and targets.lower() == "all-linear") or any(found[1:])
