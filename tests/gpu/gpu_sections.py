"""What the report of a GPU is made of: tables with their data and with what was left out; and the time that is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass
class Section:
    """A table; `left_out` says of what there was no time for, or what could not be done, and why."""

    name: str
    title: str
    remark: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the data; the table is made of it."""
        return {"name": self.name, "title": self.title, "data": self.data, "left_out": self.left_out}


class TimeUpError(BaseException):
    """The time is up; what takes failures as they come does not catch it."""


class Deadline:
    """A moment by which everything is to be done."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the seconds until then, none below zero."""
        return max(0.0, self._end - self._clock())

    def part(self, share: float) -> Deadline:
        """Return an earlier moment, after a share of the time that is left."""
        return Deadline(share * self.left(), self._clock)

    def within(self, items: Sequence[Item], left_out: list[str], first: float = 0.0) -> Iterator[Item]:
        """Yield items while there is time for one as long as the longest so far, at first `first` seconds.

        The others are named in `left_out`.
        """
        longest = first
        for place, item in enumerate(items):
            if self.left() <= longest:
                left_out += [f"{one}: there was no time left" for one in items[place:]]
                return
            begin = self.left()
            yield item
            longest = max(longest, begin - self.left())

    @contextmanager
    def kept(self, what: object, left_out: list[str]) -> Iterator[None]:
        """Stop what is done inside when the time is up; a line in `left_out` says so then."""

        def stop(*_: object) -> None:
            raise TimeUpError

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, self.left()))
        try:
            yield
        except TimeUpError:
            left_out.append(f"{what}: it was stopped when the time was up")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
