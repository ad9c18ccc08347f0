"""The headline-sarcasm set: 28,496 different headlines, each sarcastic (The Onion) or not (HuffPost).

The split is made by hash, so that it depends on nothing but the text: headlines are ordered by the SHA-256 of their
normalized text; the first 2,000 are the test set, the next 1,000 the validation set, the rest is for training.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wheels import SARCASM, read_file

TEST_ROWS = 2000
VALIDATION_ROWS = 1000
SORTED_BATCHES = 16
"""Batches whose headlines are sorted by length among themselves, so that little is padded."""


@dataclass(frozen=True, slots=True)
class Headline:
    """A headline; `label` is 1 for a sarcastic one, else 0."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class Split:
    """The three parts of the set; no headline is in two of them, nor twice in one."""

    test: tuple[Headline, ...]
    validation: tuple[Headline, ...]
    train: tuple[Headline, ...]


def load_headlines(cache: Path) -> list[Headline]:
    """Read the set out of its wheel, in the order of the file, duplicates included."""
    rows = [json.loads(line) for line in read_file(SARCASM, cache).decode("utf-8").splitlines()]
    return [Headline(row["input"][-1]["content"], int(row["ideal"])) for row in rows]


def split_headlines(
    headlines: Sequence[Headline], test_rows: int = TEST_ROWS, validation_rows: int = VALIDATION_ROWS
) -> Split:
    """Drop duplicates and split by hash.

    Two headlines are duplicates when they agree but for case, punctuation and spacing; the first one stays.
    """
    unique: dict[str, Headline] = {}
    for headline in headlines:
        unique.setdefault(normalize(headline.text), headline)
    keys = sorted(unique, key=lambda text: hashlib.sha256(text.encode("utf-8")).hexdigest())
    ordered = tuple(unique[key] for key in keys)
    end = test_rows + validation_rows
    return Split(ordered[:test_rows], ordered[test_rows:end], ordered[end:])


def normalize(text: str) -> str:
    """Return the lower-case words of a text."""
    return re.sub(r"\W+", " ", text.lower()).strip()


def draw_rows(train: Sequence[Headline], rows: int, seed: int) -> list[Headline]:
    """Draw `rows` different training headlines; the same seed draws the same ones."""
    return random.Random(seed).sample(train, min(rows, len(train)))


def plan_batches(rows: Sequence[Headline], batch_size: int, seed: int | None) -> list[list[Headline]]:
    """Return the batches of one epoch, each of headlines of similar length; the last one may be smaller.

    With a seed, headlines are shuffled, sorted by length within groups of `SORTED_BATCHES` batches, and the batches
    shuffled again. Without one, for evaluation, all are sorted by length.
    """
    if seed is None:
        return _cut(sorted(rows, key=_length), batch_size)
    generator = random.Random(seed)
    shuffled = generator.sample(rows, len(rows))
    batches = [
        batch
        for group in _cut(shuffled, batch_size * SORTED_BATCHES)
        for batch in _cut(sorted(group, key=_length), batch_size)
    ]
    generator.shuffle(batches)
    return batches


def _cut(rows: Sequence[Headline], size: int) -> list[list[Headline]]:
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def _length(row: Headline) -> int:
    return len(row.text)
