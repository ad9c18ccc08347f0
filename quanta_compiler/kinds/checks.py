"""What the checks of values have in common: how to refuse, and the sentences about numbers."""

import math
from typing import Any, NoReturn

from quanta_compiler.diagnostics import DataPath, clip, quote

REPORTED = 20
"""Problems reported inside one value: a matrix of words need not list each of them."""


Problem = tuple[DataPath, str, str | None]


class BadValueError(ValueError):
    """What is wrong with a value; pydantic carries it to the place in the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(message for _, message, _ in problems))
        self.problems = problems[:REPORTED]


def refuse(problems: list[Problem]) -> NoReturn:
    """Raise what is wrong with a value."""
    raise BadValueError(problems)


def refuse_if(problems: list[Problem]) -> None:
    """Raise what is wrong with a value, if anything is."""
    if problems:
        refuse(problems)


def describe(value: object) -> str:
    """Say in a few words what a value of the file is."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {quote(value)}"
    if isinstance(value, int):
        # Not `str(value)`: that refuses integers of more than 4300 digits, which a dict can hold.
        return str(value) if abs(value) < 10**20 else "a huge integer"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return f"a Python {clip(type(value).__name__)}"


def is_integer(value: object) -> bool:
    """Say whether a value is an integer; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def integer_problem(value: Any, what: str, smallest: int, largest: int) -> str | None:
    """Say why a value is no integer within bounds, or return None."""
    if not is_integer(value):
        return f"{what} must be an integer, got {describe(value)}"
    if value < smallest:
        return f"{what} must be at least {smallest}, got {describe(value)}"
    if value > largest:
        return f"{what} is limited to {largest}, got {describe(value)}"
    return None


FLOAT32_MAX = 3e38


def number_problem(value: Any, what: str) -> str | None:
    """Say why a value is no finite number, or return None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{what} must be a number, got {describe(value)}"
    if isinstance(value, int) and abs(value) > FLOAT32_MAX:
        return f"{what} is too large for a float32"
    if not math.isfinite(value):
        return f"{what} must be finite, got {describe(value)}"
    return f"{what} must be a float32, got {describe(value)}" if abs(value) > FLOAT32_MAX else None
