"""The updates of a saved adapter of PEFT's LoRA: `B A` times its scaling."""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.adapters.tensor_file import TensorFile
from quanta_compiler.adapters.updates import FactoredUpdate, layer_updates
from quanta_compiler.diagnostics import Diagnostic, quote, refusal, warning
from quanta_compiler.models.targets import matches

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<part>[A-Za-z_]+?)(?:\.weight)?")
_VARIANTS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "arrow_config",
    "target_parameters",
)
"""Settings with which the update is not `B A` alone."""
_MOVED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that move a part of the base weight into `B A`."""


def lora_updates(
    source: Path, config: Mapping[str, Any], file: TensorFile, layers: re.Pattern[str] | None
) -> tuple[str, dict[str, FactoredUpdate], tuple[Diagnostic, ...]]:
    """Return the method and its settings (`LoRA, r = 8, alpha = 16`), the updates by layer, and warnings.

    Raises:
        SpecError: a setting or a tensor makes the update something else than `B A`, or the files disagree.

    """
    variants = [name for name in _VARIANTS if config.get(name)]
    if variants:
        message = f"`{variants[0]}` is set: the update of this LoRA is not B A alone"
        raise refusal(source, message, hint="merge it into its model, and look at the difference of the weights")
    hint = "leave the layer out with --layers, or restore the files that were saved"
    updates = layer_updates(file, _KEY, layers, partial(_update, config), hint)
    varied = " (and others)" if config.get("rank_pattern") or config.get("alpha_pattern") else ""
    stabilized = ", rank-stabilized" if config.get("use_rslora") else ""
    description = f"LoRA, r = {config.get('r')}, alpha = {config.get('lora_alpha')}{varied}{stabilized}"
    warnings = []
    start = str(config.get("init_lora_weights"))
    if start.lower().startswith(_MOVED):
        message = f"`init_lora_weights` is {quote(start)}: B A holds a part of the base weight besides the update"
        hint = "save it with PEFT's `path_initial_model_for_weight_conversion`"
        warnings.append(warning(source, message, hint=hint))
    return description, updates, tuple(warnings)


def _update(config: Mapping[str, Any], layer: str, parts: Mapping[str, torch.Tensor]) -> FactoredUpdate:
    """Return the update of one layer; raise ValueError where its tensors are no B and A as the settings say."""
    if set(parts) != {"A", "B"}:
        if any(part.startswith("embedding") for part in parts):
            raise ValueError("it is an embedding; `analyze` looks at linear layers")
        raise ValueError(f"it has lora_{' and lora_'.join(sorted(parts))}, not lora_A and lora_B alone")
    right, left = parts["A"], parts["B"]
    if right.dim() != 2 or left.dim() != 2:
        raise ValueError(f"lora_A is {list(right.shape)}: it is a convolution; `analyze` looks at linear layers")
    if left.shape[1] != right.shape[0]:
        raise ValueError(f"lora_B is {list(left.shape)} and lora_A {list(right.shape)}: their ranks differ")
    for name, tensor in (("lora_A", right), ("lora_B", left)):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinite numbers")
    rank = right.shape[0]
    said = _pattern_value(config, "rank_pattern", layer, config.get("r"))
    if said != rank:
        raise ValueError(f"lora_A has rank {rank}, adapter_config.json says {said}")
    alpha = _pattern_value(config, "alpha_pattern", layer, config.get("lora_alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ValueError(f"adapter_config.json has {quote(alpha)} as its alpha, which is no number")
    return FactoredUpdate(left, right, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _pattern_value(config: Mapping[str, Any], name: str, layer: str, default: Any) -> Any:
    """Return what a pattern of the settings gives a layer: the first that matches, as PEFT has it."""
    patterns = config.get(name) or {}
    try:
        return next((value for pattern, value in patterns.items() if matches(pattern, layer)), default)
    except (re.error, AttributeError) as error:
        raise ValueError(f"`{name}` of adapter_config.json is no table of patterns: {error}") from None
