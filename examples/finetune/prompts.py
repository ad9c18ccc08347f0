"""Headlines as prompts for a decoder, which answers with one token: sarcastic, or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rows import Row, plan_batches
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

QUESTION = ("Headline: ", "\nSarcastic:")
"""What stands before the headline and after it; the answer is the next token."""
ANSWERS = (" no", " yes")
"""What the model is to say, by label."""
IGNORED = -100
"""The label of a token that has no part in the loss."""


def answer_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the token of each answer, by label.

    Raises:
        ValueError: the tokenizer cuts an answer into several tokens.

    """
    ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in ANSWERS]
    for answer, tokens in zip(ANSWERS, ids, strict=True):
        if len(tokens) != 1:
            raise ValueError(f"the tokenizer cuts the answer {answer!r} into {len(tokens)} tokens; it must be one")
    return ids[0][0], ids[1][0]


class PromptDataset(Dataset[dict[str, list[int]]]):
    """Prompts with their answers; only the answer counts in the loss."""

    def __init__(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        answers = answer_ids(tokenizer)
        self.items = []
        for row in rows:
            prompt = _prompt_ids(tokenizer, row, max_tokens)
            labels = [*[IGNORED] * len(prompt), answers[row.label]]
            self.items.append({"input_ids": [*prompt, answers[row.label]], "labels": labels})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.items[index]


@dataclass(frozen=True, slots=True)
class Padding:
    """Collates items of a `PromptDataset`, padded on the right."""

    token: int

    def __call__(self, items: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `attention_mask` and `labels`, each `[batch, tokens]`."""
        return {
            "input_ids": _pad([item["input_ids"] for item in items], self.token),
            "attention_mask": _pad([[1] * len(item["input_ids"]) for item in items], 0),
            "labels": _pad([item["labels"] for item in items], IGNORED),
        }


@torch.no_grad()
def answer_logits(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_tokens: int
) -> torch.Tensor:
    """Return the logits of the two answers to each headline, float32 `[rows, 2]`, in the order of `rows`."""
    was_training = model.training
    model.eval()
    answers = list(answer_ids(tokenizer))
    found: dict[Row, torch.Tensor] = {}
    batches = plan_batches(rows, batch_size=16, seed=None)
    for batch in tqdm(batches, desc="answers", unit="batch", leave=False):
        prompts = [_prompt_ids(tokenizer, row, max_tokens) for row in batch]
        ids = _pad(prompts, padding_token(tokenizer))
        mask = _pad([[1] * len(prompt) for prompt in prompts], 0)
        logits = model(input_ids=ids, attention_mask=mask).logits  # [batch, tokens, vocabulary]
        last = mask.sum(1) - 1
        chosen = logits[torch.arange(len(batch)), last][:, answers].float()
        found.update(zip(batch, chosen, strict=True))
    model.train(was_training)
    return torch.stack([found[row] for row in rows])


def accuracy(logits: torch.Tensor, rows: Sequence[Row]) -> float:
    """Return how many of the answers, `logits: [rows, 2]`, are right."""
    return float((logits.argmax(-1) == torch.tensor([row.label for row in rows])).float().mean())


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return a token to pad with; what it is does not matter, as padding is masked."""
    token = tokenizer.pad_token_id
    return token if isinstance(token, int) else 0


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, row: Row, max_tokens: int) -> list[int]:
    before, after = QUESTION
    # A long headline is cut, never the question after it.
    headline: list[int] = tokenizer(before + row.text, truncation=True, max_length=max_tokens)["input_ids"]
    question: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]
    return headline + question


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
