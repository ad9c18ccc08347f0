"""Packages that only some commands need: the extra that installs each, and what is said where it is missing."""

import re
from collections.abc import Mapping
from importlib.util import find_spec

from quanta_compiler.system.machine import installed_version

EXTRAS: Mapping[str, tuple[str, str]] = {
    "distributed": ("cluster", "2024.1"),
    "joblib": ("search", "1.5"),
    "matplotlib": ("plots", "3.8"),
    "peft": ("peft", "0.21"),
    "safetensors": ("peft", "0.6.2"),
    "starlette": ("watch", "0.40"),
    "transformers": ("peft", "4.56"),
    "uvicorn": ("watch", "0.30"),
    "watchfiles": ("watch", "1.0"),
}
"""For every package its extra and the oldest version that works: those of pyproject.toml, as a test holds."""
PEFT = ("peft", "transformers", "safetensors")
"""What adapters need."""
WATCH = ("starlette", "uvicorn", "watchfiles")
"""What the page of `quanta watch` needs."""


class MissingExtraError(ImportError):
    """A package of an extra is not installed, or is too old."""

    def __init__(self, fact: str, package: str, instead: str = "") -> None:
        self.fact = fact
        self.hint = f"pip install 'quanta-compiler[{EXTRAS[package][0]}]'{instead}"
        super().__init__(f"{fact}\nhint: {self.hint}", name=package)


def require(what: str, *packages: str, instead: str = "") -> None:
    """Look whether packages are installed, without importing them: `what` needs them.

    `instead` continues the hint with what works without them.

    Raises:
        MissingExtraError: one is missing or too old.

    """
    for package in packages:
        if not _is_installed(package):
            raise MissingExtraError(f"{what} needs {package}, which is not installed", package, instead)
        oldest, found = EXTRAS[package][1], installed_version(package)
        if found is not None and _release(found) < _release(oldest):
            fact = f"{what} needs {package} {oldest} or newer; {found} is installed"
            raise MissingExtraError(fact, package, instead)


def missing_extra(error: ImportError) -> MissingExtraError | None:
    """Return what to say of a failed import where the reason is a missing package of an extra."""
    if isinstance(error, MissingExtraError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return MissingExtraError(f"this needs {error.name}, which is not installed", str(error.name))
    return None


def _is_installed(package: str) -> bool:
    try:
        spec = find_spec(package)
    except ImportError:
        return False
    # Any folder of that name passes for a package; only a real one has a file.
    return spec is not None and spec.origin is not None


def _release(text: str) -> tuple[int, ...]:
    """Return the numbers of a version: 0.20.1rc1 -> (0, 20, 1)."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in found.group().split(".")) if found else ()
