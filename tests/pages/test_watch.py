"""`quanta watch`: what is shown of a file, by the server to this machine alone, and in a browser at every save."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import LOW_CONTRASTS, emulate, forget, messages, requests, texts
from commands import quanta

from quanta_compiler.watch.views import view

GOOD = "version: 1\nname: pairs\nlayout: 4x4x4\ngates: [all_pairs]\n"
WRONG = GOOD.replace("all_pairs", "all_pair")
HOSTILE = GOOD.replace("all_pairs", "'<img src=x onerror=hacked=1>'")
PATIENCE = 20
"""Seconds after which something that should happen has failed to."""


@pytest.fixture(autouse=True)
def _typical_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve two files by the command in a process of its own; return the address of the page."""
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD.replace("all_pairs", "each"))
    command = [sys.executable, "-m", "quanta_compiler", "watch", "a.yaml", "b.yaml", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("http://127.0.0.1:"), line
        yield line.partition(" ")[0]
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert (process.wait(PATIENCE), rest) == (0, "")


def test_a_file_is_shown_beside_lora(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    shown = view(tmp_path / "a.yaml")
    assert (shown.title, shown.problems, shown.is_stale) == ("pairs: 64 → 64 features", [], False)
    assert shown.diagram.startswith("<svg")
    assert {"name": "trained numbers", "value": "768", "reference": "1,024"} in shown.figures


def test_a_mistake_is_shown_beside_what_was_right(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    right = view(file)
    file.write_text(WRONG)
    wrong = view(file, right)
    assert (wrong.diagram, wrong.figures, wrong.is_stale) == (right.diagram, right.figures, True)
    (problem,) = wrong.problems
    assert problem["severity"] == "error"
    assert "a.yaml:4:9: unknown pattern 'all_pair'" in problem["text"]
    assert "        ^~~~~~~~" in problem["text"]
    assert "hint: did you mean `all_pairs`?" in problem["text"]
    file.unlink()
    assert "no such file" in view(file, wrong).problems[0]["text"]
    file.write_text(GOOD)
    assert view(file, wrong) == right


def test_a_template_is_shown_at_some_width(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nname: template\npreset: lora\nrank: 4\n")
    assert view(tmp_path / "a.yaml").title == "template: 4096 → 4096 features, shown at 4096 features"


def test_what_is_no_mistake_of_the_file_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)

    def fails(_: object) -> str:
        raise MemoryError("not today")

    monkeypatch.setattr("quanta_compiler.watch.views.render_svg", fails)
    assert "a.yaml cannot be shown: MemoryError: not today" in view(tmp_path / "a.yaml").problems[0]["text"]


def test_only_this_machine_is_answered(served: str) -> None:
    with urllib.request.urlopen(served) as answer:
        assert "default-src 'none'" in answer.read().decode()
    for path in ("", "events"):
        asked = urllib.request.Request(served + path, headers={"Host": "elsewhere.example"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(asked)


def test_saved_files_appear_in_the_browser(served: str, browser: Any, tmp_path: Path) -> None:
    forget(browser)
    browser.get(served)
    wait_until(lambda: texts(browser, "h2") == ["a.yaml", "b.yaml"])
    assert texts(browser, ".problem") == []
    assert [text.partition(" ")[0] for text in texts(browser, "#status")] == ["all"]
    # As editors save: a new file in the place of the old one.
    (tmp_path / "new").write_text(WRONG)
    os.replace(tmp_path / "new", tmp_path / "a.yaml")
    wait_until(lambda: bool(texts(browser, ".problem.error")))
    assert "did you mean `all_pairs`?" in texts(browser, ".problem.error")[0]
    assert texts(browser, "#status")[0].startswith("1 of 2 with a mistake")
    for scheme in ("dark", "light"):
        emulate(browser, scheme)
        assert browser.execute_script(LOW_CONTRASTS) == [], scheme
    (tmp_path / "a.yaml").write_text(HOSTILE)
    wait_until(lambda: "onerror" in texts(browser, ".problem.error")[0])
    (tmp_path / "a.yaml").write_text(GOOD)
    wait_until(lambda: not texts(browser, ".problem"))
    assert browser.execute_script("return [...document.images].every((one) => one.naturalWidth > 100)")
    assert browser.execute_script("return window.hacked ?? null") is None
    assert messages(browser) == []
    assert set(requests(browser)) == {served, served + "events"}
    forget(browser)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("nothing.yaml",), "nothing.yaml: no such file"),
        ((".",), ".: is a folder"),
        (("a.yaml", "--port", "1"), "port 1 of"),
    ],
)
def test_wrong_input_is_told_before_anything_is_served(
    arguments: tuple[str, ...], fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "bind", refused)
    (tmp_path / "a.yaml").write_text(GOOD)
    result = quanta("watch", *arguments)
    assert result.exit_code == 1
    assert fact in result.stderr
    assert "hint: " in result.stderr


def test_two_names_of_one_file_are_both_shown_anew(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "link.yaml").symlink_to("a.yaml")

    async def watched() -> list[str]:
        one = Watched([tmp_path / "a.yaml", tmp_path / "link.yaml"])
        stream = one.events()
        following = asyncio.create_task(one.follow())
        await anext(stream)
        # Maybe before the watch has begun: it is seen all the same.
        (tmp_path / "a.yaml").write_text(GOOD.replace("pairs\n", "other\n"))
        shown = json.loads((await asyncio.wait_for(anext(stream), PATIENCE)).removeprefix("data: "))
        following.cancel()
        return [view["title"] for view in shown]

    pytest.importorskip("starlette", reason="starlette is not installed")
    from quanta_compiler.watch.server import Watched

    assert asyncio.run(watched()) == ["other: 64 → 64 features"] * 2


def test_it_ends_in_silence_while_a_page_is_open(served: str) -> None:
    stream = urllib.request.urlopen(served + "events")
    assert stream.readline().startswith(b"data: ")
    # The stream stays open: what the fixture then does is Ctrl+C, and it looks at what is said.


def test_a_template_keeps_its_own_output_width(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nname: a\nlayout: {auto: 4}\nout_features: 1024\ngates: [all_pairs]\n")
    shown = view(tmp_path / "a.yaml")
    assert [one for one in shown.problems if one["severity"] == "error"] == []
    assert shown.title == "a: 4096 → 1024 features, shown at 4096 features"
