"""What YAML texts mean: YAML 1.1 surprises, limits, and files that are no circuit files at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.driver import compile_circuit
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.scalars import reads_as_text, resolve_plain, surprise

HEAD = "version: 1\nname: example\n"


def message(source: object) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(source)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("2048-12-12", (2048, 12, 12)),
        ("2x2", (2, 2)),
        ("1x20", (1, 20)),
        ("010", (10,)),
        ("4096", (4096,)),
        ("'16x8'", (16, 8)),
        ("[16, 8]", (16, 8)),
        ("{a: 16, b: 8}", (16, 8)),
    ],
)
def test_layouts_are_read_from_the_text(text: str, sizes: tuple[int, ...]) -> None:
    spec = load_spec(f"{HEAD}layout: {text}\ngates: [each]\n")
    assert tuple(axis.size for axis in spec.layout) == sizes


@pytest.mark.parametrize(
    "word",
    [
        "on",
        "off",
        "yes",
        "no",
        "On",
        "OFF",
        "Yes",
        "NO",
        "010",
        "0o17",
        "0x10",
        "0b1",
        "1:20",
        "1:20:30",
        "190:20:30.15",
        "1_000",
        "1_000.5",
        "2048-12-12",
        "=",
    ],
)
def test_surprises_are_refused(word: str) -> None:
    assert surprise(word) is not None
    assert not reads_as_text(word)
    assert "quote it" in message(f"{HEAD}layout: 4\ngates: [[0]]\nplan: {{tokens: {word}}}\n")
    assert len(message(f"{HEAD}layout: 4\ngates: [[0]]\n{word}: 1\n").splitlines()) == 4


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("12", 12),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1.5E+3", -1500.0),
        ("y", "y"),
        ("n", "n"),
        ("1-2", "1-2"),
        ("a b", "a b"),
        ("nan", "nan"),
    ],
)
def test_plain_scalars(word: str, value: object) -> None:
    assert surprise(word) is None
    assert resolve_plain(word) == value
    assert type(resolve_plain(word)) is type(value)


def test_quoted_numbers_are_text() -> None:
    assert "got the text '4'" in message(f"{HEAD}layout: ['4', 4]\ngates: [each]\n")
    # Digit strings are positions where an axis may stand: JSON has no other keys.
    spec = load_spec(
        '{"version": 1, "name": "a", "layout": [4, 4], "gates": [{"axes": ["0", "-1"], "to": {"1": 2, "0": 4}}]}'
    )
    assert [(axis.name, axis.size) for axis in spec.gates[0].to] == [("1", 2), ("0", 4)]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff{}layout: 4\r\ngates:\r\n  - each\r\n",
        "{}layout: 4\rgates: [each]\r",
        "---\n{}layout: 4\ngates: [each]\n...\n",
    ],
)
def test_line_ends_and_marks(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(text.format(HEAD).encode())
    assert load_spec(file) == load_spec(text.format(HEAD)) == load_spec(str(file))


def test_aliases() -> None:
    spec = load_spec(f"{HEAD}layout: 4x4\ngates:\n  - {{axes: &a [0, 1], name: a}}\n  - {{axes: *a, name: b}}\n")
    assert spec.gates[0].axes == spec.gates[1].axes


def test_a_mistake_behind_an_alias_is_one_problem() -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(f"{HEAD}layout: 4x4\ngates:\n  - {{axes: &a [0, {{}}]}}\n  - {{axes: *a}}\n")
    assert len(caught.value.diagnostics) == 1


MANY_KEYS = "".join(f"k{i}: 1, " for i in range(60_000))
GATES = HEAD + "layout: 4\ngates: ["
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
HOSTILE: dict[str, tuple[str, str]] = {
    "alias bomb": (BOMB, "150,000 values"),
    "self reference": ("a: &a [*a]\n", "stands inside of what it repeats"),
    "self reference in a mapping": ("&a {b: *a}\n", "stands inside of what it repeats"),
    "unknown alias": ("a: *b\n", "no anchor"),
    "brackets": ("[" * (1 << 20) + "", "larger than|32 levels"),
    "brackets on lines": ("[\n" * 400_000, "32 levels"),
    "braces": ("{a: " * 1000 + "\n", "32 levels"),
    "block sequences": ("- " * 1000 + "\n", "32 levels"),
    "aliases that nest": ("a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 15 + "*a" + "]" * 15 + "\n", "32 levels"),
    "many values": ("[" + "1," * 300_000 + "]\n", "150,000 values"),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(60_000)), "60,000 keys"),
    "many unknown keys of a gate": (GATES + "{axes: [0], " + MANY_KEYS + "}]\n", "60,001 keys"),
    "many gates": (GATES + "[0]," * 60_000 + "]\n", "the limit is 10,000"),
    "many wrong gates": (GATES + "{a: {}}," * 9_000 + "]\n", "more"),
    "a long matrix": (GATES + "{axes: [0], kind: constant, value: [" + "[a]," * 60_000 + "]}]\n", "must be a number"),
    "huge integer": (f"{HEAD}layout: 4\ngates: [each]\nin_features: " + "9" * 5000 + "\n", "5000 characters"),
    "huge size in a layout": (f"{HEAD}layout: 4x" + "9" * 5000 + "\ngates: [each]\n", "limited to"),
    "long number": (f"{HEAD}layout: 4\ngates: [each]\nin_features: " + "9" * 300 + "\n", "a huge integer"),
    "many axes": (f"{HEAD}layout: " + "x".join(["1"] * 5000) + "\ngates: [all_pairs]\n", "5000 axes"),
    "pairs of many axes": (f"{HEAD}layout: " + "x".join(["1"] * 250) + "\ngates: [all_pairs]\n", "31,125 gates"),
    "a long name": ("version: 1\nname: " + "a" * 100_000 + "\nlayout: 4\ngates: [each]\n", "cannot be the name"),
    "escape character": ("name: \x1b[31m\n", "U\\+001B"),
    "NUL": ("name: \0\n", "U\\+0000"),
    "lone surrogate": ("name: \ud800\n", "U\\+D800"),
    "keys that are collections": ("? [a, b]\n: 1\n? {c: d}\n: 2\n", "a key must be"),
    "keys that are no words": ("true: 1\n1.5: 2\n~: 3\n", "a key must be"),
    "tags": ("!!binary aGVsbG8=: !!set {a, b}\n", "is not allowed"),
    "only comments": ("# nothing\n\n", "is empty"),
    "blank": ("\n", "is empty"),
    "a scalar": ("hello\n", "is a mapping"),
    "an open quote": ("name: 'abc\n", "YAML syntax"),
    "a tab": ("gates:\n\t- a\n", "YAML syntax"),
    "a bad directive": ("%YAML 9.9\n---\na: 1\n", "YAML"),
    "a bad escape": ('name: "\\q"\n', "YAML syntax"),
    "bad indentation": ("a: 1\n b: 2\n", "YAML syntax"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name: str) -> None:
    text, pattern = HOSTILE[name]
    with pytest.raises(SpecError, match=pattern) as caught:
        load_spec(text if "\n" in text or text.startswith("{") else text + "\n")
    shown = str(caught.value)
    assert "\x1b" not in shown
    assert len(shown) < 100_000


@pytest.mark.parametrize(
    ("rest", "place", "hint"),
    [
        (" layout: 4x4\ngates: [all_pairs]\n", "3:8", "look at the spaces before this line: all keys of a mapping"),
        ("layout: 4x4\ngates:\n  - all_pairs\n - [0, 1]\n", "6:2", "look at the spaces before this line"),
        ("layout: 4x4\ngates:\n  - axes: [0, 1]\n   kind: dense\n", "6:4", "look at the spaces before this line"),
        ("layout: 4x4\ngates:\n  - {axes: [0, 1]\n  - all_pairs\n", "6:3", "the `{` on line 5 needs its `}`"),
        ("layout: 4x4\ngates:\n  - [0, 1\n", "6:1", "the `[` on line 5 needs its `]`, or a comma is missing"),
    ],
)
def test_the_words_of_the_parser_are_explained(rest: str, place: str, hint: str) -> None:
    told = message(HEAD + rest)
    assert f":{place}: YAML syntax" in told
    assert f"hint: {hint}" in told
    # Two colons in a line are no matter of indentation.
    assert "spaces" not in message(f"{HEAD}layout: a: 4\n")


def test_things_that_are_no_files(tmp_path: Path) -> None:
    assert "no such file" in message(str(tmp_path / "missing.yaml"))
    assert "is a directory" in message(tmp_path)
    assert "is a device" in message("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe" in message(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        server.bind("socket")
        assert "is a socket" in message("socket")
    module = tmp_path / "example.py"
    module.write_text(compile_circuit(load_spec(f"{HEAD}layout: 4\ngates: [[0]]\n")).source)
    assert "is the module made of a circuit" in message(module)
    assert "cannot be read" in message("a\0b")
    assert "cannot be read" in message("a" * 5000)
    assert (
        message("\x1b[31m.yaml") == "\\x1b[31m.yaml: no such file\n  hint: `quanta new` prints a circuit to start from"
    )
    with pytest.raises(TypeError):
        load_spec(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"a: 1\n" * 400_000, "larger than 1 MiB"),
        (b"\x7fELF\0\0", "binary"),
        ("a: 1\n".encode("utf-16"), "UTF-16"),
        (b"a: 1\nb: \xff\n", "not UTF-8 text \\(line 2\\)"),
        (b"a: \x1b[31m\n", "U\\+001B"),
    ],
)
def test_bytes_that_are_no_text(data: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(data)
    with pytest.raises(SpecError, match=expected):
        load_spec(tmp_path / "a.yaml")
