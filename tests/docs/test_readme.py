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


def test_the_badges_are_true() -> None:
    """They say what the package declares, and need no address of ours."""
    project = (README.parent / "pyproject.toml").read_text(encoding="utf-8")
    minors = [int(minor) for minor in re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', project)]
    torch = re.search(r'"torch>=([\d.]+)"', project)
    license_ = re.search(r'^license = "(\w+)"', project, re.MULTILINE)
    assert torch
    assert license_
    assert re.findall(r"shields\.io/badge/([^)]+)-blue", README.read_text(encoding="utf-8")) == [
        f"Python-3.{min(minors)}_to_3.{max(minors)}",
        f"torch-{torch[1]}_or_later",
        f"license-{license_[1]}",
    ]
