"""Data that a program hands over, as the plain types that a file would give."""

from collections.abc import Mapping
from typing import Any

DEPTH = 32
"""Deeper data is no circuit and is left for the checks to refuse; it may even contain itself."""


def plain(value: Any, depth: int = 0) -> Any:
    """Return the data with subclasses of `str`, `int` and `float` replaced by what they are.

    A subclass may write itself in any way it likes: what reaches an emitted file must not be asked for its text.
    """
    if isinstance(value, bool) or value is None or depth > DEPTH:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    return value
