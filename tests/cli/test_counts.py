"""`50k` and `1.5M` are taken wherever a count is asked for; what takes digits alone is named here with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from commands import quanta

from quanta_compiler.cli.app import COMMANDS

DIGITS = {
    "seed": "a name, not a count",
    "port": "a name, not a count",
    "threads": "at most a few",
    "jobs": "at most a few",
    "min_rank": "a rank is exact",
    "top": "a few columns of a table",
    "vectors": "a rank is exact",
}
WIDTHS = ("in_features", "out_features")


def numbers(command: str) -> Iterator[tuple[str, Any]]:
    """Yield the options of a command that take a whole number, each with what typer knows of it."""
    module = import_module(f"quanta_compiler.cli.{'import_' if command == 'import' else command}")
    function = getattr(module, f"{command}_" if command in ("import", "compile") else command)
    for name, hint in get_type_hints(function, include_extras=True).items():
        if get_origin(hint) is Annotated and int in (hint.__origin__, *get_args(hint.__origin__)):
            yield name, hint.__metadata__[0]


def test_every_number_is_a_count_or_has_a_reason() -> None:
    found = [(name, option) for command in COMMANDS for name, option in numbers(command)]
    assert {name for name, option in found if option.parser is None} == set(DIGITS)


@pytest.mark.parametrize("command", COMMANDS)
def test_counts_have_units_and_widths_have_not(command: str) -> None:
    for name, option in numbers(command):
        if name in WIDTHS:
            assert option.parser("3072") == 3072
            with pytest.raises(typer.BadParameter, match="'3k' is no width: write its digits, such as 3072"):
                option.parser("3k")
        elif name not in DIGITS:
            assert option.parser("1k") == 1000


def test_budgets_have_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # A search writes its folder where it runs.
    words = ("search", "--in", "16", "--out", "16", "--gates", "1-2", "--jobs", "1", "--json")
    with_unit, digits = (quanta(*words, "--max-parameters", most, "--force") for most in ("0.2k", "200"))
    assert with_unit.stdout == digits.stdout
