"""Saved LoRA adapters whose updates have singular values and vectors as one likes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def diagonal_lora(values: Sequence[float], columns: Sequence[int], shape: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Return B and A of an update `[out, in]` whose k-th right singular vector is the unit vector `columns[k]`."""
    left, right = torch.zeros(shape[0], len(values)), torch.zeros(len(values), shape[1])
    for place, (value, column) in enumerate(zip(values, columns, strict=True)):
        left[place, place] = value
        right[place, column] = 1.0
    return {"lora_B.weight": left, "lora_A.weight": right}


def save_lora(folder: Path, layers: Mapping[str, Mapping[str, torch.Tensor]], rank: int, **config: Any) -> Path:
    """Write a folder as PEFT does."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.{layer}.{part}": tensor for layer, parts in layers.items() for part, tensor in parts.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
