"""The mistakes that the first page shows are those that `quanta check` finds in the file above them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import quanta

PAGE = Path(__file__).parents[2] / "docs" / "start.md"


def test_the_mistakes_shown_are_those_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, told = re.findall(
        r"^```\n(version: .*?)^```$.*?^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S
    )[0]
    monkeypatch.chdir(tmp_path)
    Path("circuit.yaml").write_text(file, encoding="utf-8")
    result = quanta("check", "circuit.yaml")
    assert result.exit_code == 1
    assert result.stderr == told
