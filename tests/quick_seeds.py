"""Which of many seeds the quick tests take; `pytest -m slow` takes the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def every_second(cases: Iterable[int | str], long: Collection[int] = ()) -> list[Any]:
    """Return the parameters of a test: odd seeds are marked as slow, and those that take long; names are not."""

    def is_slow(case: int | str) -> bool:
        return isinstance(case, int) and (case % 2 == 1 or case in long)

    return [pytest.param(case, marks=[pytest.mark.slow] * is_slow(case)) for case in cases]
