"""A tiny encoder as wide as MiniLM, with a tokenizer of a few words."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ("man", "woman", "nation", "report", "finds", "area", "local", "study", "new", "old")
SPECIAL = ("[PAD]", "[UNK]", "Headline", ":", "Sarcastic", "yes", "no")


def save_tokenizer(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


def save_bert(folder: Path, layers: int = 1) -> Path:
    """Save a BERT of one layer, or of some, as wide as the circuits are."""
    config = BertConfig(
        vocab_size=20, hidden_size=384, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=1536
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder
