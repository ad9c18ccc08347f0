"""`quanta new`: what it prints is valid as it stands, and so is every line that it suggests."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner, Result

from quanta_compiler import load_spec
from quanta_compiler.cli.app import app

LAYOUTS = [
    "16x8x8x4",
    "16-8-8-4",
    "[16, 8, 8, 4]",
    "{a: 16, b: 8}",
    "7",
    "2048-12-12",
    "2x2",
    "x".join(["2"] * 20),
    "4x1x4",
]


def new(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["new", *arguments])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_file_is_valid_and_nothing_to_warn_of(layout: str) -> None:
    result = new("--layout", layout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert load_spec(result.stdout).warnings == ()
    checked = CliRunner().invoke(app, ["check", "-"], input=result.stdout)
    assert (checked.exit_code, checked.stderr) == (0, "")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_line_that_it_suggests_is_valid_too(layout: str) -> None:
    text = new("--layout", layout).stdout
    suggestions = re.findall(r"(?m)^ *# (?:- .*|init: .*|plan: .*|in_features: .*|out_features: .*)$", text)
    assert len(suggestions) >= 4
    for line in suggestions:
        load_spec(text.replace(line, line.replace("# ", "", 1)))


def test_the_name_comes_from_the_layout_or_from_the_user() -> None:
    assert load_spec(new("--layout", "4x2").stdout).name == "quanta-4-2"
    assert load_spec(new("mine", "--layout", "4x2").stdout).name == "mine"
    # A word that YAML takes for something else is quoted.
    assert load_spec(new("on", "--layout", "4x2").stdout).name == "on"


def test_widths_beside_the_layout() -> None:
    spec = load_spec(new("--layout", "{auto: 4}", "--in-features", "5120", "--out-features", "1024").stdout)
    assert (spec.in_features, spec.out_features) == (5120, 1024)
    assert [axis.size for axis in spec.layout] == [10, 8, 8, 8]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ([], "--layout"),
        (["--layout", "16x0"], "--layout"),
        (["--layout", "0x10"], "--layout"),
        (["--layout", "4x"], "--layout"),
        (["--layout", ""], "--layout"),
        (["--layout", "4x4\ngates: []"], "--layout"),
        (["--layout", "{auto: 4}"], "--layout"),
        (["--layout", "*x"], "--layout"),
        (["--layout", "99999999999x3"], "--layout"),
        (["9x", "--layout", "4x4"], "NAME"),
        (["--layout", "4x4", "--in-features", "0"], "--in-features"),
        (["--layout", "4x4", "--out-features", "-3"], "--out-features"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], option: str) -> None:
    result = new(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"'{option}'" in result.stderr
