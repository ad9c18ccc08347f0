"""Rows of a task, a text with its class, and how they are split, drawn and put into batches."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SORTED_BATCHES = 16
"""Batches whose rows are sorted by length among themselves, so that little is padded."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text and the number of its class."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class Split:
    """The three parts of a set; no row is in two of them, nor twice in one."""

    test: tuple[Row, ...]
    validation: tuple[Row, ...]
    train: tuple[Row, ...]


def split_rows(rows: Sequence[Row], key: Callable[[str], str], test_rows: int, validation_rows: int) -> Split:
    """Drop duplicates and split by hash, so that the split depends on nothing but the texts.

    Rows are ordered by the SHA-256 of `key(text)`: the first are the test set, the next the validation set, the rest
    is for training. Rows of one key are duplicates; the first one stays.
    """
    unique: dict[str, Row] = {}
    for row in rows:
        unique.setdefault(key(row.text), row)
    keys = sorted(unique, key=lambda text: hashlib.sha256(text.encode("utf-8")).hexdigest())
    ordered = tuple(unique[key] for key in keys)
    end = test_rows + validation_rows
    return Split(ordered[:test_rows], ordered[test_rows:end], ordered[end:])


def draw_rows(train: Sequence[Row], rows: int, seed: int) -> list[Row]:
    """Draw `rows` different training rows; the same seed draws the same ones."""
    return random.Random(seed).sample(train, min(rows, len(train)))


def plan_batches(rows: Sequence[Row], batch_size: int, seed: int | None) -> list[list[Row]]:
    """Return the batches of one epoch, each of rows of similar length; the last one may be smaller.

    With a seed, rows are shuffled, sorted by length within groups of `SORTED_BATCHES` batches, and the batches
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


def _cut(rows: Sequence[Row], size: int) -> list[list[Row]]:
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def _length(row: Row) -> int:
    return len(row.text)
