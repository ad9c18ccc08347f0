"""PEFT's own tests: fetched from the package index as the sdist of one version, never copied into this project."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE = "peft_tests"
"""The package that the tests become: they import each other relatively, but their folder has no `__init__.py`."""


def default_cache() -> Path:
    """Return the folder for downloads: `$XDG_CACHE_HOME/quanta-compiler`, or the same below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quanta-compiler"


def fetch_sdist(version: str, cache: Path) -> Path:
    """Return the path of PEFT's sdist in `cache`, downloaded with pip where it is not there yet.

    Raises:
        SystemExit: pip could not bring it.

    """
    archive = cache / f"peft-{version}.tar.gz"
    if archive.exists():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    if importlib.util.find_spec("setuptools") is not None:
        command.append("--no-build-isolation")  # pip reads the metadata with setuptools; it need not fetch another
    done = subprocess.run([*command, "--dest", str(cache), f"peft=={version}"], check=False)
    if done.returncode != 0 or not archive.exists():
        raise SystemExit(
            f"pip could not download the sdist of peft {version} into {cache}\n"
            f"hint: place peft-{version}.tar.gz there, or name another folder with --cache"
        )
    return archive


def unpack_tests(archive: Path, folder: Path) -> Path:
    """Unpack the sdist's `tests` into `folder` as the package `PACKAGE`; return the package's folder.

    Raises:
        SystemExit: the sdist holds no tests.

    """
    package = folder / PACKAGE
    package.mkdir()
    with tarfile.open(archive) as sdist:
        for member in sdist:
            parts = Path(member.name).parts
            source = sdist.extractfile(member) if member.isfile() else None
            if source is not None and len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                (package / parts[2]).write_bytes(source.read())
    if not any(package.iterdir()):
        raise SystemExit(f"{archive} holds no tests")
    (package / "__init__.py").touch()
    return package
