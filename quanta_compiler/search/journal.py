"""The journal of a search: a line of JSON for everything that is finished, on the disk before the next is begun.

A process that is killed loses what it had in hand, nothing else: a line that was cut off is dropped, and what it would
have said is done again.
"""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from quanta_compiler.diagnostics import refusal
from quanta_compiler.system.files import OutputError, writing

FILE = "journal.jsonl"
_LOCKED_BYTE = 1 << 30


class Journal:
    """The lines written so far, and the file that further ones are added to."""

    def __init__(self, path: Path, settings: dict[str, Any], *, resume: bool, force: bool) -> None:
        """Open the journal of a folder.

        Raises:
            SpecError: one is there and not `resume`, it is of another search, or another process has it open.
            OutputError: it cannot be read or written.

        """
        self.path = path
        self.lines: list[dict[str, Any]] = []
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # What is appended lands at the end, wherever another process may have written.
            self._file: BinaryIO = path.open("a+b")
            if not _locked(self._file):
                self._file.close()
                hint = "wait for it, or choose another folder with -o"
                raise refusal(path.parent, "another search is running in this folder", hint=hint)
            try:
                self._begin(settings, resume=resume, force=force)
            except Exception:
                self._file.close()
                raise

    def _begin(self, settings: dict[str, Any], *, resume: bool, force: bool) -> None:
        self._file.seek(0)
        whole, lines = _whole_lines(self._file.read(), _line(settings))
        if whole is None:
            raise OutputError(f"{self.path} is no journal of a search: move it away, or choose another folder with -o")
        if force:
            whole, lines = 0, []
        if lines and not resume:
            hint = "go on with --resume, begin anew with --force, or choose another folder with -o"
            raise refusal(self.path.parent, "there is a search in this folder already", hint=hint)
        if lines and lines[0] != settings:
            hint = "give the same options, begin anew with --force, or choose another folder with -o"
            message = f"the search to resume is another one: {_difference(lines[0], settings)}"
            raise refusal(self.path, message, hint=hint)
        self._file.truncate(whole)
        self.lines = lines[1:]
        if not lines:
            self.add(settings)

    def add(self, line: dict[str, Any]) -> None:
        """Write a line; it is on the disk when this returns.

        Raises:
            OutputError: it cannot be written.

        """
        with writing(self.path):
            self._file.write(_line(line))
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def remove(self) -> None:
        """Close the file and take it away, and its folder where nothing else is in it."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        if not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _locked(file: BinaryIO) -> bool:
    """Keep other processes from the journal until it is closed; say whether none has it.

    Where the system or the file system has no locks, nobody is kept from anything.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            # A lock forbids reading there: it is put where no journal reaches.
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def _whole_lines(data: bytes, first: bytes) -> tuple[int | None, list[dict[str, Any]]]:
    """Return how many bytes of a journal are whole lines, and the lines; None where it is none.

    `first` is the first line that it should have: only a beginning of that is taken for one that was cut off.
    """
    lines: list[dict[str, Any]] = []
    end = 0
    for raw in data.splitlines(keepends=True):
        try:
            line = json.loads(raw)
        except ValueError:
            break
        if not raw.endswith(b"\n") or not isinstance(line, dict):
            break
        lines.append(line)
        end += len(raw)
    # Only the last line can have been cut off.
    is_cut = b"\n" not in data[end:-1]
    is_ours = {"version", "space"} <= set(lines[0]) if lines else first.startswith(data)
    return (end if is_cut and is_ours else None), lines


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    before, after = _flat(old), _flat(new)
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            return f"`{key}` is {_text(before.get(key))} there and {_text(after.get(key))} here"
    return "its settings are others"


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        found.update(_flat(value) if isinstance(value, dict) else {key: value})
    return found


def _text(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
