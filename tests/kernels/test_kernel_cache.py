"""The kernel in the cache folder: whole, of this user's making, and no failure where it cannot be kept."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_compilers import (
    NOBODY,
    Workshop,
    another_process,
    make_workshop,
    needs_a_compiler,
    needs_posix,
    only_warning,
    result_of,
    small_library,
)

from quanta_compiler.kernels.engines.cpu import build, compiler

pytestmark = [needs_posix, needs_a_compiler]


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return make_workshop(tmp_path, monkeypatch)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let a folder be one that this process can read only, which for root takes being somebody else."""
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(PermissionError):
            (folder / "probe").touch()
        yield
    finally:
        os.seteuid(os.getuid())
        folder.chmod(0o755)


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """Return a place that every user can reach, unlike pytest's folders."""
    with tempfile.TemporaryDirectory() as folder:
        place = make_workshop(Path(folder), monkeypatch)
        for path in (place.root, place.programs, place.temporary):
            path.chmod(0o777)
        place.cache.mkdir(mode=0o755)
        place.compiler("umask 0")
        (place.root / "calls").touch()
        (place.root / "calls").chmod(0o666)
        yield place


def test_a_folder_that_can_only_be_read_is_no_failure(public: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    with read_only(public.cache):
        assert build.kernel_library() is not None
    assert "in every process: it cannot be kept, [Errno 13] Permission denied" in caplog.text
    assert not public.libraries()
    assert not public.leftovers()


def test_a_folder_that_can_only_be_read_is_read(public: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image whose maker has used the package once."""
    assert build.kernel_library() is not None
    with read_only(public.cache):
        assert another_process(monkeypatch) is not None
    assert len(public.calls()) == 1


def test_a_folder_that_cannot_be_made_is_no_failure(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.compiler()
    (workshop.root / "file").touch()
    monkeypatch.setenv("QUANTA_CACHE", str(workshop.root / "file/cache"))
    assert build.kernel_library() is not None
    assert "in every process: it cannot be kept, [Errno 20] Not a directory" in caplog.text
    assert not workshop.leftovers()


def test_a_user_without_a_home_is_no_failure(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    workshop.compiler()
    monkeypatch.delenv("QUANTA_CACHE")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert build.kernel_library() is not None
    assert "this user has no home folder (`QUANTA_CACHE` names another place)" in caplog.text
    assert not workshop.leftovers()


def test_a_full_disk_is_no_failure(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    workshop.compiler()
    monkeypatch.setattr(os, "fsync", full)
    assert build.kernel_library() is not None
    assert not workshop.libraries()
    assert not workshop.leftovers()


def test_no_room_to_build_in_is_a_reason(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.compiler()
    monkeypatch.setattr(tempfile, "tempdir", str(workshop.root / "missing"))
    assert "No such file or directory" in only_warning()


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.999])
def test_a_truncated_library_is_not_loaded(workshop: Workshop, kept: float) -> None:
    """In processes of their own, because the loader crashes where it does not see that something is missing."""
    workshop.compiler()
    assert result_of(workshop.start())[0] == "a kernel"
    (path,) = workshop.libraries()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    for _ in range(2):
        assert result_of(workshop.start())[0] == "a kernel"
        assert workshop.libraries() == [path]
        assert path.read_bytes() == whole
        assert len(workshop.calls()) == 2


def of_another_machine(library: bytes) -> bytes:
    """Return the same library with another instruction set in its header."""
    return library[:18] + (0x1234).to_bytes(2, sys.byteorder) + library[20:]


@pytest.mark.parametrize(
    ("library", "reason", "hint"),
    [
        (
            lambda: small_library(f'extern "C" int quanta_abi() {{ return {compiler.ABI + 1}; }}'),
            f"has the interface {compiler.ABI + 1}, not {compiler.ABI}",
            "hint: it is tried again",
        ),
        (
            lambda: small_library("int nothing;"),
            f"has the interface None, not {compiler.ABI}",
            "hint: it is tried again",
        ),
        (lambda: b"This is no library.", "the library does not load: ", "hint: name another compiler in $CXX; it is"),
        (
            lambda: small_library("void missing(); int quanta_abi() { missing(); return 1; }"),
            "undefined symbol",
            "hint: name a C++ compiler in $CXX, such as g++ or clang++; it is",
        ),
        pytest.param(
            lambda: of_another_machine(small_library()),
            "the library that the compiler made is for another kind of machine than this one",
            "hint: name a compiler for this machine in $CXX; it is",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="ELF"),
        ),
    ],
    ids=["another interface", "no interface", "no library", "missing symbol", "another machine"],
)
def test_a_library_that_does_not_load_is_not_kept_and_not_built_by_the_next_process(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, library: Callable[[], bytes], reason: str, hint: str
) -> None:
    monkeypatch.setattr(compiler, "_identify", lambda path, arguments: "the_same")
    workshop.compiler(library=library())
    assert reason in only_warning()
    calls = len(workshop.calls())
    assert calls == (len(compiler.LIBRARIES) if "symbol" in reason else 1)
    assert not workshop.libraries()
    monkeypatch.setattr(build, "_KERNEL", build._Kernel())
    said = only_warning()
    assert reason in said
    assert hint in said
    assert len(workshop.calls()) == calls
    # Not for ever: what was missing may be there by now.
    (remembered,) = workshop.leftovers()
    os.utime(remembered, (0, 0))
    workshop.compiler()
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == calls + 1
    assert not workshop.leftovers()


def test_a_compiler_of_c_gets_the_library_that_it_does_not_link(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = workshop.root / "broken.so", workshop.root / "whole.so"
    broken.write_bytes(small_library("void missing(); int quanta_abi() { missing(); return 1; }"))
    whole.write_bytes(small_library())
    choose = f"case $* in *-lstdc++*) made='{whole}';; *) made='{broken}';; esac"
    workshop.compiler(f"{choose}; cp \"$made\" '{workshop.root}/library.so'")
    assert build.kernel_library() is not None
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 2
    assert len(workshop.libraries()) == 1
    assert not workshop.leftovers()


def forbid(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Let nothing be executed from folders, as where they are mounted with `noexec`."""
    real = ctypes.CDLL

    def refusing(name: str) -> ctypes.CDLL:
        if any(folder in Path(name).parents for folder in folders):
            raise OSError(f"{name}: failed to map segment from shared object: Operation not permitted")
        return real(name)

    monkeypatch.setattr(ctypes, "CDLL", refusing)


@pytest.mark.parametrize("folder", ["cache", "temporary"])
def test_one_folder_that_must_not_be_executed_from_is_no_failure(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    workshop.compiler()
    forbid(monkeypatch, workshop.root / folder)
    assert build.kernel_library() is not None
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == len(workshop.libraries()) == 1
    assert not workshop.leftovers()


def test_nowhere_to_execute_from_is_told_and_nothing_is_built_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.compiler()
    forbid(monkeypatch, workshop.cache, workshop.temporary)
    for _ in range(2):
        monkeypatch.setattr(build, "_KERNEL", build._Kernel())
        assert "hint: QUANTA_CACHE names another folder for it, one that may be executed from" in only_warning()
    assert len(workshop.calls()) == 1
    assert not workshop.libraries()


def test_what_others_can_write_to_is_not_loaded(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = os.umask(0)
    try:
        workshop.compiler()
        build.kernel_library()
    finally:
        os.umask(old)
    (path,) = workshop.libraries()
    assert workshop.cache.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o664)
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 2
    assert path.stat().st_mode & 0o777 == 0o644
    workshop.cache.chmod(0o777)
    caplog.clear()
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 3
    assert f"others may write to {workshop.cache} (`chmod go-w` forbids it)" in caplog.text


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_is_not_loaded(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.compiler()
    build.kernel_library()
    (path,) = workshop.libraries()
    os.chown(path, NOBODY, NOBODY)
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 2
    os.chown(workshop.cache, NOBODY, NOBODY)
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 3
