"""The search itself: length after length of words as long as there is room for all of one, and a sample of the rest."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from quanta_compiler.search.chunks import Branch, Chunk, ChunkResult, Settings, branches, run_chunk
from quanta_compiler.search.front import Candidate, Front
from quanta_compiler.search.workers import Team
from quanta_compiler.text.console import Progress

_CHUNK = 4_000
"""About how many layouts are a chunk: a fraction of a second."""
_FEW = 10_000
"""Up to this many layouts are costed sooner than processes are started."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """What has been seen of a space, and the best of it."""

    front: tuple[Candidate, ...]
    seen: int
    """Layouts costed, those of the sample as often as they were drawn."""
    met: int
    """Those of them that meet all limits."""
    complete_gates: int
    """Every layout of at most this many gates was looked at."""
    drawn: int
    """How many of those seen belong to the sample of the longer ones."""
    estimate: int | None
    """About how many layouts there are within the limits that were enumerated, where not all were looked at."""
    is_finished: bool
    """False where the time was over first."""

    @property
    def is_complete(self) -> bool:
        """Return whether every layout of the space was looked at."""
        return self.is_finished and self.estimate is None


@dataclass(slots=True)
class _Course:
    """Where a search stands."""

    settings: Settings
    team: Team
    done: Mapping[str, ChunkResult]
    finished: Callable[[ChunkResult], None]
    deadline: float | None
    progress: Progress
    front: Front
    seen: int = 0
    met: int = 0
    drawn: int = 0

    def run(self, what: str, chunks: Sequence[Chunk]) -> list[ChunkResult] | None:
        """Return the results of chunks in their order; None where the time was over first."""
        results = {chunk.name: self.done[chunk.name] for chunk in chunks if chunk.name in self.done}
        waiting = [chunk for chunk in chunks if chunk.name not in results]
        self.progress.begin(what, len(waiting))
        for result in results.values():
            self._take(result)
        small = sum(chunk.expected for chunk in waiting) <= _FEW
        for result in self.team.results(partial(run_chunk, self.settings), waiting, self.deadline, is_small=small):
            self.finished(result)
            results[result.name] = result
            self._take(result)
            self.progress.advance(f"{self.seen:,} layouts, {len(self.front):,} on the front")
        if len(results) < len(chunks):
            return None
        return [results[chunk.name] for chunk in chunks]

    def _take(self, result: ChunkResult) -> None:
        self.seen += result.seen
        self.met += result.met
        self.front.merge(result.front)


def explore(
    settings: Settings,
    team: Team,
    *,
    done: Mapping[str, ChunkResult] | None = None,
    finished: Callable[[ChunkResult], None] = lambda result: None,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> Exploration:
    """Look at the layouts of a space, few gates first; the same front for the same settings on all workers.

    `done` holds the results of chunks that need not be run again, by their names; `finished` is called with every other
    one. No chunk is begun after `deadline`, a time of `time.monotonic`.
    """
    front = Front(settings.objectives, settings.alike)
    course = _Course(settings, team, done or {}, finished, deadline, progress or Progress(), front)
    # Layouts by number of gates and family.
    counts: Counter[tuple[int, int | None]] = Counter()
    known = branches(settings.space)
    most = settings.space.gates[1]
    for gates in range(1, most + 1):
        expected = [_expected(counts, gates, place, branch) for place, branch in enumerate(known)]
        if course.seen + sum(expected) > settings.candidates:
            return _sampled(course, gates - 1)
        chunks = [chunk for place, count in enumerate(expected) for chunk in _parts(gates, place, count)]
        results = course.run(f"{gates} of up to {most} gates", chunks)
        if results is None:
            return _stopped(course, gates - 1)
        for chunk, result in zip(chunks, results, strict=True):
            counts[gates, chunk.family] += result.seen
    return _stopped(course, most, is_finished=True)


def _expected(counts: Counter[tuple[int, int | None]], gates: int, place: int, branch: Branch) -> int:
    """Return about how many layouts of a family have a number of gates, from those with fewer."""
    letters, layouts = len(branch.alphabet.letters), len(branch.roots)
    if gates <= 2:
        return layouts * int(letters**gates)
    last, before = counts[gates - 1, place], counts[gates - 2, place]
    return last * letters if not before else -(-last * last // before)


def _parts(gates: int, place: int, expected: int) -> list[Chunk]:
    parts = -(-expected // _CHUNK)
    return [Chunk(gates, place, part, parts, -(-expected // parts)) for part in range(parts)]


def _sampled(course: _Course, complete: int) -> Exploration:
    """Cost a sample of the layouts with more than `complete` gates."""
    seen = course.seen
    room = course.settings.candidates - seen
    sizes = [min(_CHUNK, room - first) for first in range(0, room, _CHUNK)]
    chunks = [Chunk(complete, None, part, len(sizes), size) for part, size in enumerate(sizes)]
    results = course.run(f"a sample of more than {complete} gates", chunks) if chunks else []
    course.drawn = course.seen - seen
    if results is None:
        return _stopped(course, complete)
    met = [sum(part) / len(results) for part in zip(*(result.estimate for result in results), strict=True)]
    estimate = round(seen + sum(met[complete + 1 :]))
    return _stopped(course, complete, is_finished=True, estimate=estimate)


def _stopped(course: _Course, complete: int, *, is_finished: bool = False, estimate: int | None = None) -> Exploration:
    return Exploration(
        front=tuple(course.front),
        seen=course.seen,
        met=course.met,
        complete_gates=complete,
        drawn=course.drawn,
        estimate=estimate,
        is_finished=is_finished,
    )
