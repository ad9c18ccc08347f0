"""The tasks of the study: texts of a few words or signs, each of one class, out of one wheel of the package index."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headlines import load_headlines, normalize
from rows import Row, Split, split_rows
from wheels import FORMAL_LOGIC, LEXICONS, read_file

TEST_ROWS = VALIDATION_ROWS = 2000
WORDS = 144_064
"""The words that stand in one of the three lists alone."""
EXPRESSIONS = 214_866
_EXPRESSION = re.compile(r"The expression is: (.*) which evaluates to:$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Task:
    """A task, and how long it is trained."""

    summary: str
    classes: int
    max_tokens: int
    final_rows: int
    """Training rows of a final run, one epoch of them; a run of the rate search has a third."""
    load: Callable[[Path], Split]
    """Read the rows out of the wheels in a cache folder."""

    def rows(self, stage: str) -> int:
        """Return the training rows of a run."""
        return self.final_rows if stage == "final" else self.final_rows // 3


def load_words(cache: Path) -> Split:
    """Return the words of the three lists in lower case; the class is the list.

    The few words that the Irish list has as wrong spellings belong to it like the others: they look like Irish.
    """
    lists: dict[str, set[int]] = {}
    for label, file in enumerate(LEXICONS):
        for line in read_file(file, cache).decode("utf-8").splitlines():
            lists.setdefault(json.loads(line)["input"][-1]["content"].lower(), set()).add(label)
    rows = [Row(word, label) for word, (label, *others) in lists.items() if not others]
    assert len(rows) == WORDS, len(rows)
    return split_rows(rows, str, TEST_ROWS, VALIDATION_ROWS)


def load_logic(cache: Path) -> Split:
    """Return the expressions, without the instruction around them; class 1 is true."""
    samples = [json.loads(line) for line in read_file(FORMAL_LOGIC, cache).decode("utf-8").splitlines()]
    rows = []
    for sample in samples:
        found = _EXPRESSION.search(sample["input"][-1]["content"])
        assert found, sample
        rows.append(Row(found[1], int(sample["ideal"] == "true")))
    assert len(rows) == EXPRESSIONS, len(rows)
    return split_rows(rows, str, TEST_ROWS, VALIDATION_ROWS)


def load_sarcasm(cache: Path) -> Split:
    """Return the headlines of examples/finetune, with as many to validate as the other tasks have."""
    return split_rows(load_headlines(cache), normalize, TEST_ROWS, VALIDATION_ROWS)


TASKS: dict[str, Task] = {
    "headlines": Task("is a headline sarcastic", 2, 48, 9_600, load_sarcasm),
    "words": Task("is a word Spanish, Irish or Brazilian Portuguese", 3, 24, 12_800, load_words),
    "logic": Task("is an expression of formal logic true", 2, 64, 12_800, load_logic),
}
