"""What a search finds: the front of all that there is, the same whoever does the work and wherever it was stopped."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from quanta_compiler.search import explore as exploring
from quanta_compiler.search.chunks import ChunkResult, Settings, branches
from quanta_compiler.search.explore import Exploration, explore
from quanta_compiler.search.front import OBJECTIVES, Candidate, Front
from quanta_compiler.search.journal import FILE, Journal
from quanta_compiler.search.saved import FRONT_FILE, costed, read_result, result_data, settings_data
from quanta_compiler.search.space import Limits, Space
from quanta_compiler.search.workers import Team, Workers, team

OBJECTIVE_NAMES = ("freedom", "flops", "rank", "mixing")
ALONE = Team(None, Workers())


def settings(space: Space, candidates: int = 200_000) -> Settings:
    return Settings(space, OBJECTIVE_NAMES, candidates=candidates)


SMALL = Space(24, 24, axes=(2, 4), gates=(1, 4), limits=Limits(parameters=120))
SAMPLED = settings(Space(64, 64, limits=Limits(parameters=600)), 3_000)


def everything(space: Space) -> list[Candidate]:
    """Return all layouts of a space that meet its limits, no word being left out before it is whole."""
    found = []
    for branch in branches(space):
        letters = branch.alphabet
        nodes = [letters.root]
        for _ in range(space.gates[1]):
            grown = [letters.grown(node, letter) for node in nodes for letter in range(len(letters.letters))]
            nodes = [node for node in grown if node is not None]
            gates = [[letters.letters[letter] for letter in node.word] for node in nodes]
            found += [costed(space, layout, one) for one in gates for layout in branch.family.layouts]
    most = space.limits.parameters
    return [
        one for one in found if one.order.gates_to_full is not None and (most is None or one.figures.parameters <= most)
    ]


def objectives(candidate: Candidate) -> tuple[float, ...]:
    """Return the objectives such that less is better, read off by hand."""
    figures = candidate.figures
    return (-figures.freedom, figures.flops_per_token, -figures.rank_lower, -figures.mixing)


def test_the_front_is_that_of_all_layouts() -> None:
    points = {objectives(candidate) for candidate in everything(SMALL)}
    best = {
        one
        for one in points
        if not any(other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in points)
    }
    found = explore(settings(SMALL), ALONE)
    assert found.is_complete
    assert {objectives(candidate) for candidate in found.front} == best
    assert len(best) > 3


@pytest.mark.parametrize("widths", [(12, 24), (24, 12)])
def test_limits_leave_no_rectangular_layout_out(widths: tuple[int, int]) -> None:
    # A gate that grows an axis makes those before it smaller: a word may cost less than its beginning.
    space = Space(*widths, axes=(2, 4), gates=(1, 4), limits=Limits(parameters=120))
    found = explore(settings(space), ALONE)
    assert found.met == len(everything(space))
    assert any(candidate.layout.changed_axis is not None for candidate in found.front)


def test_axes_that_could_be_one_are_left_out_where_that_is_in_the_space() -> None:
    both = Space(12, 12, axes=(2, 3), gates=(1, 2), gate_axes=(1, 2))
    names = [(str(one.layout), [gate.axes for gate in one.gates]) for one in _all_of(both)]
    assert ("4x3", [(0,), (1,)]) in names
    assert ("3x2x2", [(0,), (1, 2)]) not in names
    alone = [(str(one.layout), [gate.axes for gate in one.gates]) for one in _all_of(replace(both, axes=(3, 3)))]
    assert ("3x2x2", [(0,), (1, 2)]) in alone


def _all_of(space: Space) -> list[Candidate]:
    """Return every layout: all are kept where none is better in the only objective and as many as there are alike."""
    return list(explore(Settings(space, ("rank",), alike=10_000), ALONE).front)


def test_all_layouts_are_counted() -> None:
    limited, unlimited = (
        explore(settings(replace(SMALL, limits=limits)), ALONE) for limits in (SMALL.limits, Limits())
    )
    assert limited.met == len(everything(SMALL))
    assert limited.met < limited.seen < unlimited.seen


@pytest.mark.parametrize("seed", range(5))
def test_the_front_of_fronts_is_the_front(seed: int) -> None:
    generator = random.Random(seed)
    candidates = everything(replace(SMALL, gates=(1, 3)))
    names = generator.sample(sorted(OBJECTIVES), 3)
    whole = Front(names, alike=2)
    whole.merge(candidates)
    generator.shuffle(candidates)
    merged = Front(names, alike=2)
    for first in range(0, len(candidates), 7):
        part = Front(names, alike=2)
        part.merge(candidates[first : first + 7])
        merged.merge(part)
        merged.merge(part)
    assert list(merged) == list(whole)


def test_a_sample_estimates_how_many_there_are() -> None:
    space = Space(64, 64, gates=(1, 6), limits=Limits(parameters=300))
    whole, sampled = explore(settings(space), ALONE), explore(settings(space, 3_000), ALONE)
    assert whole.is_complete
    assert whole.estimate is None
    assert sampled.complete_gates < 6
    assert 0 < sampled.drawn < sampled.seen
    assert sampled.estimate is not None
    assert abs(sampled.estimate / whole.seen - 1) < 0.2


@pytest.mark.parametrize("workers", [Workers(2, "loky"), Workers(2, "threading")])
def test_the_front_is_the_same_whoever_does_the_work(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploring, "_FEW", 0)
    with team(workers) as others:
        assert explore(SAMPLED, others) == explore(SAMPLED, ALONE)


def test_the_front_is_the_same_on_a_dask_cluster() -> None:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as cluster,
        team(Workers(2, "dask", cluster.scheduler_address)) as others,
    ):
        assert explore(SAMPLED, others) == explore(SAMPLED, ALONE)


def resumed(path: Path) -> tuple[Exploration, int]:
    """Return what a search finds that goes on from a journal, and how many chunks were left."""
    journal = Journal(path, settings_data(SAMPLED), resume=True, force=False)
    lines = [read_result(SAMPLED.space, line) for line in journal.lines]
    done = {result.name: result for result in lines if result is not None}
    run: list[ChunkResult] = []

    def finished(result: ChunkResult) -> None:
        run.append(result)
        journal.add(result_data(result))

    found = explore(SAMPLED, ALONE, done=done, finished=finished)
    journal.close()
    return found, len(run)


def test_a_journal_that_was_cut_off_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / FILE
    whole, chunks = resumed(path)
    data = path.read_bytes()
    assert resumed(path) == (whole, 0)
    generator = random.Random(0)
    for cut in (0, 5, len(data) - 1, *(generator.randrange(len(data)) for _ in range(3))):
        path.write_bytes(data[:cut])
        found, left = resumed(path)
        assert found == whole
        assert left == chunks - max(0, data[:cut].count(b"\n") - 1)
        assert sorted(path.read_bytes().splitlines()) == sorted(data.splitlines())


@pytest.mark.slow
def test_a_killed_search_is_gone_on_with(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "quanta_compiler", "search", "--in", "256", "--out", "256"]
    words += ["--max-parameters", "3000", "--candidates", "9000", "--jobs", "1", "--most", "2", "--resume", "-o"]
    folder = tmp_path / "killed"
    for lines in (4, 12):
        process = subprocess.Popen([*words, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and _lines(folder / FILE) < lines:
            time.sleep(0.005)
        process.kill()
        _, message = process.communicate()
        assert process.returncode == -signal.SIGKILL, message
    assert not (folder / FRONT_FILE).exists()
    for name in ("killed", "whole"):
        subprocess.run([*words, str(tmp_path / name)], stdout=subprocess.DEVNULL, check=True)
    assert (folder / FRONT_FILE).read_bytes() == (tmp_path / "whole" / FRONT_FILE).read_bytes()


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_nothing_is_begun_when_the_time_is_over() -> None:
    found = explore(SAMPLED, ALONE, deadline=time.monotonic() - 1)
    assert (found.seen, found.is_finished, found.front) == (0, False, ())


def test_a_space_that_is_not_seen_whole_is_never_called_complete() -> None:
    """Nor where the last length that is seen whole uses up all room."""
    space = Space(16, 16, axes=(2, 3), gates=(1, 3))
    whole = explore(settings(space), ALONE)
    assert (whole.is_complete, whole.complete_gates) == (True, 3)
    for candidates in range(1, whole.seen):
        found = explore(settings(space, candidates), ALONE)
        assert not found.is_complete
        assert found.complete_gates < 3
