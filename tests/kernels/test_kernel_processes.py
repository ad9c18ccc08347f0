"""The kernel among processes: interrupted, and building at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_compilers import Workshop, make_workshop, needs_a_compiler, needs_posix, result_of

from quanta_compiler.kernels.engines.cpu import build, cached

pytestmark = [needs_posix, needs_a_compiler]
WITHOUT_LOCKS = """
import fcntl
def flock(file, operation):
    raise OSError(37, "No locks available")
fcntl.flock = flock
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return make_workshop(tmp_path, monkeypatch)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
        # In a container nobody may come for the dead.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return Path("/proc/self/stat").exists() is False


def age(path: Path) -> None:
    then = time.time() - 2 * cached.STALE
    os.utime(path, (then, then))


def test_a_killed_build_is_built_by_the_next_process(workshop: Workshop) -> None:
    workshop.compiler("[ -e '{0}' ] || {{ touch '{0}'; sleep 60; }}".format(workshop.root / "started"))
    process = workshop.start()
    wait_for((workshop.root / "started").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not workshop.libraries()
    (lock,) = workshop.cache.iterdir()
    assert lock.suffix == ".lock"
    try:
        # At once, while the compiler is still at work for the dead process: what that has locked is free.
        assert result_of(workshop.start())[0] == "a kernel"
        assert [*workshop.cache.iterdir()] == workshop.libraries() != []
    finally:
        os.killpg(workshop.calls()[0], signal.SIGKILL)


def test_what_a_killed_process_has_left_goes_an_hour_later(workshop: Workshop) -> None:
    workshop.compiler()
    workshop.cache.mkdir(mode=0o700)
    old = [workshop.cache / name for name in ("circuit-a.tmp", "circuit-b.lock")]
    new = workshop.cache / "circuit-c.tmp"
    other = workshop.cache / "calibration.json"
    for path in (*old, new, other):
        path.touch()
    for path in (*old, other):
        age(path)
    assert build.kernel_library() is not None
    assert {*workshop.cache.iterdir()} == {new, other, *workshop.libraries()}


def test_an_interrupted_build_ends_its_compiler_and_leaves_nothing(workshop: Workshop) -> None:
    workshop.compiler("sleep 60 & echo $! >> '{}'; wait".format(workshop.root / "calls"))
    process = workshop.start()
    wait_for(lambda: len(workshop.calls()) == 2)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in result_of(process)[1]
    wait_for(lambda: not any(map(is_running, workshop.calls())))
    assert not workshop.libraries()
    assert not workshop.leftovers()
    workshop.compiler()
    assert result_of(workshop.start())[0] == "a kernel"


def test_of_processes_that_start_at_once_one_builds(workshop: Workshop) -> None:
    workshop.compiler("sleep 1")
    results = [result_of(process) for process in [workshop.start() for _ in range(4)]]
    assert {output for output, _ in results} == {"a kernel"}
    assert sum("building" in errors for _, errors in results) == 1
    assert len(workshop.calls()) == len(workshop.libraries()) == 1
    assert not workshop.leftovers()


def test_processes_that_build_at_once_do_not_harm_each_other(workshop: Workshop) -> None:
    workshop.compiler("sleep 1")
    results = [result_of(process) for process in [workshop.start(WITHOUT_LOCKS) for _ in range(4)]]
    assert {output for output, _ in results} == {"a kernel"}
    assert len(workshop.calls()) == 4
    assert len(workshop.libraries()) == 1
    assert not workshop.leftovers()
