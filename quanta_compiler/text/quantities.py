"""How quantities are written in the terminal, in messages and on pages: one way for each; the JSON has all digits.

| quantity | is written | by |
|---|---|---|
| a whole number: parameters, ranks, tokens | with all digits, thousands apart: `1,234,567` | the format `,` |
| FLOPs, and their rate | three digits and a unit, thousands: `3.67 M`, `12.3 GFLOP/s` | `amount_text` |
| bytes, and their rate | three digits and a unit, 1,024ths: `96 KiB` | `bytes_text` |
| a time | three digits and `s`, `ms` or `us`: `1.23 ms` | `seconds_text` |
| a share | three digits: `0.256%` | `percent_text` |
| a multiple of another | three digits: `1.24x` | `times_text` |
| any other figure: a gain, a norm, an error | three digits: `0.037`, `1.2e-7` | `figure_text` |

Three digits are three that count, zeros at the end left out; 1,000 and more are whole. `pages/assets/common.js` does
the same on pages. A bound that users type (`--max-flops`) is a whole number, so that they can type what they read.
"""

import math
from collections.abc import Sequence

_LEAST, _MOST = 1e-4, 1e15
"""Figures outside are powers of ten."""


def figure_text(value: float) -> str:
    """Return three digits of a figure: `0.037`, `12,345`, `1.2e-7`."""
    size = abs(value)
    if 0 < size < _LEAST or _MOST <= size < math.inf:
        digits, power = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:,.0f}" if size >= 999.5 else f"{value:.3g}"


def amount_text(value: float, unit: str = "") -> str:
    """Return FLOPs, or their rate, in thousands: `3.67 M`, `12.3 GFLOP/s`."""
    return _scaled(value, 1000, tuple(f"{prefix}{unit}" for prefix in ("", "k", "M", "G", "T", "P")))


def bytes_text(value: float) -> str:
    """Return bytes in the unit that suits them: `96 KiB`."""
    return _scaled(value, 1024, ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    """Return a value in the largest of `units` that it fills once rounded, each `base` times the one before."""
    place = 0
    while value >= base - 0.5 and place < len(units) - 1:
        value /= base
        place += 1
    return f"{figure_text(value)} {units[place]}".rstrip()


def seconds_text(value: float) -> str:
    """Return a time in the unit that suits it: `1.23 ms`."""
    unit, size = ("s", 1.0) if not value or value >= 0.9995 else ("ms", 1e-3) if value >= 9.995e-4 else ("us", 1e-6)
    return f"{figure_text(value / size)} {unit}"


def percent_text(value: float) -> str:
    """Return a percentage: `0.256%`; what is less than all is never shown as all."""
    return "over 99.9%" if 99.95 <= value < 100 else f"{figure_text(value)}%"


def times_text(value: float) -> str:
    """Return a multiple: `1.24x`."""
    return f"{figure_text(value)}x"
