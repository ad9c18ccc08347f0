"""What a plain YAML scalar means: YAML 1.2's core schema, less whatever YAML 1.1 reads differently.

PyYAML reads `on` as true, `1:20` as 80 and `010` as 8; editors that follow YAML 1.2 do not. A scalar on which the two
disagree is refused, with a hint, rather than read either way.
"""

import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_SPECIAL_FLOAT = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_DIGITS_LIMIT = 400
"""Python refuses to convert integers past 4300 digits; no size here has more than 10."""

_SURPRISES: tuple[tuple[str, str], ...] = (
    (r"(?i:yes|no|on|off)", "YAML 1.1 reads it as a truth value; write true or false, or quote it"),
    (r"[-+]?0[0-9_]+", "YAML 1.1 reads it as an octal number; leave out the leading zero, or quote it"),
    (r"[-+]?0[xob][0-9a-fA-F_]*", "write the number in decimal, or quote it"),
    (r"[-+]?[0-9][0-9_]*(:[0-9_]+)+(\.[0-9_]*)?", "YAML 1.1 reads it as a number to base 60; quote it if it is text"),
    (r"[-+]?\.?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?", "write the number without _, or quote it"),
    (r"[-+]?[0-9]*\.[0-9]*_[0-9_]*([eE][-+]?[0-9]+)?", "write the number without _, or quote it"),
    (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt\s].*)?", "YAML 1.1 reads it as a date; quote it"),
    (r"=", "quote it"),
)


_SUSPECTS = frozenset("0123456789+-.=yYnNoO")
"""How a scalar begins on which they disagree: spares most words the search."""
_INNOCENT = re.compile(r"(?:0|[1-9][0-9]*)\Z")


def surprise(text: str) -> str | None:
    """Return what to do about a plain scalar on which YAML versions disagree, or None for the others."""
    if len(text) > 64 or not text or text[0] not in _SUSPECTS or _INNOCENT.match(text):
        return None
    return next((remedy for pattern, remedy in _SURPRISES if re.fullmatch(pattern, text)), None)


def is_overlong_number(text: str) -> bool:
    """Say whether a plain scalar is a number with absurdly many digits."""
    return len(text) > _DIGITS_LIMIT and bool(_FLOAT.match(text) or _INTEGER.match(text))


def resolve_plain(text: str) -> Scalar:
    """Return the value of a plain scalar that `surprise` and `is_overlong_number` let through."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    if _SPECIAL_FLOAT.match(text):
        return float(text.replace(".", ""))
    return float(text) if _FLOAT.match(text) else text


def reads_as_text(text: str) -> bool:
    """Say whether `text` written plain is read back as that text by every YAML version."""
    plain = re.match(r"[A-Za-z_][A-Za-z0-9_.-]*\Z", text) is not None
    return plain and surprise(text) is None and text not in _WORDS and text.lower() not in {"y", "n"}
