"""One training run, the same in one process and in several: a tiny Llama with adapters, on fixed batches.

Everything is float64 but for the norms of transformers, which compute in float32: where a rounding of 1e-16 (a mean
over halves is no mean over the whole) tips one of theirs, an activation differs by 6e-8 of itself, and what the
optimizer makes of that in a few steps stays below TOLERANCE. A gradient that is not averaged, or an S that differs
between processes, is off by more than 1e-3.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from quanta_compiler.peft import QuantaConfig

TOLERANCE = 1e-6
STEPS, SEQUENCES, LENGTH, WORDS = 4, 8, 6, 32
LEARNING_RATE = 0.03
ZERO_AT_START = {"version": 1, "name": "zero", "layout": {"auto": 2}, "gates": [[0, 1], {"axes": [1], "init": "zeros"}]}

SHARED = {
    "version": 1,
    "name": "shared",
    "layout": {"auto": 2},
    "gates": [{"axes": [0, 1], "across": "layers"}, {"axes": [0], "kind": "lowrank", "rank": 2, "across": "all"}, [1]],
}
"""Of a run that is called `shared`; its residual is `frozen_copy`."""


def tiny_llama() -> Any:
    """Return a Llama of two layers with 16 features, key and value 16 -> 8, feed-forward 16 -> 24; always the same."""
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": WORDS}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": LENGTH}
    torch.manual_seed(0)
    # Large weights, so that the adapters have a loss to lower in a few steps.
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, initializer_range=0.5)).double()


def adapter_config(residual: str, init_seed: int = 0) -> QuantaConfig:
    """Return the configuration of a run: `none` with a circuit that is zero at the start, others with the preset.

    `dora` is the preset with magnitudes.
    """
    circuit, is_dora = {"none": ZERO_AT_START, "shared": SHARED}.get(residual), residual == "dora"
    residual = {"shared": "frozen_copy", "dora": "auto"}.get(residual, residual)
    return QuantaConfig(
        circuit=circuit, target_modules="all-linear", residual=residual, init_seed=init_seed, dora=is_dora
    )


def adapted_llama(residual: str, init_seed: int = 0) -> Any:
    """Return the tiny Llama with the adapter of a run on all its linear layers."""
    return get_peft_model(tiny_llama(), adapter_config(residual, init_seed))


def global_batches() -> torch.Tensor:
    """Return the tokens of a run, int64 [STEPS, SEQUENCES, LENGTH]: arithmetic sequences, which can be learned."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randint(0, WORDS, (STEPS, SEQUENCES, 1), generator=generator)
    return (first + 3 * torch.arange(LENGTH)) % WORDS


def mean_loss(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of the next tokens, float64; the loss of transformers is computed in float32."""
    logits = model(tokens[:, :-1]).logits  # [SEQUENCES, LENGTH - 1, WORDS]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    """Return Adam on what trains; its epsilon is no smaller than what matters, so that it does not enlarge rounding."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=LEARNING_RATE, eps=1e-4)


def losses_in_one_process(model: Any, batches: torch.Tensor) -> list[float]:
    """Train on whole batches and return the loss before every step."""
    optimizer, losses = optimizer_of(model), []
    for batch in batches:
        loss: Any = mean_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def outputs(model: Any) -> torch.Tensor:
    """Return the logits for the first batch, [SEQUENCES, LENGTH, WORDS]."""
    with torch.no_grad():
        logits: torch.Tensor = model(global_batches()[0]).logits
    return logits


def write_run(folder: Path, losses: list[float], logits: torch.Tensor) -> None:
    """Write what a test compares, beside the saved adapter; called by one process alone."""
    (folder / "losses.json").write_text(json.dumps(losses))
    save_file({"logits": logits.contiguous()}, folder / "logits.safetensors")
