"""A circuit file's bytes: bounded, regular, UTF-8."""

import os
import stat
import sys

from quanta_compiler.diagnostics import SpecError, did_you_mean, refusal
from quanta_compiler.kinds import limits
from quanta_compiler.text.quantities import bytes_text

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "<stdin>"
SEAL = "# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: "
"""How an emitted module begins, which is easily given in the place of the circuit."""

_SPECIAL = (
    (stat.S_ISDIR, "is a directory, not a circuit file", "name a file in it"),
    (stat.S_ISFIFO, "is a pipe, not a file", "write the circuit to a file first"),
    (stat.S_ISCHR, "is a device, not a file", None),
    (stat.S_ISBLK, "is a device, not a file", None),
    (stat.S_ISSOCK, "is a socket, not a file", None),
)


class StandardInput(str):
    """The text of a circuit that was read from standard input, which is its name in messages."""


def too_large(name: str) -> SpecError:
    """Return the error for a text beyond the limit."""
    return refusal(name, f"is larger than {bytes_text(limits.FILE_BYTES)}", hint="a circuit file is a few lines long")


def standard_input() -> StandardInput:
    """Return the text of a circuit from standard input, so that it is not taken for a path; raise SpecError."""
    data = b"" if sys.stdin is None else sys.stdin.buffer.read(limits.FILE_BYTES + 1)
    if len(data) > limits.FILE_BYTES:
        raise too_large(STANDARD_INPUT_NAME)
    text = decode(STANDARD_INPUT_NAME, data)
    # A text without a line break would be taken for a path; a line more would move what is wrong at the end.
    return StandardInput(text if "\n" in text else text + "\n")


def read_file(path: str) -> str:
    """Return the text of a circuit file; raise SpecError where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise refusal(path, "no such file", hint=_near(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise refusal(path, f"cannot be read: {reason or 'the name is not valid'}") from None
    for is_kind, message, hint in _SPECIAL:
        if is_kind(status.st_mode):
            raise refusal(path, message, hint=hint)
    try:
        with open(path, "rb") as file:
            data = file.read(limits.FILE_BYTES + 1)
    except OSError as error:
        raise refusal(path, f"cannot be read: {error.strerror}") from None
    if len(data) > limits.FILE_BYTES:
        raise too_large(path)
    text = decode(path, data)
    if text.startswith(SEAL):
        raise refusal(
            path, "this is the module made of a circuit, not the circuit", hint="give the file it was made of"
        )
    return text


def _near(path: str) -> str:
    """Return the hint for a file that is not there: another of nearly that name in its folder."""
    folder, name = os.path.split(path)
    try:
        others = {os.path.splitext(other)[0]: other for other in sorted(os.listdir(folder or "."))}
    except (OSError, ValueError):
        others = {}
    # Endings are alike in all names.
    close = did_you_mean(os.path.splitext(name)[0], others)
    if close is None:
        return "`quanta new` prints a circuit to start from"
    return f"did you mean {os.path.join(folder, others[close])}?"


def decode(name: str, data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark."""
    if b"\0" in data:
        raise refusal(name, "is a binary file, or text in UTF-16", hint="save it as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refusal(name, f"is not UTF-8 text (line {line})", hint="save it as UTF-8 text") from None
    return text
