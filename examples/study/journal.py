"""The finished runs, one line of JSON each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class JournalError(ValueError):
    """A line of the results cannot be read."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the runs of a file in the order in which they ended; none where there is no file.

    Raises:
        JournalError: a line is no JSON.

    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise JournalError(
                f"{path}:{number}: {error}\n  hint: delete the line; its run is then done again"
            ) from None
    return records


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append a run as one line, in one write, so that several processes may share the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, allow_nan=False) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode("utf-8"))
    finally:
        os.close(descriptor)
