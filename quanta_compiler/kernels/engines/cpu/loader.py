"""A built library in this process, or why it does not load, and what to do about it."""

import ctypes
import shutil
import sys
import tempfile
from pathlib import Path

from quanta_compiler.kernels.engines.cpu.compiler import LoadError, MissingSymbolError

ABI = 1
"""What the library's `quanta_abi()` must return."""
_ELF = b"\x7fELF"
_HEADER_BYTES = 20


class OtherPlaceError(LoadError):
    """A library that may load from another folder: the system does not let this one be executed from."""


def load_library(path: Path) -> ctypes.CDLL:
    """Load a library that is whole, from where it lies.

    Raises:
        LoadError: it does not load.

    """
    _check_machine(path)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise _explained(str(error)) from error
    abi = library.quanta_abi() if hasattr(library, "quanta_abi") else None
    if abi != ABI:
        raise LoadError(f"the library {path} has the interface {abi}, not {ABI}")
    return library


def load_copy(path: Path) -> ctypes.CDLL:
    """Load a library by way of a copy in the folder for temporary files, which goes at once.

    Raises:
        LoadError: it does not load.
        OSError: there is no room for it.

    """
    with tempfile.TemporaryDirectory(prefix="quanta-compiler-", ignore_cleanup_errors=True) as scratch:
        return load_library(Path(shutil.copyfile(path, Path(scratch, path.name))))


def _explained(complaint: str) -> LoadError:
    reason = f"the library does not load: {complaint}"
    if "undefined symbol" in complaint or "symbol not found" in complaint.lower():
        return MissingSymbolError(reason)
    if "failed to map segment" in complaint or "not permitted" in complaint or "Permission denied" in complaint:
        return OtherPlaceError(reason, "QUANTA_CACHE names another folder for it, one that may be executed from")
    return LoadError(reason, "name another compiler in $CXX")


def _check_machine(path: Path) -> None:
    """Raise LoadError for a library of another machine: the loader says only that there is no such file."""
    try:
        own, made = _header(Path(sys.executable)), _header(path)
    except OSError:
        return
    if own.startswith(_ELF) and made.startswith(_ELF) and _machine(own) != _machine(made):
        raise LoadError(
            "the library that the compiler made is for another kind of machine than this one",
            "name a compiler for this machine in $CXX",
        )


def _header(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEADER_BYTES)


def _machine(header: bytes) -> tuple[bytes, bytes]:
    """Return the class and byte order that an ELF header names, and the instruction set."""
    return header[4:6], header[18:20]
