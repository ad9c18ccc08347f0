"""Counts as people write them: `50000`, `50_000`, `50k`, `1.5M`."""

import re

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


def count_of(text: str) -> int:
    """Return a count: digits, or a number with a unit, k being 1,000, M 1,000,000, and G or B 1,000,000,000.

    Raises:
        ValueError: the text is no count; the message says how to write one.

    """
    found = re.fullmatch(r"(\d+(?:[,_]\d{3})*)(\.\d+)?\s*([kKmMgGbB]?)", text.strip())
    if found is not None:
        whole, fraction, unit = found.groups()
        size = _UNITS[unit.lower()]
        # A fraction in whole numbers: 1.1M is 1,100,000 and no float in between.
        digits = (fraction or ".")[1:]
        count, rest = divmod(int(re.sub("[,_]", "", whole) + digits) * size, int("1" + "0" * len(digits)))
        if not rest:
            return count
    raise ValueError(f"{text!r} is no count: write digits, or a number with a unit, such as 50k or 1.5M")
