"""Adapters in the usual training loops: transformers' Trainer, activation checkpointing, gradient accumulation."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from quanta_compiler.peft import QuantaCircuitLayer, QuantaConfig

WORDS, LENGTH, EXAMPLES = 24, 6, 32


def bert() -> Any:
    """Return a tiny classifier, 16 features, 24 in the feed-forward layer, without dropout."""
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": WORDS}
    none: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**sizes, **none, num_attention_heads=2, initializer_range=0.3)
    return seeded(lambda: BertForSequenceClassification(config))


def gpt2() -> Any:
    """Return a tiny GPT-2, whose projections are Conv1D: weights stored [in_features, out_features]."""
    none: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": WORDS, "n_positions": LENGTH}
    config = GPT2Config(**sizes, **none, bos_token_id=0, eos_token_id=0, initializer_range=0.3)
    return seeded(lambda: GPT2LMHeadModel(config))


def llama() -> Any:
    """Return a tiny Llama, 16 features, key and value 16 -> 8, feed-forward 16 -> 24."""
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": WORDS}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": LENGTH}
    return seeded(lambda: LlamaForCausalLM(LlamaConfig(**sizes, **heads, initializer_range=0.3)))


def seeded(make: Callable[[], Any]) -> Any:
    """Return a model drawn from a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "bert": (bert, {"target_modules": ["query", "value", "dense"], "task_type": "SEQ_CLS"}),
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_fc", "c_proj"], "task_type": "CAUSAL_LM"}),
    "llama": (llama, {"target_modules": "all-linear", "task_type": "CAUSAL_LM", "residual": "folded"}),
}
"""Names, models, and what their adapters are."""


def adapted(name: str) -> Any:
    """Return a tiny model with adapters."""
    make, keys = MODELS[name]
    return get_peft_model(make(), QuantaConfig(**keys))


def examples(name: str) -> list[dict[str, torch.Tensor]]:
    """Return sequences that can be learned: arithmetic ones, classified by the parity of the first number."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randint(0, WORDS, (EXAMPLES, 1), generator=generator)
    tokens = (first + 5 * torch.arange(LENGTH)) % WORDS
    labels = first[:, 0] % 2 if name == "bert" else tokens
    return [{"input_ids": row, "labels": label} for row, label in zip(tokens, labels, strict=True)]


def trainer(name: str, folder: Path, **arguments: Any) -> Any:
    """Return a Trainer of 12 steps that saves every 4; the data is drawn in an order of its own each epoch."""
    given: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 12,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.02,
        "logging_steps": 1,
        "save_steps": 4,
        "report_to": [],
        "disable_tqdm": True,
        "seed": 3,
        **arguments,
    }
    data = examples(name)
    return Trainer(model=adapted(name), args=TrainingArguments(**given), train_dataset=data, eval_dataset=data)


def logged(state: Any, key: str = "loss") -> dict[int, float]:
    """Return what a Trainer has logged under a key, by step."""
    return {entry["step"]: entry[key] for entry in state.log_history if key in entry}


@pytest.mark.parametrize("name", MODELS)
def test_trainer_trains_the_adapters_alone_and_resumes_with_the_same_losses(name: str, tmp_path: Path) -> None:
    """One whole run is looked at by itself, and beside one that goes on from its checkpoint."""
    whole = trainer(name, tmp_path / "whole")
    before = {key: tensor.clone() for key, tensor in whole.model.state_dict().items()}
    whole.train()
    losses = logged(whole.state)
    assert losses[12] < losses[1] - 0.1
    moved = {key for key, tensor in whole.model.state_dict().items() if not torch.equal(tensor, before[key])}
    trained = {key for key, parameter in whole.model.named_parameters() if parameter.requires_grad}
    assert moved == trained
    assert all("quanta_circuit_delta" in key or "classifier" in key for key in trained)

    saved = tmp_path / "whole" / "checkpoint-8"
    # Adapters and the classifier, not the model.
    assert (saved / "adapter_model.safetensors").is_file()
    assert not (saved / "model.safetensors").exists()
    resumed = trainer(name, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(saved))
    assert [logged(resumed.state)[step] for step in range(9, 13)] == [losses[step] for step in range(9, 13)]
    expected = dict(whole.model.named_parameters())
    for key, parameter in resumed.model.named_parameters():
        assert torch.equal(parameter, expected[key]), key


def test_trainer_loads_the_best_model_at_the_end(tmp_path: Path) -> None:
    # A rate that grows soon leaves the minimum, so that the best checkpoint is not the last one.
    worse: dict[str, Any] = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 60, "learning_rate": 4.0}
    best: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 4, "load_best_model_at_end": True, "max_steps": 16}
    run = trainer("bert", tmp_path, **worse, **best)
    run.train()
    evaluated = logged(run.state, "eval_loss")
    best_step = min(evaluated, key=lambda step: evaluated[step])
    assert best_step != max(evaluated), evaluated
    assert run.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best_step}")
    assert run.evaluate()["eval_loss"] == evaluated[best_step]


def test_a_checkpoint_of_trainer_is_an_adapter_folder(tmp_path: Path) -> None:
    run = trainer("bert", tmp_path, save_steps=12)
    run.train()
    folder = tmp_path / "checkpoint-12"
    saved = json.loads((folder / "adapter_config.json").read_text())
    assert saved["peft_type"] == "QUANTA_CIRCUIT"
    tokens = torch.stack([example["input_ids"] for example in examples("bert")])
    expected = run.model.eval()(tokens).logits
    assert torch.equal(PeftModel.from_pretrained(bert(), str(folder)).eval()(tokens).logits, expected)
    bert().save_pretrained(str(tmp_path / "base"))
    saved["base_model_name_or_path"] = str(tmp_path / "base")
    (folder / "adapter_config.json").write_text(json.dumps(saved))
    automatic = AutoPeftModelForSequenceClassification.from_pretrained(str(folder), num_labels=2).eval()
    torch.testing.assert_close(automatic(tokens).logits, expected)


def batch() -> torch.Tensor:
    """Return tokens, int64 [EXAMPLES, LENGTH]."""
    return torch.stack([example["input_ids"] for example in examples("llama")])


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of all parameters that have one, and forget them."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def moved(model: Any) -> Any:
    """Return the model with T moved away from S, so that no gradient and no update is zero."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "quanta_circuit_delta" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_checkpointed_transformers_have_the_same_gradients(name: str, reentrant: bool) -> None:
    model = moved(adapted(name)).train()
    tokens = batch()
    model(input_ids=tokens, labels=tokens).loss.backward()
    expected = gradients(model)
    assert expected
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        # Reentrant checkpointing differentiates only through inputs; the embeddings' output is to require a gradient.
        model.enable_input_require_grads()
    calls = counted_calls(model)
    model(input_ids=tokens, labels=tokens).loss.backward()
    assert set(calls.values()) == {2}, "nothing was recomputed"
    found = gradients(model)
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        # Some versions of transformers recompute with another rounding.
        assert (gradient - expected[key]).norm() <= 1e-6 * expected[key].norm(), key


def counted_calls(model: Any) -> dict[str, int]:
    """Count the forward passes of the adapted layers within the decoder's blocks."""
    calls: dict[str, int] = {}

    def count(name: str, *_: Any) -> None:
        calls[name] = calls.get(name, 0) + 1

    for name, module in model.named_modules():
        if isinstance(module, QuantaCircuitLayer):
            layer: Any = module
            layer.register_forward_pre_hook(partial(count, name))
    return calls


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("residual", ["frozen_copy", "folded", "none"])
def test_a_checkpointed_layer_has_the_same_gradients(residual: str, reentrant: bool) -> None:
    layers = nn.Sequential(nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 24)).double()
    config = QuantaConfig(target_modules=["0", "2"], residual=residual, dropout=0.0 if residual == "folded" else 0.3)
    model = moved(get_peft_model(layers, config)).train()
    x = torch.randn(5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    results = []
    for recompute in (False, True):
        # The same mask of dropout in both, and in what is computed again.
        torch.manual_seed(5)
        y = checkpoint(model, x, use_reentrant=reentrant) if recompute else model(x)
        y.pow(2).sum().backward()
        assert x.grad is not None
        results.append({**gradients(model), "x": x.grad.clone()})
        x.grad = None
    plain, recomputed = results
    assert len(plain) > 2
    assert plain.keys() == recomputed.keys()
    for key, gradient in recomputed.items():
        assert torch.equal(gradient, plain[key]), key


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_accumulated_gradients_are_those_of_the_whole_batch(name: str) -> None:
    # float64: a sum of sums is rounded otherwise than a sum; transformers' norms stay in float32.
    model = moved(adapted(name).double()).train()
    tokens = batch()
    model(input_ids=tokens, labels=tokens).loss.backward()
    expected = gradients(model)
    for part in tokens.chunk(4):
        (model(input_ids=part, labels=part).loss / 4).backward()
    found = gradients(model)
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        assert (gradient - expected[key]).norm() <= 1e-5 * expected[key].norm(), key


def test_trainer_accumulates_and_recomputes(tmp_path: Path) -> None:
    plain = trainer("gpt2", tmp_path / "plain", save_strategy="no")
    plain.train()
    pieces: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    recompute: dict[str, Any] = {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }
    run = trainer("gpt2", tmp_path / "pieces", save_strategy="no", **pieces, **recompute)
    run.train()
    # float32 and Adam, 12 steps: sums in another order are rounded otherwise.
    assert list(logged(run.state).values()) == pytest.approx(list(logged(plain.state).values()), abs=1e-3)
