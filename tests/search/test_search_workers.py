"""Workers of a search: clusters that are none or have lost theirs, and processes that leave Ctrl-C to their parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from commands import quanta

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.search import explore, workers
from quanta_compiler.search.chunks import Chunk, ChunkResult, Settings, run_chunk
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


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_that_is_killed_is_told_with_its_signal() -> None:
    with (
        team(Workers(2)) as others,
        pytest.raises(SpecError, match=r"ended from outside \(SIGKILL\(-9\)\)(.|\n)*hint: .*--resume.*--jobs"),
    ):
        list(others.results(signal.raise_signal, [signal.SIGKILL]))
    with team(Workers(2)) as others:
        assert sorted(others.results(abs, [-1, 2, -3])) == [1, 2, 3]


def run_chunk_or_die(mark: Path, settings: Settings, chunk: Chunk) -> ChunkResult:
    """Cost a chunk, or kill the process that should, the first time that there are three gates."""
    if chunk.gates == 3 and not mark.exists():
        mark.touch()
        signal.raise_signal(signal.SIGKILL)
    return run_chunk(settings, chunk)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_search_whose_process_is_killed_goes_on_with_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = (*SEARCH, "--axes", "2-3", "--gates", "1-3", "--jobs", "2", "-o", str(tmp_path / "found"))
    monkeypatch.setattr(explore, "run_chunk", partial(run_chunk_or_die, tmp_path / "mark"))
    monkeypatch.setattr(explore, "_FEW", -1)
    killed = quanta(*search)
    assert (killed.exit_code, killed.stdout) == (1, "")
    assert killed.stderr.count("\n") == 2
    assert "a process of the search was ended from outside" in killed.stderr
    assert "go on with --resume" in killed.stderr
    assert (tmp_path / "mark").exists()
    journal = (tmp_path / "found" / "journal.jsonl").read_bytes()
    assert journal.count(b"\n") > 1
    assert quanta(*search, "--resume").exit_code == 0
    assert (tmp_path / "found" / "journal.jsonl").read_bytes().startswith(journal)
    monkeypatch.undo()
    assert quanta(*search[:-1], str(tmp_path / "whole")).exit_code == 0
    assert (tmp_path / "found/front.json").read_bytes() == (tmp_path / "whole/front.json").read_bytes()


@pytest.mark.slow
def test_a_task_whose_workers_die_on_a_cluster_is_told_and_so_is_a_cluster_that_goes() -> None:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as cluster,
        team(Workers(2, "dask", cluster.scheduler_address)) as others,
    ):
        assert sorted(others.results(abs, [-1, 2])) == [1, 2]
        with pytest.raises(SpecError, match=r"has lost its workers: .*died(.|\n)*--resume"):
            list(others.results(os._exit, [1]))
        waiting = others.results(time.sleep, [60, 60])
        threading.Timer(2, cluster.close).start()
        with pytest.raises(SpecError, match=r"the Dask cluster at .* is gone(.|\n)*--resume"):
            list(waiting)
