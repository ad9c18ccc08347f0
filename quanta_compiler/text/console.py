"""What is said, and where: results to stdout, messages to stderr, plain text in a pipe."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from quanta_compiler.diagnostics import SHOWN_LIMIT, Diagnostic, escape
from quanta_compiler.system.files import OutputError
from quanta_compiler.text.tables import Table, plain_text, print_rich

PIPE_WIDTH = 100
"""How wide a drawing is where there is no terminal to ask."""

_BOLD, _RED, _YELLOW, _CYAN, _RESET = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[0m"


def print_result(text: str) -> None:
    """Write a result to stdout, ending its last line."""
    if sys.stdout is not None:
        with _full_disk_told():
            sys.stdout.write(text if text.endswith("\n") else text + "\n")


def print_tables(tables: Sequence[Table]) -> None:
    """Write tables to stdout: rich ones on a terminal, aligned plain text elsewhere."""
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
    coloured = is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")
    for diagnostic in listed[:SHOWN_LIMIT]:
        _write_message(_coloured(diagnostic) if coloured else diagnostic.render())
    more = max(0, len(listed) - SHOWN_LIMIT) + omitted
    if more:
        _write_message(f"and {more:,} more")


def _write_message(text: str) -> None:
    if sys.stderr is not None:
        # Results that are already printed come first where both streams go to one place.
        flush()
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


def make_encodable(stream: TextIO | None) -> None:
    """Let a stream write an escape in place of a character that its encoding lacks (in a file's name, say)."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what is left in stdout's buffer."""
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
        abandon_stdout()
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from None


def abandon_stdout() -> None:
    """Send what is left in stdout's buffer nowhere, so that Python does not complain about it when it exits."""
    try:
        target = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, target)
    os.close(nowhere)


class Progress:
    """Takes how far something is; this one shows it to nobody."""

    def begin(self, what: str, total: int | None = None) -> None:
        """Name what is done next, and how many there are of it where that is known."""

    def advance(self, remark: str = "") -> None:
        """Count one of them."""


@contextmanager
def progress_bar(first: str = "preparing", *, redraws_alone: bool = True) -> Iterator[Progress]:
    """Show a bar that begins with `first`; with `redraws_alone` false it takes no time but in `advance`."""
    if not is_terminal(sys.stderr):
        yield Progress()
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[remark]}"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=redraws_alone) as shown:
        task = shown.add_task(first, total=None, remark="")

        class Bar(Progress):
            def begin(self, what: str, total: int | None = None) -> None:
                shown.reset(task, description=what, total=total)

            def advance(self, remark: str = "") -> None:
                shown.update(task, advance=1, remark=remark, refresh=not redraws_alone)

        yield Bar()
