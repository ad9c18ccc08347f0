"""Every `quanta` command in the documentation is one that the command line takes: its name, options and arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_docs import FENCE, IDS, PAGES, ROOT
from typer.main import get_command

from quanta_compiler.cli.app import app

QUANTA: Any = get_command(app)
PROMPT = re.compile(r"^(?:\$ )?(?:\S+/)?quanta (?=[a-z])")
ENDS = re.compile(r"\s(?:\||>|2>|&&|;|#)\s")
INLINE = re.compile(r"`(?:\$ )?quanta ([a-z][^`\n]*)`")


def typed(page: Path) -> Iterator[str]:
    """Yield what a reader would type after `quanta`, a continued line joined."""
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in ("", "bash", "console", "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                for part in line.split(" | "):
                    if PROMPT.match(part):
                        yield ENDS.split(PROMPT.sub("", part))[0]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_in_blocks_are_taken(page: Path) -> None:
    refused = []
    for line in typed(page):
        if "…" in line:
            continue
        name, *arguments = shlex.split(line)
        try:
            with QUANTA.make_context("quanta", [name, *arguments]) as context:
                QUANTA.get_command(context, name).make_context(name, arguments, parent=context)
        except Exception as error:  # of the copy of click that typer has
            refused.append(f"quanta {line}: {getattr(error, 'message', error)}")
    assert refused == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_in_sentences_have_their_options(page: Path) -> None:
    unknown = []
    sentences = INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    for line in [*sentences, *(line for line in typed(page) if "…" in line)]:
        name, *words = ENDS.split(line)[0].split()
        with QUANTA.make_context("quanta", [name]) as context:
            command = QUANTA.get_command(context, name)
            options = command.get_params(context) if command else []
        known = {spelling for option in options for spelling in (*option.opts, *option.secondary_opts)}
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        if command is None or given - known:
            unknown.append(f"quanta {line}")
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_scripts_and_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE)) <= targets
    for script, options in re.findall(r"(?:^|`)python\s+(\w\S*\.py)([^`\n#]*)", text, re.MULTILINE):
        source = (ROOT / script).read_text(encoding="utf-8")
        assert [option for option in re.findall(r"--?[a-z]+", options) if f'"{option}"' not in source] == [], script
