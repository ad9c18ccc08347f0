"""Diagnostics: a place, the fact and the remedy, collected first and raised together.

Every text that a user reads about a circuit file passes through here. What comes from the file itself is escaped before
it is shown: the file may be a stranger's, and must not steer the terminal.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

DataPath = tuple[str | int, ...]

REACH = "reach"
"""The topic of warnings that some inputs cannot reach some outputs."""
SHOWN_LIMIT = 100
"""How many diagnostics `str(SpecError)` prints; a file that is wrong everywhere is best mended from the top."""
_KEPT_LIMIT = 1000
_LINE_WIDTH = 110
_WORD_WIDTH = 60
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line of a file: 1-based, `end_column` exclusive."""

    line: int
    column: int
    end_column: int


def _escape_character(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def escape(text: str) -> str:
    """Return `text` with everything that could steer a terminal or hide on it written as an escape."""
    return _UNSAFE.sub(_escape_character, text)


def clip(text: str, width: int = _WORD_WIDTH) -> str:
    """Return at most `width` characters of `text`, escaped."""
    return escape(text if len(text) <= width else text[: width - 1] + "…")


def quote(word: object) -> str:
    """Return a word of the file for use in a message: quoted where it is text, clipped and escaped."""
    if isinstance(word, str):
        return f"'{clip(word)}'"
    # Python refuses to write integers of more than 4300 digits, which a dict can hold.
    return "a huge integer" if isinstance(word, int) and abs(word) >= 10**20 else clip(str(word))


def path_text(path: DataPath) -> str:
    """Write a data path as text: `gates[2].axes[0]`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, str) and _PLAIN_KEY.match(step):
            parts.append(f".{clip(step)}" if parts else clip(step))
        else:
            parts.append(f"[{quote(step)}]")
    return "".join(parts)


def did_you_mean(word: object, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `word` is most probably a misspelling of, if there is one."""
    from difflib import get_close_matches

    if not isinstance(word, str) or len(word) > _WORD_WIDTH:
        return None
    by_lower_case = {candidate.lower(): candidate for candidate in candidates}
    close = get_close_matches(word.lower().replace("-", "_"), list(by_lower_case), n=1, cutoff=0.6)
    return by_lower_case[close[0]] if close else None


def meant(word: object, candidates: Iterable[str], otherwise: str, mark: str = "`") -> str:
    """Return the hint for a word that is none of the candidates: the one that is probably meant, or `otherwise`."""
    close = did_you_mean(word, candidates)
    return f"did you mean {mark}{close}{mark}?" if close else otherwise


def offered(word: object, candidates: Iterable[str], listing: str, mark: str = "`") -> str:
    """Return the hint for a word that is none of the candidates: the one that is probably meant, and all of them."""
    close = did_you_mean(word, candidates)
    return f"did you mean {mark}{close}{mark}? {listing}" if close else listing


def _display_width(text: str) -> int:
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem or warning about a circuit file."""

    severity: str
    """`error` or `warning`."""
    message: str
    source: str
    """The file as the user named it, or `<string>`, or `<dict>`."""
    path: str = ""
    """The data path, such as `gates[2].axes[0]`."""
    span: Span | None = None
    line_text: str | None = None
    hint: str | None = None
    topic: str = ""
    """What it is about, where a vaguer warning of the same is then left out."""

    def _excerpt(self) -> list[str]:
        """Return the source line and the line with the caret, clipped around the caret."""
        if self.span is None or self.line_text is None:
            return []
        line = self.line_text
        start = min(self.span.column - 1, len(line))
        end = max(start, min(self.span.end_column - 1, len(line)))
        first = max(0, start - _LINE_WIDTH // 2) if len(line) > _LINE_WIDTH else 0
        last = min(len(line), first + _LINE_WIDTH)
        end = min(end, last)
        # A tab takes one column here, so that the caret stays below what it points at.
        before, marked, after = (
            escape(part.replace("\t", " ")) for part in (line[first:start], line[start:end], line[end:last])
        )
        before = ("…" if first else "") + before
        after = after + ("…" if last < len(line) else "")
        width = max(1, _display_width(marked))
        return [
            f"    {before}{marked}{after}".rstrip(),
            "    " + " " * _display_width(before) + "^" + "~" * (width - 1),
        ]

    def render(self) -> str:
        """Return the diagnostic as it is printed: place, message, the line with a caret, and the hint."""
        place = f"{self.source}: {self.path}" if self.path else self.source
        if self.span is not None:
            place = f"{self.source}:{self.span.line}:{self.span.column}"
        word = "warning: " if self.severity == "warning" else ""
        lines = [escape(f"{place}: {word}{self.message}"), *self._excerpt()]
        if self.hint is not None:
            lines.append(f"  hint: {escape(self.hint)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "severity": self.severity,
            "message": self.message,
            "source": self.source,
            "path": self.path,
            "line": self.span.line if self.span else None,
            "column": self.span.column if self.span else None,
            "end_column": self.span.end_column if self.span else None,
            "hint": self.hint,
        }


class SpecError(Exception):
    """A circuit file is wrong; `diagnostics` holds every problem, sorted by place (the first 1000 of them)."""

    def __init__(self, diagnostics: Sequence[Diagnostic], omitted: int = 0) -> None:
        super().__init__(tuple(diagnostics), omitted)
        self.diagnostics = tuple(diagnostics)
        self.omitted = omitted
        """How many problems were found beyond those in `diagnostics`."""

    def __str__(self) -> str:
        lines = [diagnostic.render() for diagnostic in self.diagnostics[:SHOWN_LIMIT]]
        more = max(0, len(self.diagnostics) - SHOWN_LIMIT) + self.omitted
        return "\n".join([*lines, f"and {more} more"] if more else lines)


def problem(source: object, message: str, *, place: str = "", hint: str | None = None) -> Diagnostic:
    """Return one problem: `source` is the file or folder as the user named it, `place` a layer or a key in it."""
    return Diagnostic("error", message, str(source), clip(place, 160), hint=hint)


def warning(source: object, message: str, *, place: str = "", hint: str | None = None) -> Diagnostic:
    """Return what is allowed, but worth knowing."""
    return Diagnostic("warning", message, str(source), clip(place, 160), hint=hint)


def refusal(source: object, message: str, *, place: str = "", hint: str | None = None) -> SpecError:
    """Return the error to raise where one problem is all there is to say."""
    return SpecError([problem(source, message, place=place, hint=hint)])


class Source(Protocol):
    """Where data came from, and the place of each part of it."""

    @property
    def name(self) -> str:
        """The file as the user named it."""

    def locate(self, path: DataPath, key: bool) -> tuple[Span | None, str | None]:
        """Return the span and the line of the value at `path` (or of its key)."""

    def is_poisoned(self, path: DataPath) -> bool:
        """Say whether a problem was already reported about the value at `path` while reading it."""


def _place_of(diagnostic: Diagnostic) -> tuple[int, int]:
    return (diagnostic.span.line, diagnostic.span.column) if diagnostic.span else (0, 0)


class Problems:
    """Collects diagnostics about one source; nothing is raised before `raise_errors`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._errors: list[Diagnostic] = []
        self._warnings: list[Diagnostic] = []
        self._seen: set[tuple[Span | None, str, str]] = set()
        self._omitted = 0

    @property
    def has_room(self) -> bool:
        """Say whether further errors would still be kept; past that, hints are not worth computing."""
        return len(self._errors) < _KEPT_LIMIT

    @property
    def has_errors(self) -> bool:
        """Say whether any error was reported."""
        return bool(self._errors)

    def error(self, path: DataPath, message: str, hint: str | None = None, *, key: bool = False) -> None:
        """Report a problem with the value at `path`, or with its key."""
        if key or not self.source.is_poisoned(path):
            self._add_error(self._diagnostic("error", path, message, hint, key=key))

    def error_at(self, span: Span | None, line_text: str | None, message: str, hint: str | None = None) -> None:
        """Report a problem with a place in the text that is no part of the data."""
        self._add_error(Diagnostic("error", message, self.source.name, "", span, line_text, hint))

    def warning(self, path: DataPath, message: str, hint: str | None = None, *, topic: str = "") -> None:
        """Report what is allowed, but worth knowing."""
        diagnostic = self._diagnostic("warning", path, message, hint, topic=topic)
        if len(self._warnings) < _KEPT_LIMIT and self._is_new(diagnostic):
            self._warnings.append(diagnostic)

    def _diagnostic(
        self, severity: str, path: DataPath, message: str, hint: str | None, *, key: bool = False, topic: str = ""
    ) -> Diagnostic:
        span, line_text = self.source.locate(path, key)
        return Diagnostic(severity, message, self.source.name, path_text(path), span, line_text, hint, topic)

    def omit(self, count: int) -> None:
        """Count problems that are not told."""
        self._omitted += count

    def _add_error(self, diagnostic: Diagnostic) -> None:
        if not self.has_room:
            self._omitted += 1
        elif self._is_new(diagnostic):
            self._errors.append(diagnostic)

    def _is_new(self, diagnostic: Diagnostic) -> bool:
        # An alias shows the same text at several data paths: one mistake there is one problem.
        identity = (diagnostic.span, "" if diagnostic.span else diagnostic.path, diagnostic.message)
        known = identity in self._seen
        self._seen.add(identity)
        return not known

    def errors(self) -> tuple[Diagnostic, ...]:
        """Return the errors, sorted by place."""
        return tuple(sorted(self._errors, key=_place_of))

    def warnings(self) -> tuple[Diagnostic, ...]:
        """Return the warnings, sorted by place."""
        return tuple(sorted(self._warnings, key=_place_of))

    def raise_errors(self) -> None:
        """Raise all errors as one SpecError, if there are any."""
        if self._errors:
            raise SpecError(self.errors(), self._omitted)
