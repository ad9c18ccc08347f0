"""Tiny mixtures of experts with nothing to download, shaped as Mixtral, Qwen's, DeepSeek's, gpt-oss and Llama 4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

_SMALL: dict[str, Any] = {
    **{"vocab_size": 32, "hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 12, "num_experts_per_tok": 2},
}
"""Where what goes out of an expert is as wide as what goes into its second matrix: there are square circuits."""
_LATENT: dict[str, Any] = {
    **{"num_key_value_heads": 2, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8},
    **{
        "v_head_dim": 8,
        "head_dim": 4,
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
}
_MODELS: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**_SMALL, num_local_experts=4)),
    "qwen2_moe": lambda: Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            **_SMALL,
            num_experts=4,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=20,
            mlp_only_layers=[0],
        )
    ),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**_SMALL, num_experts=4, moe_intermediate_size=24)),
    "deepseek_v3": lambda: DeepseekV3ForCausalLM(
        DeepseekV3Config(**{**_SMALL, **_LATENT}, n_routed_experts=4, moe_intermediate_size=24)
    ),
    "gpt_oss": lambda: GptOssForCausalLM(GptOssConfig(**_SMALL, num_local_experts=4)),
    "llama4": lambda: Llama4ForCausalLM(
        Llama4TextConfig(**_SMALL, intermediate_size_mlp=24, num_local_experts=4, interleave_moe_layer_step=2)
    ),
}
STORED_AS_LINEAR = ("mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3")
"""Whose experts are `[experts, out_features, in_features]`."""
TRANSPOSED = ("gpt_oss", "llama4")
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 32


def mixture(name: str, device: str = "cpu") -> Any:
    """Return a mixture, the same one every time; skip where transformers holds its experts as linear layers."""
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = _MODELS[name]()
    if not tensors_of(model):
        pytest.skip("this version of transformers holds these experts as linear layers, which targets reach")
    return model.eval()


def tensors_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of three axes that are the model's own."""
    return {
        key.replace(".base_layer", ""): parameter
        for key, parameter in model.named_parameters()
        if parameter.dim() == 3 and "quanta_circuit_" not in key
    }
