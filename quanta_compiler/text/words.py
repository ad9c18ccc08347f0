"""Numbers with their nouns and units, as everything that is printed has them."""

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


def bytes_text(number: float) -> str:
    """Return a size in the unit that suits it: `96.0 KiB`."""
    unit = 0
    while number >= 1024 and unit < 5:
        number /= 1024
        unit += 1
    return f"{number:.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[unit]}"


def number_text(value: float) -> str:
    """Return a figure with thousands apart; a decimal where it is small enough for one to count."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 10_000 else f"{value:,.1f}"


def times_text(value: float) -> str:
    """Return a multiple with two digits that count."""
    return f"{value:.2g}" if value < 99.5 else f"{value:,.0f}"


DASH = "-"
"""Stands where there is no figure."""


def percent_text(value: float) -> str:
    """Return a percentage with the digits that it deserves."""
    return f"{value:,.0f}%" if value >= 100 else f"{value:.3g}%"


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


def amount_text(value: float) -> str:
    """Return a count with the unit that suits it, in thousands: `3.67 M`."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 999.5 * size else f"{value / size:.0f} {unit}"
    return f"{value:,.3g}" if value < 999.5 else f"{value:,.0f}"


def seconds_text(value: float) -> str:
    """Return a time in the unit that suits it: `1.23 ms`."""
    unit, size = next(((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if value >= size), ("µs", 1e-6))
    return f"{value / size:.3g} {unit}"


def span_text(lower: int, upper: int) -> str:
    """Return `3 to 5`, or `5` where both are it."""
    return f"{upper:,}" if lower == upper else f"{lower:,} to {upper:,}"
