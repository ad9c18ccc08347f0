"""`adapter_names`: each row of a batch with its own adapter equals a pass with that adapter alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import LORA, QUANTA, Mlp, adapted, batch, circuit_layers
from peft import get_peft_model
from random_circuits import file_of
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from quanta_compiler.peft import AdapterError, QuantaConfig

IDENTITY = file_of("4x3x2", ["all_pairs"], init="identity")
AWAY: dict[str, Any] = {"init_weights": False}
ADAPTERS: dict[str, dict[str, Any]] = {
    "copied": {"circuit": QUANTA, "target_modules": ["q_proj", "k_proj", "o_proj"]},
    "lora": {"circuit": LORA, "target_modules": ["q_proj"], "scale": 2.0},
    "folded": {"circuit": QUANTA, "residual": "folded", "target_modules": ["q_proj", "o_proj"]},
    "input": {"circuit": IDENTITY, "placement": "input", "target_modules": ["q_proj", "k_proj"]},
    "output": {"circuit": IDENTITY, "placement": "output", "target_modules": ["q_proj", "o_proj"], "scale": 0.5},
}


def with_all(dtype: torch.dtype = torch.float32) -> Any:
    """Return a model in eval mode with an adapter of every sort."""
    torch.manual_seed(0)
    (first, keys), *others = ADAPTERS.items()
    model: Any = get_peft_model(Mlp(dtype), QuantaConfig(**AWAY, **keys), first)
    for name, more in others:
        model.add_adapter(name, QuantaConfig(**AWAY, **more))
    return model.eval()


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_row_is_what_its_adapter_alone_makes_of_it(dtype: torch.dtype) -> None:
    model, x = with_all(dtype), batch(dtype, rows=13)
    names = [("__base__", *ADAPTERS)[row * 5 % 6] for row in range(13)]
    mixed = model(x, adapter_names=names)
    assert torch.equal(model(x, adapter_names=["__base__"] * 13), Mlp(dtype)(x))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for name in ("__base__", *ADAPTERS):
        rows = [row for row, own in enumerate(names) if own == name]
        if name == "__base__":
            with model.disable_adapter():
                expected = model(x)
        else:
            model.set_adapter(name)
            expected = model(x)
            assert not torch.equal(expected[rows], Mlp(dtype)(x)[rows])
        torch.testing.assert_close(mixed[rows], expected[rows], rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
def test_rows_may_be_sequences_and_keep_their_gradient_and_the_base_layer_is_called_once() -> None:
    model = with_all()
    model.set_adapter("input")
    x = torch.randn(3, 4, 24, requires_grad=True)
    calls: list[torch.Size] = []
    base: nn.Module = model.base_model.model.q_proj.base_layer
    base.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape))
    result = model(x, adapter_names=["input", "__base__", "output"])
    assert calls == [x.shape]
    result[0].sum().backward()
    assert x.grad is not None
    assert x.grad[0].any()
    assert not x.grad[1:].any()
    own = {name: p.grad.any() for name, p in model.named_parameters() if p.grad is not None}
    assert own
    assert all(".input." in name and moved for name, moved in own.items())


@pytest.mark.filterwarnings("ignore:circuit '.*' on layers")
def test_what_does_not_fit_is_one_error_before_anything_runs() -> None:
    model, x = with_all(), batch()
    calls: list[int] = []
    model.base_model.model.q_proj.base_layer.register_forward_pre_hook(lambda *_: calls.append(1))
    unknown = r"Trying to infer with non-existing adapter\(s\): nobody, noone\nhint: there is copied, .*'__base__'"
    with pytest.raises(AdapterError, match=unknown):
        model(x, adapter_names=["noone", "copied", "nobody", "lora", "copied", "copied", "copied"])
    for names in ([], ["copied"] * 3):
        with pytest.raises(AdapterError, match=rf"should be the same .*, but got {len(names)} and 7 .*\nhint: give"):
            model(x, adapter_names=names)
    with pytest.raises(AdapterError, match="`adapter_names` is a list with one name for every row, got 'copied'"):
        model(x, adapter_names="copied")
    model.train()
    with pytest.raises(AdapterError, match=r"when the model is in training mode.\nhint: call model.eval\(\)"):
        model(x, adapter_names=["copied"] * 7)
    model.eval()
    model.merge_adapter(["lora"])
    with pytest.raises(AdapterError, match="when there are merged adapters, please call `unmerge_adapter` first"):
        model(x, adapter_names=["copied"] * 7)
    model.unmerge_adapter()
    assert not calls
    assert model(x, adapter_names=None).shape == x.shape
    with pytest.raises(AdapterError, match="`alora_offsets` belongs to activated LoRA"):
        model(x, alora_offsets=[1])


def test_a_layer_that_is_given_other_rows_says_so_and_leaves_no_hooks() -> None:
    class Flattening(Mlp):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(0, 1)).view_as(x)

    model = adapted(Flattening()).eval()
    with pytest.raises(AdapterError, match=r"but got 2 and 6 respectively \(in q_proj\)"):
        model(torch.randn(2, 3, 24), adapter_names=["default", "__base__"])
    assert not any(layer._forward_pre_hooks for layer in circuit_layers(model).values())
    assert not model.base_model._forward_pre_hooks


def generator(model: Any, task: str, targets: list[str]) -> Any:
    torch.manual_seed(0)
    keys: dict[str, Any] = {"target_modules": targets, "task_type": task, "scale": 8.0, **AWAY}
    model = get_peft_model(model, QuantaConfig(preset="lora:2", **keys), "left")
    model.add_adapter("right", QuantaConfig(circuit=file_of({"auto": 2}, ["all_pairs"]), **keys))
    return model.eval()


@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("search", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}], ids=str)
def test_generation_takes_them_with_beams_and_an_encoder_too(family: str, search: dict[str, int]) -> None:
    sizes: dict[str, Any] = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    if family == "decoder":
        base: Any = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=8, initializer_range=0.5, **sizes))
        model = generator(base, "CAUSAL_LM", ["c_attn", "c_proj"])
    else:
        shape = {"d_model": 8, "d_ff": 12, "d_kv": 4, "num_heads": 2, "num_layers": 2, "decoder_start_token_id": 2}
        base = T5ForConditionalGeneration(T5Config(initializer_factor=4.0, **shape, **sizes))
        model = generator(base, "SEQ_2_SEQ_LM", ["q", "v", "wo"])
    tokens = torch.tensor([[3, 4, 7], [5, 6, 8], [9, 10, 11], [3, 4, 7]])
    keys = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **search}
    keys.update(max_new_tokens=5, min_new_tokens=5, do_sample=False)
    names = ["left", "__base__", "right", "right"]
    mixed = model.generate(adapter_names=names, **keys)
    each = len(mixed) // len(names)
    for name in ("left", "right", "__base__"):
        if name == "__base__":
            with model.disable_adapter():
                alone = model.generate(**keys)
        else:
            model.set_adapter(name)
            alone = model.generate(**keys)
        rows = [row * each + beam for row, own in enumerate(names) if own == name for beam in range(each)]
        assert torch.equal(mixed[rows], alone[rows])
    with pytest.raises(AdapterError, match="but got 2 and 4 respectively"):
        model.generate(adapter_names=["left", "right"], **keys)


def test_a_causal_model_counts_rows_before_its_embedding_runs() -> None:
    model = generator(
        GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16)), "CAUSAL_LM", ["c_attn"]
    )
    calls: list[int] = []
    model.base_model.model.transformer.wte.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(AdapterError, match="but got 3 and 2 respectively"):
        model(input_ids=torch.tensor([[3, 4], [5, 6]]), adapter_names=["left", "right", "left"])
    assert not calls
    assert model(input_ids=torch.tensor([[3, 4], [5, 6]]), adapter_names=["left", "right"]).logits.shape == (2, 2, 16)


def test_beams_that_the_model_asks_for_itself_repeat_the_names_too() -> None:
    sizes: dict[str, Any] = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    shape = {"d_model": 8, "d_ff": 12, "d_kv": 4, "num_heads": 2, "num_layers": 2, "decoder_start_token_id": 2}
    torch.manual_seed(0)
    base = T5ForConditionalGeneration(T5Config(initializer_factor=4.0, **shape, **sizes))
    assert base.generation_config is not None
    base.generation_config.num_beams = 3
    model = generator(base, "SEQ_2_SEQ_LM", ["q", "v", "wo"])
    keys: dict[str, Any] = {"input_ids": torch.tensor([[3, 4, 7], [5, 6, 8]]), "max_new_tokens": 5, "do_sample": False}
    mixed = model.generate(adapter_names=["left", "right"], **keys)
    for row, name in enumerate(("left", "right")):
        model.set_adapter(name)
        assert torch.equal(mixed[row], model.generate(**keys)[row])
    ids = keys["input_ids"]
    rows = model(input_ids=ids, decoder_input_ids=ids, adapter_names=["left", "right"]).logits
    with pytest.raises(AdapterError, match="but got 2 and 6 respectively"):
        model(input_ids=ids.repeat(3, 1), decoder_input_ids=ids.repeat(3, 1), adapter_names=["left", "right"])
    assert len(rows) == 2
