"""A place to build the kernel in, with compilers that copy a small library, wait, or fail."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from quanta_compiler.kernels.engines.cpu import build, compiler

REAL = next(filter(None, map(shutil.which, compiler.COMPILERS)), None)
needs_a_compiler = pytest.mark.skipif(REAL is None, reason="there is no C++ compiler")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="the kernel is built by GCC and clang")
NOBODY = 65534
_ENVIRONMENT = dict(os.environ)
_SHELL = """#!/bin/sh
PATH=/usr/bin:/bin
echo "$$" >> '{root}/calls'
{first}
while [ "$#" -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
cat > /dev/null
cp '{root}/library.so' "$out"
"""
_CHILD = """
import signal, sys, types
# Whoever starts tests in the background of a shell has them ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules["torch"] = types.ModuleType("torch")  # takes two seconds to import
{first}
from quanta_compiler.kernels.engines.cpu import build
library = build.kernel_library()
print("nothing" if library is None else "a kernel")
"""


@cache
def small_library(source: str = f'extern "C" int quanta_abi() {{ return {compiler.ABI}; }}') -> bytes:
    """Compile in no time what passes for a kernel."""
    assert REAL is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "library.so")
        command = [REAL, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(path)]
        subprocess.run(command, input=source, text=True, check=True, env=_ENVIRONMENT)
        return path.read_bytes()


@dataclass(frozen=True)
class Workshop:
    """Folders of one test: the cache, PATH with the compilers of the test alone, and the temporary one."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def programs(self) -> Path:
        return self.root / "programs"

    @property
    def temporary(self) -> Path:
        return self.root / "temporary"

    def compiler(self, first: str = "", *, name: str = "c++", library: bytes | None = None) -> Path:
        """Write a compiler that does `first`, a piece of shell, and then produces a library."""
        path = self.programs / name
        path.write_text(_SHELL.format(root=self.root, first=first), encoding="utf-8")
        path.chmod(0o755)
        if REAL is not None:
            (self.root / "library.so").write_bytes(small_library() if library is None else library)
        return path

    def calls(self) -> list[int]:
        """Return the process of every call of a compiler, most of them gone."""
        path = self.root / "calls"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def libraries(self) -> list[Path]:
        return sorted(self.cache.glob("*.so"))

    def leftovers(self) -> list[Path]:
        """Return what is no library and is still there."""
        cached = self.cache.iterdir() if self.cache.is_dir() else ()
        return [*(path for path in cached if path.suffix != ".so"), *self.temporary.iterdir()]

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have this process build here."""
        for name in ("CXX", "QUANTA_KERNEL", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("QUANTA_CACHE", str(self.cache))
        monkeypatch.setenv("PATH", str(self.programs))
        monkeypatch.setattr(tempfile, "tempdir", str(self.temporary))
        monkeypatch.setattr(build, "_KERNEL", build._Kernel())

    def start(self, first: str = "") -> subprocess.Popen[str]:
        """Start a process that does `first` and asks for the kernel, in a group of its own."""
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("CXX", "QUANTA_KERNEL")},
            "QUANTA_CACHE": str(self.cache),
            "PATH": str(self.programs),
            "TMPDIR": str(self.temporary),
        }
        return subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(first=first)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def make_workshop(root: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Return an empty place, and have this process build there."""
    place = Workshop(root)
    place.programs.mkdir()
    place.temporary.mkdir()
    place.enter(monkeypatch)
    return place


def another_process(monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL | None:
    """Ask for the kernel as a process would that has not asked yet."""
    monkeypatch.setattr(build, "_KERNEL", build._Kernel())
    return build.kernel_library()


def result_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a process has printed, and what it has complained of."""
    output, errors = process.communicate(timeout=60)
    return output.strip(), errors


def only_warning() -> str:
    """Ask for the kernel, and return the warning that says why there is none."""
    with pytest.warns(RuntimeWarning) as caught:
        assert build.kernel_library() is None
    (warning,) = caught
    return str(warning.message)
