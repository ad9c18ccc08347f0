"""Methods that are no circuits, as the command line and the documentation name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_compiler.compare.methods import METHODS, parse_method

SHIPPED = Path(__file__).parents[2] / "examples" / "models"
SHAPES = [(24, 24), (24, 40), (40, 24), (36, 10), (10, 36)]
TOKENS = 7


def test_methods_are_read() -> None:
    for name, method in METHODS.items():
        assert parse_method(str(method)) == (method, method.example)
        assert method.name == name
    assert parse_method("dora:7") == (METHODS["dora"], 7)
    assert parse_method("lora:8") is None
    assert parse_method("Dora:8") is None


def test_the_documentation_has_every_method() -> None:
    text = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    for method in METHODS.values():
        row = next(row for row in rows if row[0] == f"| `{method}`")
        assert row[1] == f"`{method.formula}`"
        assert row[2] == method.parameters
        assert all(part in row[3] for part in method.paper.replace(";", ",").split(", "))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dora", "`dora` takes the rank r of B A, 1 to 999999, and none is given: write `dora:16`"),
        ("dora:", "`dora` takes the rank r of B A, 1 to 999999, not '': write `dora:16`"),
        ("prefix:0", "`prefix` takes the length l of the prefix, 1 to 999999, not '0': write `prefix:10`"),
        ("prefix:1000000", "`prefix` takes the length l of the prefix, 1 to 999999, not '1000000': write `prefix:10`"),
        ("series:-4", "`series` takes the width b of the bottleneck, 1 to 999999, not '-4': write `series:256`"),
        (
            "mora:1e3",
            "`mora` takes the rank r of the LoRA that has as many numbers, 1 to 999999, not '1e3': write `mora:8`",
        ),
        ("dora:\n8", "`dora` takes the rank r of B A, 1 to 999999, not '\\n8': write `dora:16`"),
        ("dense:4", "`dense` takes no value: write `dense`"),
    ],
)
def test_values_that_are_no_good(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is the point
        parse_method(text)
    assert str(caught.value) == message
