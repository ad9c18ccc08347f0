"""The ways to train the encoder that are compared, and the model that they train.

The model is the encoder with a linear head on the mean of its last hidden states, which is how this encoder was
pretrained to represent a sentence; its pooling layer, which the pretraining did not use, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModel

from quanta_compiler.peft import QuantaConfig

CIRCUITS = Path(__file__).parent / "circuits"
# The layers of an encoder block are of three shapes: 384 -> 384, 384 -> 1536 and 1536 -> 384. Each has its circuit:
# where a layer widens or narrows, a rectangular gate does, so that every feature is reached.
THREE_AXES = {
    r"attention\..*": str(CIRCUITS / "square-8x8x6.yaml"),
    r"intermediate\.dense": str(CIRCUITS / "widen-8x8x6.yaml"),
    r"layer\.\d+\.output\.dense": str(CIRCUITS / "narrow-32x8x6.yaml"),
}
FOUR_AXES = {
    r"attention\..*": str(CIRCUITS / "square-6x4x4x4.yaml"),
    r"intermediate\.dense": str(CIRCUITS / "widen-6x4x4x4.yaml"),
    r"layer\.\d+\.output\.dense": str(CIRCUITS / "narrow-24x4x4x4.yaml"),
}
# Adapters go to every linear layer of the encoder: query, key, value, attention output, both feed-forward layers.
TARGETS: dict[str, Any] = {"target_modules": "all-linear", "exclude_modules": ["pooler.dense"]}


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train: the learning rates to choose from (none: only measured), and the adapter, if it is one.

    `adapter` makes PEFT's configuration from the seed of a run. Without it all of the encoder is trained, or nothing
    of it. The head is always trained.
    """

    summary: str
    rates: tuple[float, ...]
    adapter: Callable[[int], PeftConfig] | None = None
    trains_encoder: bool = False


def _lora(rank: int) -> Callable[[int], PeftConfig]:
    return lambda seed: LoraConfig(r=rank, lora_alpha=2 * rank, **TARGETS)


def _quanta(circuit: Any, residual: str) -> Callable[[int], PeftConfig]:
    return lambda seed: QuantaConfig(circuit=circuit, residual=residual, init_seed=seed, **TARGETS)


ADAPTER_RATES = (1e-3, 3e-3, 1e-2)
# The update is T - S. `folded` keeps W - S beside W and applies one circuit instead of two: the same update up to
# rounding, in less time and more memory. `frozen_copy`, the default, is measured beside it.
METHODS: dict[str, Method] = {
    "frozen": Method("frozen encoder, head only", (3e-3, 1e-2, 3e-2, 1e-1)),
    "lora-r8": Method("LoRA r=8", ADAPTER_RATES, _lora(8)),
    "lora-r11": Method("LoRA r=11, about as large as QuanTA 8x8x6", ADAPTER_RATES, _lora(11)),
    "quanta-8x8x6": Method("QuanTA 8x8x6, folded", ADAPTER_RATES, _quanta(THREE_AXES, "folded")),
    "quanta-6x4x4x4": Method("QuanTA 6x4x4x4, folded", ADAPTER_RATES, _quanta(FOUR_AXES, "folded")),
    "full": Method("full fine-tuning", (5e-5, 1e-4, 3e-4), trains_encoder=True),
    "quanta-8x8x6-copy": Method("QuanTA 8x8x6, frozen copy", (), _quanta(THREE_AXES, "frozen_copy")),
    "quanta-6x4x4x4-copy": Method("QuanTA 6x4x4x4, frozen copy", (), _quanta(FOUR_AXES, "frozen_copy")),
}


class SentenceClassifier(nn.Module):
    """An encoder with a linear head on the mean of the last hidden states."""

    def __init__(self, encoder: nn.Module, features: int, classes: int = 2) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, `[batch, tokens] -> [batch, classes]`; padding has no part in the mean."""
        states: torch.Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)  # [batch, tokens, 1]
        mean = (states * mask).sum(1) / mask.sum(1)
        logits: torch.Tensor = self.head(mean)
        return logits


def build_model(method: Method, name_or_path: str, seed: int, classes: int = 2) -> SentenceClassifier:
    """Load the encoder, add the head and the adapter, and freeze what the method does not train.

    The encoder's own dropout is switched off: a run sees each row once, so there is nothing to regularize, and
    its random masks cost a fifth of the time.
    """
    config = AutoConfig.from_pretrained(name_or_path)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    encoder = AutoModel.from_pretrained(name_or_path, config=config, dtype=torch.float32)
    torch.manual_seed(seed)
    model = SentenceClassifier(encoder, config.hidden_size, classes)
    encoder.requires_grad_(method.trains_encoder)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler.requires_grad_(False)
    if method.adapter is not None:
        model.encoder = get_peft_model(encoder, method.adapter(seed))
    return model


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
