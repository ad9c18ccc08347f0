"""Files written whole: what is interrupted or has no room leaves what was there before."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class OutputError(Exception):
    """A result cannot be written; the message says what stands in the way and what to do."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what the system says against writing at a place into an OutputError that names it."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {place}: {error.strerror or error}") from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write one file.

    Raises:
        OutputError: it cannot be written; what was there is unchanged.

    """
    with writing(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder: give the name of a file")
    replace_files({path: content})


def replace_files(contents: Mapping[Path, str | bytes]) -> None:
    """Write files beside their places first and rename them when all are there.

    Raises:
        OutputError: one cannot be written.

    """
    written: list[tuple[str, Path]] = []
    try:
        for path, content in contents.items():
            with writing(path):
                handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
                written.append((temporary, path))
                with os.fdopen(handle, "wb") as file:
                    file.write(content.encode("utf-8") if isinstance(content, str) else content)
                # mkstemp makes files private; results get the permissions of an ordinary new file.
                os.chmod(temporary, 0o666 & ~umask())
        for temporary, path in written:
            with writing(path):
                os.replace(temporary, path)
    finally:
        for temporary, _ in written:
            Path(temporary).unlink(missing_ok=True)


def umask() -> int:
    """Return the permissions that new files and folders do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
