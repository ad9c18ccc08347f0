"""The README stays short."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
WORDS = 1000


def test_the_readme_has_under_a_thousand_words() -> None:
    """Beside fenced code; links and tables are counted, and every URL is part of a word."""
    prose = re.sub(r"^(```+).*?^\1", "", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    words = [word for word in prose.split() if re.search(r"\w", word)]
    assert len(words) < WORDS
