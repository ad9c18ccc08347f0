"""A hub cache on disk in which the model names of PEFT's tests lead to tiny random models of the same architecture.

PEFT's tests name models on the Hugging Face hub. Offline, a name is looked up in the hub's cache folder alone, so a
cache that holds a model under each name lets the tests run unedited. Sizes follow the models on the hub, odd widths
(37, a prime) included; weights are random.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

REVISION = "0" * 40
"""The commit that every name resolves to; the hub's cache has one folder a commit."""

_VOCABULARY = {"vocab_size": 1024, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_LLAMA_LIKE = {
    **_VOCABULARY,
    # The tests' inputs are ones and twos. The embedding of the padding token is zero, and without position embeddings
    # beside it no adapter could change what comes of it.
    "pad_token_id": 3,
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_BERT_LIKE = {
    **_VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_GPT_LIKE = {**_VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
_T5 = {
    **_VOCABULARY,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "d_model": 32,
    "d_ff": 37,
    "d_kv": 8,
    "num_layers": 3,
    "num_heads": 4,
}
_OPT = {
    **_VOCABULARY,
    "vocab_size": 2048,
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "ffn_dim": 4,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
# bitsandbytes quantizes in blocks of 64 numbers, and the tests count twelve layers.
_OPT_TWELVE_LAYERS = {**_OPT, "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 128, "num_hidden_layers": 12}
_BART = {
    **_VOCABULARY,
    "d_model": 16,
    "encoder_ffn_dim": 4,
    "decoder_ffn_dim": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 128,
}
_GEMMA3 = {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 16}
_BLOOM = {**_VOCABULARY, "hidden_size": 32, "n_layer": 5, "n_head": 4}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "peft-internal-testing/tiny-random-OPTForCausalLM": ("OPTConfig", "OPTForCausalLM", _OPT),
    "peft-internal-testing/opt-125m": ("OPTConfig", "OPTForCausalLM", _OPT_TWELVE_LAYERS),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": ("GPT2Config", "GPT2LMHeadModel", _GPT_LIKE),
    "hf-internal-testing/tiny-random-gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT_LIKE),
    # The same network under a name that PEFT does not take for a model whose Conv1D layers only some methods adapt.
    "quanta-compiler/tiny-random-conv1d-decoder": ("GPT2Config", "GPT2LMHeadModel", _GPT_LIKE),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": (
        "GPTJConfig",
        "GPTJForCausalLM",
        {**_GPT_LIKE, "rotary_dim": 4},
    ),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaConfig", "LlamaForCausalLM", _LLAMA_LIKE),
    "peft-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaConfig", "LlamaForCausalLM", _LLAMA_LIKE),
    "peft-internal-testing/tiny-dummy-qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {**_LLAMA_LIKE, "hidden_size": 8}),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": ("Gemma3TextConfig", "Gemma3ForCausalLM", _GEMMA3),
    "peft-internal-testing/tiny-random-BloomForCausalLM": ("BloomConfig", "BloomForCausalLM", _BLOOM),
    "peft-internal-testing/tiny-random-GPTNeoXForCausalLM": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _BERT_LIKE),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": (
        "T5Config",
        "T5ForConditionalGeneration",
        _T5,
    ),
    "peft-internal-testing/tiny-random-t5": ("T5Config", "T5ForConditionalGeneration", _T5),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": (
        "BartConfig",
        "BartForConditionalGeneration",
        _BART,
    ),
    "peft-internal-testing/tiny-random-BertModel": ("BertConfig", "BertModel", _BERT_LIKE),
    "peft-internal-testing/tiny-random-RobertaModel": ("RobertaConfig", "RobertaModel", _BERT_LIKE),
    "peft-internal-testing/tiny-random-DebertaModel": ("DebertaConfig", "DebertaModel", _BERT_LIKE),
    "peft-internal-testing/tiny-random-DebertaV2Model": ("DebertaV2Config", "DebertaV2Model", _BERT_LIKE),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": (
        "BertConfig",
        "BertForSequenceClassification",
        _BERT_LIKE,
    ),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": (
        "RobertaConfig",
        "RobertaForSequenceClassification",
        _BERT_LIKE,
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
        "LlamaConfig",
        "LlamaForSequenceClassification",
        {**_LLAMA_LIKE, "num_labels": 1},
    ),
}
"""Name on the hub -> configuration class, model class, keywords of the configuration."""

LORA_ADAPTER = "peft-internal-testing/tiny-opt-lora-revision"
"""A LoRA adapter that test_config loads at the revision `test` through every other configuration class."""


def build_hub(hub: Path) -> None:
    """Write every model of `MODELS` into the cache folder `hub` (what `HF_HUB_CACHE` names)."""
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    for name, (config_class, model_class, keywords) in MODELS.items():
        torch.manual_seed(0)
        config = getattr(transformers, config_class)(**keywords)
        model = getattr(transformers, model_class)(config)
        _add_snapshot(hub, name, ["main"], model.save_pretrained)
    _add_snapshot(hub, LORA_ADAPTER, ["main", "test"], _save_lora_config)


def _save_lora_config(folder: Path) -> None:
    from peft import LoraConfig

    LoraConfig(base_model_name_or_path=next(iter(MODELS))).save_pretrained(str(folder))


def _add_snapshot(hub: Path, name: str, references: list[str], save: Callable[[Path], object]) -> None:
    """Lay out one repository as the hub's client does: `refs/NAME` holds a commit, `snapshots/COMMIT` the files."""
    repository = hub / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    for reference in references:
        (repository / "refs" / reference).write_text(REVISION, encoding="ascii")
    save(snapshot)
