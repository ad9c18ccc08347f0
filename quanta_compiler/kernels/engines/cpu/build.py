"""The fused kernel as a shared library: built once on first use, cached, and loaded by ctypes.

The kernel is C++ that the user's own compiler translates the first time that it is needed (about ten seconds), as
torch's compiler does with the C++ that it generates: where `torch.compile` runs on a CPU there is a compiler already.
The source reads a circuit as a table, so that one build serves every circuit. What else could have been:

- Binaries in the wheel: a build farm for every platform, and code for no CPU in particular.
- Numba: llvmlite, a compilation for every signature, and no say in which numbers stay in registers.
- torch's own C++ extensions: they need ninja, a minute for torch's headers, and a new binary for every torch release.
  A library of plain C functions needs none of it.

The environment variables `QUANTA_KERNEL`, `QUANTA_CACHE` and `CXX` are in docs/fused.md. A cache folder that cannot be
written, or to which others may write, is no failure: the library is then built in every process anew.

That a first build takes its time is said with level WARNING on the logger `quanta_compiler`: it reaches stderr unless
the program decides otherwise, which INFO would not, and what is printed cannot be turned off. That the kernel cannot be
built is a RuntimeWarning, once in a process.
"""

import ctypes
import logging
import os
import tempfile
import threading
import warnings
from contextlib import suppress
from pathlib import Path

# Torch first: it brings libgomp with it and loads it for everybody, so that the library, which asks for libgomp.so.1,
# gets that one (its functions even from wheels that rename the file), and torch's threads are its threads.
import torch  # noqa: F401

from quanta_compiler.kernels.engines.cpu import cached
from quanta_compiler.kernels.engines.cpu.compiler import (
    LIBRARIES,
    Compiler,
    KernelError,
    LoadError,
    MissingSymbolError,
    OtherPlaceError,
    compile_library,
    find_compiler,
    load_copy,
    load_library,
)
from quanta_compiler.system.cache_folder import cache_folder

SOURCE = Path(__file__).with_name("circuit.cpp")

_LOG = logging.getLogger("quanta_compiler")


class _Kernel:
    """The library of this process, or the reason why there is none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: ctypes.CDLL | KernelError | None = None
        self._told = False

    def get(self, *, tell: bool) -> ctypes.CDLL | KernelError:
        with self._lock:
            if self._found is None:
                try:
                    self._found = _find_or_build()
                except KernelError as error:
                    self._found = error
                except OSError as error:
                    self._found = KernelError(str(error))
            told = self._told
            self._told = told or tell
        if isinstance(self._found, KernelError) and tell and not told:
            # Outside of the lock and with everything settled, because a warning may be turned into an exception.
            reason, hint = self._found.reason, f"{self._found.hint}; " if self._found.hint else ""
            warnings.warn(
                f"quanta-compiler: the fused kernel could not be built, torch computes circuits instead: {reason}\n"
                f"hint: {hint}QUANTA_KERNEL=off turns the kernel off without this warning",
                RuntimeWarning,
                stacklevel=3,
            )
        return self._found


_KERNEL = _Kernel()


def kernel_library() -> ctypes.CDLL | None:
    """Return the kernel's library, built or loaded on the first call; None where it cannot be had.

    The first None of a process comes with a RuntimeWarning that says why, unless the user has turned the kernel off.
    """
    found = None if _turned_off() else _KERNEL.get(tell=True)
    return None if isinstance(found, KernelError) else found


def build_problem() -> str | None:
    """Return why `kernel_library()` is None, as a sentence without a full stop; None where it is not."""
    if _turned_off():
        return f"QUANTA_KERNEL={os.environ['QUANTA_KERNEL']} turns the fused kernel off"
    found = _KERNEL.get(tell=False)
    return found.reason if isinstance(found, KernelError) else None


def _turned_off() -> bool:
    return os.environ.get("QUANTA_KERNEL", "").strip().lower() in ("off", "0")


def _find_or_build() -> ctypes.CDLL:
    """Return a cached library or a new one; KernelError and OSError say why there is none."""
    source = SOURCE.read_bytes()
    stem = f"circuit-{cached.library_key(source)}"
    folder: Path | None = None
    problem = ""
    try:
        folder = cache_folder()
    except OSError as error:
        problem = str(error)
    try:
        compiler = find_compiler()
    except KernelError:
        if library := _cached(folder, stem):
            return library
        raise
    stem += f"-{compiler.identity}"
    if library := _known(folder, stem):
        return library
    with cached.turn(folder, stem):
        # Another process may have built it while this one waited.
        if library := _known(folder, stem):
            return library
        if folder is not None:
            try:
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                problem = str(error)
        often = f"in every process: it cannot be kept, {problem}" if problem else f"once: it is kept in {folder}"
        _LOG.warning("quanta-compiler: building the fused kernel with %s (about 10 s, %s)", compiler.name, often)
        return _build(compiler, source, folder, stem)


def _known(folder: Path | None, stem: str) -> ctypes.CDLL | None:
    """Return the library that this compiler has made; KernelError says why what it made is of no use."""
    library = _cached(folder, stem)
    if library is None and (failure := cached.known_failure(folder, stem)):
        raise failure
    return library


def _cached(folder: Path | None, stem: str) -> ctypes.CDLL | None:
    for path in cached.whole_libraries(folder, f"{stem}-*.so"):
        try:
            return load_library(path)
        except OtherPlaceError:
            with suppress(KernelError, OSError):
                return load_copy(path)
        except KernelError as error:
            _LOG.debug("not used: %s", error)
    return None


def _build(compiler: Compiler, source: bytes, folder: Path | None, stem: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="quanta-compiler-", ignore_cleanup_errors=True) as scratch:
        problem: KernelError | None = None
        for libraries in LIBRARIES:
            try:
                return _kept(compile_library(compiler, source, SOURCE.name, Path(scratch), libraries), folder, stem)
            except KernelError as error:
                problem = problem or error
            if not isinstance(problem, MissingSymbolError):
                break
    assert problem is not None
    if isinstance(problem, LoadError):
        cached.remember_failure(folder, stem, problem)
    raise problem


def _kept(built: Path, folder: Path | None, stem: str) -> ctypes.CDLL:
    """Load a library, and keep it; it stays in memory when its file has gone."""
    try:
        library = load_library(built)
    except OtherPlaceError:
        kept = cached.keep_library(built, folder, stem)
        if kept is None:
            raise
        try:
            return load_library(kept)
        except KernelError:
            kept.unlink(missing_ok=True)
            raise
    cached.keep_library(built, folder, stem)
    return library
