"""What commands say, and where: results to stdout, messages to stderr, plain text in a pipe, and one exit code each."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TextIO

import typer

from quanta_compiler.diagnostics import SHOWN_LIMIT, Diagnostic, SpecError, escape

if TYPE_CHECKING:
    from quanta_compiler.report.terminal import Table

P = ParamSpec("P")

FAILED = 1
LIMIT_REACHED = 3
INTERRUPTED = 130
PIPE_CLOSED = 141
"""What a shell reports of a program whose reader went away."""

PIPE_WIDTH = 100
"""How wide a drawing is where there is no terminal to ask."""

_BOLD, _RED, _YELLOW, _CYAN, _RESET = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[0m"


@contextmanager
def without_numpy() -> Iterator[None]:
    """Import opt_einsum without numpy, which it looks for only to fill a cache that it can fill later as well.

    Nothing of the command line computes with numpy, and importing it takes longer than planning most circuits.
    """
    if "numpy" in sys.modules:
        yield
        return
    sys.modules["numpy"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["numpy"]


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a command raises for a user's mistake into messages and an exit code, never a traceback.

    A command with `as_json=True` prints the problems as a JSON list of diagnostics to stdout instead.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        _make_encodable(sys.stdout)
        try:
            command(*args, **kwargs)
            _flush()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _abandon_stdout()
            raise typer.Exit(PIPE_CLOSED) from None
        except Exception as error:
            explained = _explain(error)
            if explained is None:
                raise
            code, diagnostics, omitted = explained
            _tell_failure(diagnostics, omitted, as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(code) from None

    return run


def _explain(error: Exception) -> tuple[int, tuple[Diagnostic, ...], int] | None:
    """Return exit code and problems of an exception that a user can do something about."""
    from quanta_compiler.emit.files import OutputError
    from quanta_compiler.oracle.verification import LimitError
    from quanta_compiler.runtime.backends import EngineError
    from quanta_compiler.system.extras import missing_extra

    if isinstance(error, ImportError):
        missing = missing_extra(error)
        if missing is None:
            return None
        return FAILED, (Diagnostic("error", missing.fact, "quanta", hint=missing.hint),), 0
    if isinstance(error, SpecError):
        return FAILED, error.diagnostics, error.omitted
    if isinstance(error, OutputError | EngineError):
        return FAILED, (Diagnostic("error", str(error), "quanta"),), 0
    if isinstance(error, LimitError):
        return LIMIT_REACHED, (Diagnostic("error", str(error), "quanta"),), 0
    if isinstance(error, MemoryError):
        message = str(error) or "there is not enough memory"
        return LIMIT_REACHED, (Diagnostic("error", message, "quanta"),), 0
    return None


def _tell_failure(diagnostics: tuple[Diagnostic, ...], omitted: int, *, as_json: bool) -> None:
    from quanta_compiler.emit.files import OutputError

    try:
        if as_json:
            print_json([diagnostic.to_dict() for diagnostic in diagnostics])
            _flush()
        else:
            tell_diagnostics(diagnostics, omitted)
    except (OSError, OutputError):
        # Nobody reads, or the disk is full: the exit code has to say it alone.
        _abandon_stdout()


def print_result(text: str) -> None:
    """Write a result to stdout, ending its last line."""
    if sys.stdout is not None:
        with _full_disk_told():
            sys.stdout.write(text if text.endswith("\n") else text + "\n")


def print_tables(tables: Sequence[Table]) -> None:
    """Write tables to stdout: rich ones on a terminal, aligned plain text elsewhere."""
    from quanta_compiler.report.terminal import plain_text, print_rich

    if is_terminal(sys.stdout):
        print_rich(tables)
    else:
        print_result(plain_text(tables))


def print_json(data: object) -> None:
    """Write data to stdout as JSON."""
    print_result(json.dumps(data, indent=2, allow_nan=False))


def tell(text: str) -> None:
    """Write a message to stderr, with whatever could steer a terminal escaped."""
    _write_message("\n".join(escape(line) for line in text.splitlines()))


def tell_diagnostics(diagnostics: Iterable[Diagnostic], omitted: int = 0) -> None:
    """Write problems and warnings to stderr, coloured on a terminal; past a hundred only their number."""
    listed = list(diagnostics)
    coloured = _is_coloured(sys.stderr)
    for diagnostic in listed[:SHOWN_LIMIT]:
        _write_message(_coloured(diagnostic) if coloured else diagnostic.render())
    more = max(0, len(listed) - SHOWN_LIMIT) + omitted
    if more:
        _write_message(f"and {more:,} more")


def _write_message(text: str) -> None:
    if sys.stderr is not None:
        # Results that are already printed come first where both streams go to one place.
        _flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _coloured(diagnostic: Diagnostic) -> str:
    first, *others = diagnostic.render().splitlines()
    colour = _YELLOW if diagnostic.severity == "warning" else _RED
    lines = [f"{_BOLD}{first}{_RESET}"]
    for line in others:
        style = colour if line.strip("^~ ") == "" else _CYAN if line.startswith("  hint: ") else ""
        lines.append(f"{style}{line}{_RESET}" if style else line)
    return "\n".join(lines)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person looks at a stream through a terminal that can do more than print lines."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _is_coloured(stream: TextIO | None) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def drawing_width() -> int:
    """Return how many characters a line of a drawing may have: the same number in every pipe."""
    if not is_terminal(sys.stdout):
        return PIPE_WIDTH
    from shutil import get_terminal_size

    return get_terminal_size().columns


def can_draw_boxes() -> bool:
    """Return whether stdout's encoding has box-drawing characters."""
    try:
        "┌─●╰×ᵀ┆".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _make_encodable(stream: TextIO | None) -> None:
    """Let a stream write an escape in place of a character that its encoding lacks (in a file's name, say)."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _flush() -> None:
    if sys.stdout is not None:
        with _full_disk_told():
            sys.stdout.flush()


@contextmanager
def _full_disk_told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        from quanta_compiler.emit.files import OutputError

        _abandon_stdout()
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from None


def _abandon_stdout() -> None:
    """Send what is left in stdout's buffer nowhere, so that Python does not complain about it when it exits."""
    try:
        target = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, target)
    os.close(nowhere)
