"""One way to write quantities: what it gives, and that nothing outside `text/` has another."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from quanta_compiler.text.quantities import (
    amount_text,
    bytes_text,
    figure_text,
    percent_text,
    seconds_text,
    times_text,
)

PACKAGE = Path(__file__).parents[2] / "quanta_compiler"
ROUNDED = re.compile(r"\.\d|[ef%]$|,g")
"""A format that chooses digits."""
OTHERS = {
    "predict/calibration.py": "what is kept of a measurement",
    "predict/grid.py": "what is kept of a measurement",
    "emit/": "source",
    "bench/picture.py": "axes, which have one unit",
}
"""Files that write numbers for machines."""
UNITS = re.compile(r"\b(?:[KMGTP]i?B|[kMGT]FLOP|[µu]s|microseconds?|milliseconds?)\b|\d[.,]?\d*[efg%]\}")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (figure_text(0), "0"),
        (figure_text(0.0366), "0.0366"),
        (figure_text(1.2e-7), "1.2e-7"),
        (figure_text(999.4), "999"),
        (figure_text(999.6), "1,000"),
        (figure_text(123_456.7), "123,457"),
        (figure_text(1.444e60), "1.44e60"),
        (figure_text(math.nan), "nan"),
        (amount_text(0), "0"),
        (amount_text(999), "999"),
        (amount_text(3_670_016), "3.67 M"),
        (amount_text(840_123_456), "840 M"),
        (amount_text(999_999), "1 M"),
        (amount_text(1.23e10, "FLOP/s"), "12.3 GFLOP/s"),
        (amount_text(12, "FLOP/s"), "12 FLOP/s"),
        (bytes_text(1), "1 bytes"),
        (bytes_text(98_306), "96 KiB"),
        (bytes_text(1023 * 1024), "1,023 KiB"),
        (bytes_text(2**20 - 1), "1 MiB"),
        (bytes_text(72 * 2**20), "72 MiB"),
        (seconds_text(0), "0 s"),
        (seconds_text(1.5e-6), "1.5 us"),
        (seconds_text(0.00123), "1.23 ms"),
        (seconds_text(0.99999), "1 s"),
        (seconds_text(90), "90 s"),
        (percent_text(0.2563), "0.256%"),
        (percent_text(1.2e-5), "1.2e-5%"),
        (percent_text(99.98), "over 99.9%"),
        (percent_text(100), "100%"),
        (times_text(1.244), "1.24x"),
        (times_text(12_345), "12,345x"),
    ],
)
def test_quantities_are_written_in_one_way(written: str, text: str) -> None:
    assert written == text


def specifications(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the format of every number that is put into a text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and isinstance(node.format_spec, ast.JoinedStr):
            yield node.lineno, ast.unparse(node.format_spec)[2:-1]


def units(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every string that has a unit in it, comments and docstrings aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and UNITS.search(node.value):
            yield node.lineno, node.value


def test_nothing_outside_text_writes_quantities_in_its_own_way() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("text/") or any(name.startswith(other) for other in OTHERS):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{name}:{line}: {{:{spec}}}" for line, spec in specifications(tree) if ROUNDED.search(spec)]
        found += [f"{name}:{line}: {text}" for line, text in units(tree)]
    assert found == [], "write it by quanta_compiler/text/quantities.py"
