"""The C++ compiler of this machine: which one it is, which flags it takes, whether what it makes loads."""

import ctypes
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
TIMEOUT = 300
"""Seconds, for what takes ten."""
BASE_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-x", "c++", "-")
_NATIVE = "-march=native" if platform.machine() in ("x86_64", "AMD64", "i386", "i686") else "-mcpu=native"
_OPENMP = "-fopenmp"
OPTIONAL_FLAGS = ((_NATIVE, _OPENMP), (_NATIVE,), (_OPENMP,), ())
"""To be tried in turn: Apple's clang has no OpenMP, and an old assembler does not know a new CPU's instructions."""
LIBRARIES: tuple[tuple[str, ...], ...] = ((), ("-lstdc++", "-lm"), ("-lc++", "-lm"))
"""To be tried in turn: a compiler of C, which translates C++ as well, links no library of C++ by itself."""
ABI = 1
"""What the library's `quanta_abi()` must return."""
_ELF = b"\x7fELF"

_LOG = logging.getLogger("quanta_compiler")


class KernelError(Exception):
    """The kernel cannot be had; the reason is one sentence without a full stop."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class LoadError(KernelError):
    """A library was made, and does not load: making it again would end the same."""


class MissingSymbolError(LoadError):
    """A library that lacks what a compiler of C++ would have linked with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "name a C++ compiler in $CXX, such as g++ or clang++")


class OtherPlaceError(LoadError):
    """A library that may load from another folder: the system does not let this one be executed from."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler as it is called, and what tells it from others and from itself after an upgrade."""

    words: tuple[str, ...]
    identity: str

    @property
    def name(self) -> str:
        """Return the command as a user would write it."""
        return shlex.join(self.words)


def find_compiler() -> Compiler:
    """Return the compiler that `$CXX` names (it may have arguments), else the first of c++, g++, clang++.

    Raises:
        KernelError: there is none.

    """
    if os.name != "posix":
        raise KernelError("the fused kernel needs the vector extensions of GCC and clang, and is not built on Windows")
    named = os.environ.get("CXX", "").strip()
    try:
        choices = [shlex.split(named)] if named else [[name] for name in COMPILERS]
    except ValueError as error:
        raise KernelError(f"$CXX is {named!r}, which is no command ({str(error).lower()})") from None
    for words in choices:
        path = shutil.which(words[0])
        if path is not None:
            return Compiler((path, *words[1:]), _identify(path, words[1:]))
    hint = "install one, or name it in $CXX"
    if named:
        raise KernelError(f"there is no C++ compiler {named!r}, which $CXX names", hint)
    raise KernelError(f"no C++ compiler found (looked for $CXX, {', '.join(COMPILERS)})", hint)


def _identify(path: str, arguments: list[str]) -> str:
    """Tell a compiler by its file: asking it for its version takes longer than all else of a cached start."""
    real = os.path.realpath(path)
    status = os.stat(real)
    text = repr((real, arguments, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def compile_library(
    compiler: Compiler, source: bytes, name: str, scratch: Path, libraries: tuple[str, ...] = ()
) -> Path:
    """Compile a source to a shared library in a scratch folder, with as many of the optional flags as can be.

    Raises:
        KernelError: the compiler fails, with its first complaint.

    """
    target = scratch / "library.so"
    # The bytes that were hashed are what is compiled, whatever an editor does to the file meanwhile.
    text = f'#line 1 "{name}"\n'.encode() + source
    log = ""
    for optional in OPTIONAL_FLAGS:
        status, log = _run((*compiler.words, *optional, *BASE_FLAGS, *libraries, "-o", str(target)), text, scratch)
        if status == 0 and target.is_file():
            for flag in OPTIONAL_FLAGS[0]:
                if flag not in optional:
                    effect = "it runs on one thread" if flag == _OPENMP else "it could be faster"
                    _LOG.warning("quanta-compiler: %s fails with %s, built without: %s", compiler.name, flag, effect)
            return target
        _LOG.debug("%s ended with status %d:\n%s", compiler.name, status, log)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    first = (errors or lines or [f"it ended with status {status}"])[0]
    reason = f"{compiler.name} failed: {first[:200]}"
    raise MissingSymbolError(reason) if "ndefined symbols" in log else KernelError(reason)


def _run(command: tuple[str, ...], source: bytes, scratch: Path) -> tuple[int, str]:
    # Messages in English, so that the first error is found; the compiler's own temporary files in our folder.
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(scratch)}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise KernelError(f"{command[0]} cannot be run: {error.strerror}") from error
    with process:
        try:
            output, _ = process.communicate(source, timeout=TIMEOUT)
        except BaseException as error:
            # The compiler proper is a child of the command: both go, if the user interrupts us or it takes too long.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise KernelError(f"{command[0]} took longer than {TIMEOUT} seconds") from None
            raise
    return process.returncode, output.decode(errors="replace")


def load_library(path: Path) -> ctypes.CDLL:
    """Load a library that is whole, from where it lies.

    Raises:
        LoadError: it does not load.

    """
    _check_machine(path)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        complaint = str(error)
        reason = f"the library does not load: {complaint}"
        if "undefined symbol" in complaint or "symbol not found" in complaint.lower():
            raise MissingSymbolError(reason) from error
        if "failed to map segment" in complaint or "not permitted" in complaint or "Permission denied" in complaint:
            hint = "QUANTA_CACHE names another folder for it, one that may be executed from"
            raise OtherPlaceError(reason, hint) from error
        raise LoadError(reason, "name another compiler in $CXX") from error
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


def _check_machine(path: Path) -> None:
    """Raise LoadError for a library of another machine: the loader says only that there is no such file."""
    try:
        own, made = _machine(Path(sys.executable)), _machine(path)
    except OSError:
        return
    if own.startswith(_ELF) and made.startswith(_ELF) and own != made:
        raise LoadError(
            "the library that the compiler made is for another kind of machine than this one",
            "name a compiler for this machine in $CXX",
        )


def _machine(path: Path) -> bytes:
    """Return the class, byte order and instruction set that an ELF header names, behind its first bytes."""
    with open(path, "rb") as file:
        header = file.read(20)
    return header[:6] + header[18:]
