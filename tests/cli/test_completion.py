"""Completion in shells: commands, options, choices and entrants, by the protocol of typer's scripts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quanta_compiler.cli.app import COMMANDS, app
from quanta_compiler.presets.table import PRESETS


def completions(line: str) -> list[str]:
    """Return what bash would offer for the last word of a line."""
    words = line.split(" ")
    environment = {
        "_QUANTA_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    result = CliRunner().invoke(app, [], prog_name="quanta", env=environment)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.split()


def script_for(shell: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what `--show-completion` prints in a shell, named here, for the tests may run in any."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    result = CliRunner().invoke(app, ["--show-completion", shell], prog_name="quanta")
    assert result.exit_code == 0
    return result.stdout


def test_commands() -> None:
    assert completions("quanta ") == [*COMMANDS]
    assert completions("quanta re") == ["report", "recommend"]


def test_options() -> None:
    assert completions("quanta compare a.yaml --ba") == ["--baseline", "--backend"]
    # Those of the families too, which are looked up where the command runs.
    assert completions("quanta new --bl") == ["--blocks", "--block-rank"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("expand a.yaml --stage p", ["plan", "program"]),
        ("bench a.yaml --dtype ", ["float32", "bfloat16", "float64"]),
        ("bench a.yaml --only dense,lo", ["dense,lora-8", "dense,lora-64"]),
        ("bench --calibrate --device c", ["cpu", "cuda"]),
        ("compare a.yaml --backend f", ["fused"]),
        ("compare a.yaml --sort step", ["step_flops_per_token", "step_seconds"]),
        ("compare a.yaml --device ", ["cpu", "cuda"]),
        ("compare a.yaml -b d", ["dense", "dora:8"]),
        ("compare a.yaml -b dense -b lor", ["lora:8", "lora", "loretta"]),
        ("new --preset lor", ["lora", "loretta", "lora:8"]),
        ("recommend --model m --family ", [*PRESETS]),
        ("recommend --model m --targets a", ["all-linear"]),
        ("search --backend t", ["threading"]),
        ("search --objectives rank,rank-", ["rank,rank-upper"]),
    ],
)
def test_choices_and_entrants(line: str, found: list[str]) -> None:
    assert completions(f"quanta {line}") == found


@pytest.mark.parametrize("line", ["check ", "check exa", "compile a.yaml -o ", "compare a.yaml ", "watch ", "import "])
def test_files_are_left_to_the_shell(line: str) -> None:
    assert completions(f"quanta {line}") == []


@pytest.mark.parametrize(
    ("shell", "words", "shown"),
    [
        ("zsh", "quanta compare -b lora", '"lora\\\\:8"'),
        ("zsh", "quanta ver", '"verify":"Test the compiled module."'),
        ("fish", "quanta compare -b lora:", "lora:8"),
        ("fish", "quanta ver", "verify\tTest the compiled module."),
    ],
)
def test_zsh_and_fish(shell: str, words: str, shown: str) -> None:
    environment = {
        "_QUANTA_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert shown in CliRunner().invoke(app, [], prog_name="quanta", env=environment).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_call_back(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"_QUANTA_COMPLETE=complete_{shell}" in script_for(shell, monkeypatch)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself_completes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "quanta"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m quanta_compiler "$@"\n')
    program.chmod(0o755)
    line = f"COMP_WORDS=(quanta compare -b krona); COMP_CWORD=3; _quanta_completion {program}"
    script = f"{script_for('bash', monkeypatch)}\n{line}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["krona:64-64", "krona"]
