"""Workers of a search: clusters that are none or have lost theirs, and processes that leave Ctrl-C to their parent."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from typing import Any, cast

import pytest
from commands import quanta

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.search import workers
from quanta_compiler.search.workers import Team, Workers, team

SEARCH = ("search", "--in", "16", "--out", "16", "--max-parameters", "200")
GARBAGE = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    there, _ = listening.accept()
    there.sendall(b"HTTP/1.0 400 Bad Request\\r\\n" * 9)
    there.close()
"""


def test_an_address_at_which_nothing_is_said_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        result = quanta(*SEARCH, "--cluster", address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"there is no Dask cluster at {address}: no scheduler answered within 0.3 s" in result.stderr
    assert result.stderr.count("\n") == 2


def test_what_answers_as_no_scheduler_does_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_CONNECT_SECONDS", 0.3)
    with subprocess.Popen([sys.executable, "-c", GARBAGE], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = f"tcp://127.0.0.1:{server.stdout.readline().strip()}"
        result = quanta(*SEARCH, "--cluster", address)
        server.kill()
    assert result.exit_code == 1
    assert f"there is no Dask cluster at {address}: " in result.stderr
    assert result.stderr.count("\n") == 2


def test_a_cluster_that_has_lost_its_workers_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "_LONELY_SECONDS", 0.03)
    asked: list[str] = []

    def lost(address: str) -> list[str]:
        asked.append(address)
        return ["a worker"] if len(asked) == 1 else []

    monkeypatch.setattr(workers, "_dask_workers", lost)
    with workers._watched("tcp://there:8786"):
        time.sleep(0.3)
    assert capsys.readouterr().err.count("the Dask cluster at tcp://there:8786 has had no workers for 0.03 s") == 1
    assert len(asked) > 2


def test_a_cluster_without_workers_for_the_next_tasks_is_told() -> None:
    def waited(_: Any) -> None:
        raise TimeoutError("no worker after 10 seconds")

    others = Team(cast(Any, waited), Workers(2, "dask", "tcp://there:8786"))
    with pytest.raises(SpecError, match="the Dask cluster at tcp://there:8786 has lost its workers"):
        list(others.results(abs, [1]))


def test_processes_leave_an_interruption_to_this_one() -> None:
    before = signal.getsignal(signal.SIGINT)
    with team(Workers(2)) as others:
        assert list(others.results(signal.getsignal, [signal.SIGINT])) == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGINT) == before
