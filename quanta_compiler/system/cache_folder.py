"""The user's cache folder: what costs seconds to make, and is the same for every process of this machine.

It is `$QUANTA_CACHE` if that is set, else `$XDG_CACHE_HOME/quanta-compiler`, else `~/.cache/quanta-compiler`, where
torch and Hugging Face's libraries keep theirs on every system. It may be deleted at any time.
"""

import os
import stat
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder, made if it is missing; it may be one that can only be read.

    Raises:
        OSError: there is none that can be used; the message says why.

    """
    named = os.environ.get("QUANTA_CACHE", "")
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # as the XDG specification wants it
        base = os.path.expanduser("~/.cache")
    if not named and not os.path.isabs(base):
        raise FileNotFoundError("this user has no home folder (`QUANTA_CACHE` names another place)")
    folder = Path(os.path.abspath(os.path.expanduser(named)) if named else os.path.join(base, "quanta-compiler"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_owner(folder)
    return folder


def check_owner(path: Path) -> None:
    """Check that nobody else could have written what is at a path: what is loaded from there is executed.

    Root is believed, since it can write anywhere: an image may come with a folder that its users only read.

    Raises:
        OSError: somebody could.

    """
    if os.name != "posix":
        return
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(f"{path} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write to {path} (`chmod go-w` forbids it)")
