"""The headline-sarcasm set: 28,496 different headlines, each sarcastic (The Onion) or not (HuffPost).

The split is made by hash, so that it depends on nothing but the text: headlines are ordered by the SHA-256 of their
normalized text; the first 2,000 are the test set, the next 1,000 the validation set, the rest is for training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from rows import Row, Split, split_rows
from wheels import SARCASM, read_file

TEST_ROWS = 2000
VALIDATION_ROWS = 1000


def load_headlines(cache: Path) -> list[Row]:
    """Read the set out of its wheel, in the order of the file, duplicates included; class 1 is sarcastic."""
    rows = [json.loads(line) for line in read_file(SARCASM, cache).decode("utf-8").splitlines()]
    return [Row(row["input"][-1]["content"], int(row["ideal"])) for row in rows]


def split_headlines(
    headlines: Sequence[Row], test_rows: int = TEST_ROWS, validation_rows: int = VALIDATION_ROWS
) -> Split:
    """Drop duplicates and split by hash.

    Two headlines are duplicates when they agree but for case, punctuation and spacing; the first one stays.
    """
    return split_rows(headlines, normalize, test_rows, validation_rows)


def normalize(text: str) -> str:
    """Return the lower-case words of a text."""
    return re.sub(r"\W+", " ", text.lower()).strip()
