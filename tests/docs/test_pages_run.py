"""The Python of pages that go step by step runs as it stands and prints what they say; so do their commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import quanta

ROOT = Path(__file__).parents[2]
CHECKS = {
    "how-it-works.md": "assert torch.allclose(y, weight(x), atol=1e-5)\nassert delta.abs().max() == 0\n",
}
"""What a reader would look at after the last block."""


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for tongue, block in fences if tongue == language]


@pytest.mark.parametrize("page", ["how-it-works.md", "pictures.md", pytest.param("start.md", marks=pytest.mark.slow)])
def test_the_python_runs_and_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("finetune", "__pycache__"))
    script = "\n".join(blocks(page, "python"))
    command = [sys.executable, "-c", script + CHECKS.get(page, "")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    printed = iter(result.stdout.splitlines())
    for value in re.findall(r"^ *print\(.*\)  # (\S+?):?(?: .*)?$", script, re.MULTILINE):
        assert value in printed, f"{value} was not printed after what stands before it:\n{result.stdout}"


def test_the_first_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (commands,) = blocks("start.md", "console")
    for command in commands.splitlines():
        line, _, file = command.removeprefix("$ quanta ").partition(" > ")
        result = quanta(*line.split())
        assert result.exit_code == 0, command
        if file:
            Path(file).write_text(result.stdout, encoding="utf-8")


def test_the_mistakes_shown_are_those_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, told = blocks("start.md", "")[-2:]
    monkeypatch.chdir(tmp_path)
    Path("circuit.yaml").write_text(file, encoding="utf-8")
    result = quanta("check", "circuit.yaml")
    assert result.exit_code == 1
    assert result.stderr == told
