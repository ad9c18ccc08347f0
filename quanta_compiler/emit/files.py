"""Writing results: all files or none, and nothing over somebody's own work."""

from __future__ import annotations

import keyword
import os
import sys
import tempfile
from pathlib import Path

from quanta_compiler.emit.source import is_unedited

# A name is right or wrong everywhere: these are modules from Python 3.10 to 3.14, not in each of them.
_OTHER_PYTHONS = (
    *("aifc", "annotationlib", "asynchat", "asyncore", "audioop", "binhex", "cgi", "cgitb", "chunk", "compression"),
    *("crypt", "distutils", "imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes"),
    *("smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "tomllib", "uu", "xdrlib"),
)
_IMPORTED_BY_TORCH = (
    *("dill", "filelock", "fsspec", "functorch", "jinja2", "markupsafe", "mpmath", "networkx", "numpy", "opt_einsum"),
    *("setuptools", "sympy", "torch", "torchgen", "tqdm", "triton", "typing_extensions"),
    *("backports", "gmpy2", "jaraco", "more_itertools", "packaging"),
)
_IMPORTED_HERE = (
    *("accelerate", "annotated_types", "click", "joblib", "markdown_it", "mdurl", "peft", "pydantic", "pydantic_core"),
    *(
        "pygments",
        "quanta_compiler",
        "rich",
        "safetensors",
        "shellingham",
        "transformers",
        "typer",
        "typing_inspection",
    ),
    "yaml",
)
_IMPORTED_AT_START = ("sitecustomize", "usercustomize")
HIDDEN = sys.stdlib_module_names.union(_OTHER_PYTHONS, _IMPORTED_BY_TORCH, _IMPORTED_HERE, _IMPORTED_AT_START)
"""Modules that a file of their name would hide from everything that is started in its folder."""


class OutputError(Exception):
    """A result cannot be written; the message says what stands in the way and what to do."""


def stem_of(name: str) -> str:
    """Return the stem of a circuit's files: its name as a Python module's.

    Raises:
        OutputError: the stem is a keyword of Python, or the name of a module that Python, torch or this package
            imports.

    """
    stem = name.replace("-", "_").replace(".", "_")
    if not keyword.iskeyword(stem) and stem not in HIDDEN:
        return stem
    reason = (
        "a keyword of Python"
        if keyword.iskeyword(stem)
        else "which would hide a module that Python, torch or this package needs"
    )
    renamed = f"rename the circuit, to {f'{name}-circuit'!r} for example"
    raise OutputError(f"the circuit's name {name!r} gives the module name {stem!r}, {reason}: {renamed}")


def write_files(folder: Path, files: dict[str, tuple[str, str]], *, force: bool) -> dict[str, Path]:
    """Write `kind -> (file name, text)` into `folder`, made where missing; return the paths by kind.

    Every file is written beside its place first and renamed when all are there, so an interruption leaves the old ones
    whole.

    Raises:
        OutputError: the folder or a file cannot be written, or a module there was edited by hand and not `force`.

    """
    paths = {kind: folder / name for kind, (name, _) in files.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths.values():
            if path.is_dir():
                raise OutputError(f"{path} is a folder: move it away, or choose another folder with -o")
        if not force and "py" in paths:
            _refuse_edited(paths["py"])
        _replace_all({paths[kind]: text for kind, (_, text) in files.items()})
    except OSError as error:
        where = error.filename or folder
        raise OutputError(f"cannot write {where}: {error.strerror or error}") from error
    return paths


def write_file(path: Path, text: str) -> None:
    """Write one file by way of a temporary one.

    Raises:
        OutputError: it cannot be written; what was there is unchanged.

    """
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder: give the name of a file")
        _replace_all({path: text})
    except OSError as error:
        raise OutputError(f"cannot write {error.filename or path}: {error.strerror or error}") from error


def _refuse_edited(path: Path) -> None:
    if not path.exists():
        return
    try:
        unedited = is_unedited(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        unedited = False
    if not unedited:
        raise OutputError(f"{path} was edited by hand, or is not ours: move it away, or overwrite it with --force")


def _replace_all(texts: dict[Path, str]) -> None:
    written: list[tuple[str, Path]] = []
    try:
        for path, text in texts.items():
            handle, temporary = _temporary(path)
            written.append((temporary, path))
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            # mkstemp makes files private; results get the permissions of an ordinary new file.
            os.chmod(temporary, 0o666 & ~_umask())
        for temporary, path in written:
            os.replace(temporary, path)
    finally:
        for temporary, _ in written:
            if os.path.exists(temporary):
                os.unlink(temporary)


def _temporary(path: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        # The error names a file that the user has never heard of.
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
