"""A tiny Llama with a tokenizer in a folder, texts for it, and what an adapter does to each layer: for all clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quanta_compiler.peft import QuantaCircuitLayer, QuantaConfig

WORDS = tuple(f"w{index}" for index in range(28))
TARGETS = ["q_proj", "v_proj", "down_proj"]
SPECIAL = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")


def save_llama(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Save a Llama of two layers, 64 -> 64, 64 -> 32, 64 -> 128, with a tokenizer of words; always the same."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIAL + WORDS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        initializer_range=0.1,
    )
    # Weights large enough for the model to have opinions.
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder


def with_adapter(model: Any, **keys: Any) -> Any:
    """Return the model with an adapter on layers of three shapes."""
    return get_peft_model(model, QuantaConfig(**{"target_modules": TARGETS, **keys}))


def sentence(first: int, length: int, step: int = 3) -> str:
    """Return words whose numbers are an arithmetic sequence, which can be learned."""
    return " ".join(WORDS[(first + step * index) % len(WORDS)] for index in range(length))


def token_batch() -> torch.Tensor:
    """Return token ids, int64 `[4, 8]`."""
    return len(SPECIAL) + (torch.arange(4).unsqueeze(1) * 5 + 3 * torch.arange(8)) % len(WORDS)


def logits(model: Any) -> torch.Tensor:
    """Return the logits for the batch, float32 `[4, 8, 32]`, without dropout."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        result: torch.Tensor = model(token_batch()).logits.float()
    model.train(was_training)
    return result


def adapted_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the adapted layers by name."""
    for name, module in model.named_modules():
        if isinstance(module, QuantaCircuitLayer):
            yield name, module


def deltas(model: Any, adapter: str = "default") -> dict[str, torch.Tensor]:
    """Return the update of every adapted layer as the model reports it, float32 `[out_features, in_features]`."""
    return {name: layer.get_delta_weight(adapter).detach().float() for name, layer in adapted_layers(model)}


def applied_deltas(model: Any) -> dict[str, torch.Tensor]:
    """Return the update of every adapted layer as its forward pass applies it, shaped likewise."""
    result = {}
    for name, layer in adapted_layers(model):
        with torch.no_grad():
            basis = torch.eye(layer.in_features)
            result[name] = (layer(basis) - layer.get_base_layer()(basis)).float().T
    return result


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Return how far two sets of updates are apart, relative to the second, by the layer that is worst."""
    assert first.keys() == second.keys()
    assert second
    assert all(torch.any(delta != 0) for delta in second.values())
    return max(float((first[name] - delta).norm() / delta.norm()) for name, delta in second.items())
