"""Modules that read the weight of a linear layer instead of calling the layer: an adapter on it would do nothing."""

import warnings
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from quanta_compiler.peft.expert_tensors import names_expert
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.text.words import listed

_SHOWN = 10
_SCAN = ("x_proj", "dt_proj", "out_proj")
_READ: dict[str, dict[str, tuple[str, ...]]] = {
    "torch": {
        "TransformerEncoderLayer": ("linear1", "linear2"),
        "LinearCrossEntropyLoss": ("linear",),
    },
    "transformers": {
        "MambaMixer": _SCAN,
        "FalconMambaMixer": _SCAN,
        "JambaMambaMixer": ("dt_proj",),
        "Mamba2Mixer": ("out_proj",),
        "BambaMixer": ("out_proj",),
        "FalconH1Mixer": ("out_proj",),
        "GraniteMoeHybridMambaLayer": ("out_proj",),
        "NemotronHMamba2Mixer": ("out_proj",),
        "Zamba2MambaMixer": ("out_proj",),
        "WavLMAttention": ("q_proj", "k_proj", "v_proj", "out_proj"),
        "TDNNLayer": ("kernel",),
        "DetrMHAttentionMap": ("k_proj",),
        "ConditionalDetrMHAttentionMap": ("k_proj",),
        "MaskFormerDetrMHAttentionMap": ("k_proj",),
        "DabDetrMHAttentionMap": ("k_linear",),
        "LSHSelfAttention": ("query_key", "value"),
        "MobileBertLMPredictionHead": ("decoder", "dense"),
        "NeoMMEForMaskedLM": ("unembedding_projection",),
        "Gemma4AssistantForCausalLM": ("lm_head",),
        "Gemma4UnifiedAssistantForCausalLM": ("lm_head",),
        "LongcatFlashTopkRouter": ("classifier",),
        "LayoutLMv2Encoder": ("rel_pos_bias", "rel_pos_x_bias", "rel_pos_y_bias"),
        "LayoutLMv3Encoder": ("rel_pos_bias", "rel_pos_x_bias", "rel_pos_y_bias"),
        "PPDocLayoutV2ReadingOrderEncoder": ("rel_pos_bias", "rel_pos_x_bias", "rel_pos_y_bias"),
        "BloomAttention": ("dense",),
        "BloomMLP": ("dense_4h_to_h",),
        "RwkvSelfAttention": ("output",),
        "RwkvFeedForward": ("value",),
    },
    "diffusers": {
        "HunyuanDiTAttentionPool": ("q_proj", "k_proj", "v_proj", "c_proj"),
        "MiniMaxH3AudioCausalAttention": ("qkv",),
        "ChannelsProj": ("proj",),
        "_AceStepResidualFSQ": ("project_in", "project_out"),
    },
    "mamba_ssm": {
        "Mamba": ("in_proj", *_SCAN),
        "Mamba2": ("out_proj",),
        "Mamba2Simple": ("out_proj",),
    },
}
"""By package, then by the class whose `forward` reads: the layers whose weight it reads, on some path at least.

A slow test looks through the installed packages for what is missing here.
"""


_ONLY_IF: dict[str, Callable[[Any], bool]] = {
    # The fast path of inference.
    "TransformerEncoderLayer": lambda it: it.self_attn.batch_first and it.activation_relu_or_gelu,
    **dict.fromkeys(("BloomAttention", "BloomMLP"), lambda it: it.pretraining_tp > 1 and it.slow_but_exact),
    **dict.fromkeys(
        ("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"),
        lambda it: getattr(it.config, "use_ordered_embeddings", False),
    ),
    # In eval mode transformers divides this weight in place, and so the layer's output, but not the adapter's.
    **dict.fromkeys(("RwkvSelfAttention", "RwkvFeedForward"), lambda it: 0 < it.config.rescale_every <= it.layer_id),
}
"""Classes that read the weight only as they are configured."""


def reader_of(parent: nn.Module, child: str) -> str | None:
    """Return the name of the class by which a module reads the weight of its layer `child`; None where it calls it."""
    if isinstance(parent, nn.MultiheadAttention):
        return "torch's MultiheadAttention"
    owner = next(kind for kind in type(parent).__mro__ if "forward" in vars(kind))
    # Code that comes with a checkpoint is a copy of transformers' more often than not.
    package = owner.__module__.partition(".")[0].removesuffix("_modules")
    if child not in _READ.get(package, {}).get(owner.__name__, ()):
        return None
    condition = _ONLY_IF.get(owner.__name__)
    return f"{package}'s {owner.__name__}" if condition is None or condition(parent) else None


def tell_of_silent_layers(model: Any, *_: Any) -> None:
    """Warn of the adapted layers that the first forward pass in which adapters train has not called.

    A forward hook, which is gone afterwards. Compiled code runs without it.
    """
    if (
        torch.compiler.is_compiling()
        or not model.training
        or not any(METHOD in name and parameter.requires_grad for name, parameter in model.named_parameters())
        or not remove_hooks(model._forward_hooks, tell_of_silent_layers)
    ):
        return
    if names := _never_called(model):
        warnings.warn(
            f"no forward pass has called these adapted layers: {listed(names, _SHOWN)}\n"
            "hint: if no other batch calls them, the model does not use them or reads their weights past the adapter; "
            "exclude them: QuantaConfig(exclude_modules=[...])",
            stacklevel=2,
        )


def remove_hooks(hooks: dict[int, Any], *functions: Callable[..., Any]) -> bool:
    """Take functions out of a module's hooks, and say whether any was there."""
    found = [key for key, hook in hooks.items() if getattr(hook, "hook", hook) in functions]
    for key in found:
        del hooks[key]
    return bool(found)


def _never_called(model: nn.Module) -> list[str]:
    """Return the names of adapted layers that train and that no forward pass has called yet.

    Left out are experts, to which nothing may have been routed, and the layers of a block that was passed over whole
    while others beside it ran, as layer drop does.
    """
    layers = {name: module for name, module in model.named_modules() if hasattr(module, f"{METHOD}_plan")}
    ran: set[str] = set()
    for name, layer in layers.items():
        if layer.was_called:
            ran.update(block for pair in _blocks(model, name) for block in pair)
    return [
        name
        for name, layer in layers.items()
        if not layer.was_called
        and any(f"{METHOD}_" in key and parameter.requires_grad for key, parameter in layer.named_parameters())
        and not any(names_expert(part, model.get_submodule(part)) for part in _ancestors(name))
        and not any(siblings in ran and block not in ran for siblings, block in _blocks(model, name))
    ]


def _ancestors(name: str) -> Iterator[str]:
    return accumulate(name.split("."), "{}.{}".format)


def _blocks(model: nn.Module, name: str) -> Iterator[tuple[str, str]]:
    for block in _ancestors(name):
        siblings = block.rpartition(".")[0]
        if isinstance(model.get_submodule(siblings), nn.ModuleList | nn.ModuleDict):
            yield siblings, block
