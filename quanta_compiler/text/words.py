"""Words beside numbers, as everything that is printed has them."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from quanta_compiler.diagnostics import quote

_Item = TypeVar("_Item")


def layout_text(layout: Mapping[str, int]) -> str:
    """Return `16x8x8x4`, or the axes by name where they have names."""
    if list(layout) == [str(position) for position in range(len(layout))]:
        return "x".join(map(str, layout.values()))
    return " ".join(f"{axis}:{size}" for axis, size in layout.items())


def plural(number: int, noun: str) -> str:
    """Return `1 gate`, `2 gates`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


UPDATE_ALONE = "of the update alone, without the frozen layer"
"""What every predicted time and multiple is of."""
DASH = "-"
"""Stands where there is no figure."""


def listed(words: Sequence[str], most: int) -> str:
    """Return the first few words, and how many more there are."""
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"


def some_of(words: Sequence[str]) -> str:
    """Return the first few words of a file, quoted, and how many more there are."""
    return listed([quote(word) for word in words], 5)


def evenly(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return at most `most` of some items, evenly spread over their order, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[place * (len(items) - 1) // max(1, most - 1)] for place in range(most)]


def span_text(lower: int, upper: int) -> str:
    """Return `3 to 5`, or `5` where both are it."""
    return f"{upper:,}" if lower == upper else f"{lower:,} to {upper:,}"
