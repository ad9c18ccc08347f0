"""The update of every layer, saved as an adapter that `quanta analyze` reads."""

from __future__ import annotations

from pathlib import Path

import torch
from methods import TARGETS, SentenceClassifier
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel


def save_update(model: SentenceClassifier, base: str, folder: Path) -> None:
    """Save an adapter as PEFT does; of a model that was trained whole, a LoRA that is the same update.

    Its rank is the smaller width of a layer: one factor is the difference of the weights, the other the identity.
    """
    if isinstance(model.encoder, PeftModel):
        model.encoder.save_pretrained(folder)
        return
    weights = dict(model.encoder.named_parameters())
    encoder = AutoModel.from_pretrained(base, dtype=torch.float32)
    rank = encoder.config.hidden_size
    adapted = get_peft_model(encoder, LoraConfig(r=rank, lora_alpha=rank, **TARGETS))
    with torch.no_grad():
        for name, layer in adapted.get_base_model().named_modules():
            if not hasattr(layer, "lora_A"):
                continue
            difference = weights[f"{name}.weight"] - layer.base_layer.weight  # [out, in]
            first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            if layer.in_features == rank:
                first.copy_(torch.eye(rank))
                second.copy_(difference)
            else:
                first.copy_(difference)
                second.copy_(torch.eye(rank))
    adapted.save_pretrained(folder)
