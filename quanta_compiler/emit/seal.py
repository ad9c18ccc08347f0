"""The first line of a module that we write: it tells whether the rest was edited since."""

import hashlib

from quanta_compiler.spec.files import SEAL


def sealed(body: str) -> str:
    """Return the source of a module with its seal."""
    return f"{SEAL}{hashlib.sha256(body.encode('utf-8')).hexdigest()}\n{body}"


def is_unedited(source: str) -> bool:
    """Return whether a source is, byte for byte, one that was sealed."""
    return source == sealed(source.partition("\n")[2])
