"""Built libraries in the cache folder: how they are named, found, kept, and waited for.

A name says what a file is: `circuit-KEY-COMPILER-CONTENT.so`. KEY is what a library must have been made of and for: the
source, the flags, the platform, the CPU (a home folder may be shared by different machines). CONTENT is what is in the
file, so that a damaged one is never loaded: from a truncated library the loader crashes instead of failing. The
compiler stands apart, because any compiler's library will do where there is none now: an image may have been made in a
stage that had one. Where there is one, its own library is wanted, so that a better compiler, or one that has OpenMP at
last, makes a difference.

Only what loads is kept. What a compiler made in vain is remembered for an hour, in `circuit-KEY-COMPILER.failed`.
"""

import hashlib
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from quanta_compiler.kernels.engines.cpu.compiler import BASE_FLAGS, OPTIONAL_FLAGS, TIMEOUT, KernelError
from quanta_compiler.system.cache_folder import check_owner

STALE = 3600
"""Seconds after which what a killed process has left in the cache folder may go, and after which a failure is over."""

_LOG = logging.getLogger("quanta_compiler")
_CPU_FIELDS = ("vendor_id", "model", "flags", "Features", "CPU implementer", "CPU part")


def library_key(source: bytes) -> str:
    """Return what a library must have been made of and for; the package's version adds nothing to its source."""
    parts = (source, OPTIONAL_FLAGS, BASE_FLAGS, sys.platform, platform.machine(), _cpu())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """Return which CPU this is, as far as a compiler that compiles for it would care."""
    found = []
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                break  # the first of the cores speaks for all
            if line.partition(":")[0].strip() in _CPU_FIELDS:
                found.append(line.strip())
    return "\n".join(found) or platform.processor()


def whole_libraries(folder: Path | None, pattern: str) -> Iterator[Path]:
    """Yield the libraries of a name that are whole and nobody else's, the newest first."""
    if folder is None:
        return
    try:
        paths = sorted(folder.glob(pattern), key=_modified, reverse=True)
    except OSError as error:
        _LOG.debug("cannot be read: %s", error)
        return
    for path in paths:
        try:
            check_owner(path)
            if _digest(path) == path.stem.rpartition("-")[2]:
                yield path
            else:
                _LOG.debug("damaged: %s", path)
        except OSError as error:
            _LOG.debug("not used: %s", error)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0


def keep_library(built: Path, folder: Path | None, stem: str) -> Path | None:
    """Put a library into the cache folder, whole or not at all; that it cannot be written is no failure."""
    if folder is None:
        return None
    try:
        kept = folder / f"{stem}-{_digest(built)}.so"
        handle, unfinished = tempfile.mkstemp(prefix="circuit-", suffix=".tmp", dir=folder)
        try:
            with open(handle, "wb") as file:
                file.write(built.read_bytes())
                file.flush()
                os.fsync(file.fileno())
            os.chmod(unfinished, 0o644)
            os.replace(unfinished, kept)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        (folder / f"{stem}.failed").unlink(missing_ok=True)
        # What killed processes have left.
        for pattern in ("circuit-*.tmp", "circuit-*.lock", "circuit-*.failed"):
            for path in folder.glob(pattern):
                if time.time() - _modified(path) > STALE:
                    path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.debug("not kept: %s", error)
        return None
    return kept


def remember_failure(folder: Path | None, stem: str, error: KernelError) -> None:
    """Keep why a library does not load: building it again would take as long in every process, and end the same."""
    if folder is not None:
        with suppress(OSError):
            (folder / f"{stem}.failed").write_text(f"{error.reason}\n{error.hint}", encoding="utf-8")


def known_failure(folder: Path | None, stem: str) -> KernelError | None:
    """Return why a library of this name did not load when another process built it, not long ago."""
    if folder is None:
        return None
    path = folder / f"{stem}.failed"
    try:
        check_owner(path)
        if time.time() - path.stat().st_mtime > STALE:
            return None
        reason, _, hint = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    except OSError:
        return None
    again = f"it is tried again in an hour, or when {path} is removed"
    return KernelError(reason, f"{hint}; {again}" if hint else again)


@contextmanager
def turn(folder: Path | None, stem: str) -> Iterator[None]:
    """Wait until no other process builds the same.

    Eight processes of a training job would otherwise build eight libraries on the cores of one. It is a courtesy, not a
    safeguard: where files cannot be locked, or the other takes too long, both build, and either's library is whole.
    What a dead process has locked, the system unlocks.
    """
    try:
        file = None if folder is None else open(folder / f"{stem}.lock", "a", encoding="utf-8")  # noqa: SIM115
    except OSError:
        file = None
    if file is None:
        yield
        return
    with file:
        _wait(file)
        try:
            yield
        finally:
            # Who waits for this very file gets it all the same, and finds the library there.
            with suppress(OSError):
                os.unlink(file.name)


def _wait(file: IO[str]) -> None:
    import fcntl  # not on every system

    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            return
