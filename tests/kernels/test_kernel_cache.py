"""The kernel in the cache folder: whole, of this user's making, and no failure where it cannot be kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
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

from quanta_compiler.kernels import build, compiler

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


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (f'extern "C" int quanta_abi() {{ return {build.ABI + 1}; }}', f"has the interface {build.ABI + 1}, not"),
        ("int nothing;", "the library does not load: "),
    ],
)
def test_a_library_with_another_interface_is_built_again_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    monkeypatch.setattr(compiler, "_identify", lambda path, arguments: "the_same")
    workshop.compiler(library=small_library(source))
    assert reason in only_warning()
    assert len(workshop.calls()) == 1
    workshop.compiler()
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 2
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 2


def test_what_is_no_library_is_a_reason(workshop: Workshop) -> None:
    workshop.compiler(library=b"This is no library.")
    assert "the library does not load: " in only_warning()


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
