"""The kernel's library: built once, with the compiler that there is, and never a failure."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from fake_compilers import Workshop, another_process, make_workshop, needs_a_compiler, needs_posix, only_warning

from quanta_compiler.kernels.engines.cpu import build, cached, compiler

pytestmark = needs_posix
USE = """
import ctypes
from quanta_compiler.kernels.engines.cpu.build import build_problem, kernel_library
library = kernel_library()
assert build_problem() is None and library.quanta_forward and library.quanta_backward
try:
    maps = open("/proc/self/maps").read().splitlines()
except OSError:
    maps = []
# One OpenMP runtime: torch's own, whose threads are there anyway.
assert len({line.split()[-1] for line in maps if "gomp" in line}) <= 1
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return make_workshop(tmp_path, monkeypatch)


@needs_a_compiler
@pytest.mark.slow
@pytest.mark.parametrize("named", ["", *filter(shutil.which, ("cc", "clang"))])
def test_the_source_is_built_by_the_first_process_and_loaded_by_the_second(named: str, tmp_path: Path) -> None:
    """Also by compilers of C, which link nothing of C++ by themselves."""
    environment = {**os.environ, "QUANTA_CACHE": str(tmp_path / "cache"), "QUANTA_KERNEL": "on", "CXX": named}

    def use() -> str:
        command = [sys.executable, "-c", USE]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stderr

    assert "building the fused kernel" in use()
    (path,) = (tmp_path / "cache").iterdir()
    assert path.suffix == ".so"
    assert use() == ""
    assert [*(tmp_path / "cache").iterdir()] == [path]


@needs_a_compiler
def test_the_wait_is_said_once_and_to_the_log(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = workshop.compiler()
    library = build.kernel_library()
    assert library is not None
    assert build.kernel_library() is library
    assert build.build_problem() is None
    (record,) = caplog.records
    assert record.getMessage() == (
        f"quanta-compiler: building the fused kernel with {path} (about 10 s, once: it is kept in {workshop.cache})"
    )
    caplog.clear()
    assert another_process(monkeypatch) is not None
    assert not caplog.records
    assert len(workshop.calls()) == 1
    assert not workshop.leftovers()


@needs_a_compiler
def test_another_source_or_another_cpu_is_another_library(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.compiler()
    build.kernel_library()
    monkeypatch.setattr(cached, "_cpu", lambda: "another one")
    another_process(monkeypatch)
    source = workshop.root / "circuit.cpp"
    source.write_text("// another one")
    monkeypatch.setattr(build, "SOURCE", source)
    another_process(monkeypatch)
    assert len(workshop.calls()) == len(workshop.libraries()) == 3


@needs_a_compiler
def test_another_compiler_builds_anew_and_without_one_any_library_will_do(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.compiler()
    build.kernel_library()
    path = workshop.compiler(name="my c++")
    monkeypatch.setenv("CXX", f"'{path}' --with-arguments")
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 2
    monkeypatch.setenv("CXX", "gone")
    assert another_process(monkeypatch) is not None
    assert len(workshop.calls()) == 2


def test_without_a_compiler_one_warning_says_so_whoever_asks(workshop: Workshop) -> None:
    found: list[object] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append(build.kernel_library())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [None] * 8
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert str(warning.message) == (
        "quanta-compiler: the fused kernel could not be built, torch computes circuits instead: "
        "no C++ compiler found (looked for $CXX, c++, g++, clang++)\n"
        "hint: install one, or name it in $CXX; QUANTA_KERNEL=off turns the kernel off without this warning"
    )
    assert build.build_problem() == "no C++ compiler found (looked for $CXX, c++, g++, clang++)"


def test_a_warning_that_is_an_error_is_raised_once(workshop: Workshop) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build.build_problem() is not None
        with pytest.raises(RuntimeWarning):
            build.kernel_library()
        assert build.kernel_library() is None


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("nothing++ -x", "there is no C++ compiler 'nothing++ -x', which $CXX names"),
        ("c++ 'open", '$CXX is "c++ \'open", which is no command (no closing quotation)'),
    ],
)
def test_a_compiler_that_is_named_is_not_replaced(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, named: str, reason: str
) -> None:
    workshop.compiler()
    monkeypatch.setenv("CXX", named)
    assert reason in only_warning()


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (
            "echo a note; echo 'circuit.cpp:3:1: error: no word'; echo error: 2; exit 1",
            "circuit.cpp:3:1: error: no word",
        ),
        ("echo; echo it is monday; exit 3", "it is monday"),
        ("exit 3", "it ended with status 3"),
        ("kill -9 $$", "it ended with status -9"),
        ("exit 0", "it ended with status 0"),
    ],
)
def test_a_compiler_that_fails_is_quoted_with_its_first_error(
    workshop: Workshop, first: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "quanta_compiler")
    path = workshop.compiler(first)
    assert f"torch computes circuits instead: {path} failed: {reason}\nhint: QUANTA_KERNEL=off" in only_warning()
    assert build.build_problem() == f"{path} failed: {reason}"
    # Once with every choice of flags, and never again in this process.
    assert len(workshop.calls()) == len(compiler.OPTIONAL_FLAGS)
    assert not workshop.libraries()
    assert not workshop.leftovers()
    if "a note" in first:
        assert "a note\ncircuit.cpp:3:1" in caplog.text


def test_a_compiler_that_cannot_be_run_is_a_reason(workshop: Workshop) -> None:
    path = workshop.compiler()
    path.write_bytes(b"\x7fELF of another machine")
    assert f"{path} cannot be run: Exec format error" in only_warning()


def test_a_compiler_that_takes_too_long_is_ended(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workshop.compiler("sleep 60")
    monkeypatch.setattr(compiler, "TIMEOUT", 0.5)
    assert f"{path} took longer than 0.5 seconds" in only_warning()
    (process,) = workshop.calls()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@needs_a_compiler
@pytest.mark.parametrize("flags", [*compiler.OPTIONAL_FLAGS[1:]], ids=" ".join)
def test_a_flag_that_the_compiler_refuses_is_left_out(
    workshop: Workshop, flags: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    refused = [flag for flag in compiler.OPTIONAL_FLAGS[0] if flag not in flags]
    path = workshop.compiler(f"for flag; do case $flag in {'|'.join(refused)}) exit 1;; esac; done")
    assert build.kernel_library() is not None
    said = [record.getMessage() for record in caplog.records[1:]]
    assert [message.partition(":")[2].partition(",")[0].strip() for message in said] == [
        f"{path} fails with {flag}" for flag in refused
    ]


@needs_a_compiler
@pytest.mark.parametrize("word", ["off", "0", " OFF "])
def test_the_kernel_can_be_turned_off_and_on(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    workshop.compiler()
    monkeypatch.setenv("QUANTA_KERNEL", word)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build.kernel_library() is None
    assert build.build_problem() == f"QUANTA_KERNEL={word} turns the fused kernel off"
    assert not workshop.calls()
    monkeypatch.setenv("QUANTA_KERNEL", "on")
    assert build.kernel_library() is not None
    assert build.build_problem() is None
