"""A circuit's files: how they are called, and nothing over somebody's own work."""

import keyword
import sys
from pathlib import Path

from quanta_compiler.emit.seal import is_unedited
from quanta_compiler.system.files import OutputError, replace_files, writing

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
    *("pygments", "quanta_compiler", "rich", "safetensors", "shellingham", "transformers", "typer"),
    *("typing_inspection", "yaml"),
)
_IMPORTED_AT_START = ("sitecustomize", "usercustomize")
HIDDEN = sys.stdlib_module_names.union(_OTHER_PYTHONS, _IMPORTED_BY_TORCH, _IMPORTED_HERE, _IMPORTED_AT_START)
"""Modules that a file of their name would hide from everything that is started in its folder."""


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

    An interruption leaves the old ones whole.

    Raises:
        OutputError: the folder or a file cannot be written, or a module there was edited by hand and not `force`.

    """
    paths = {kind: folder / name for kind, (name, _) in files.items()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths.values():
            if path.is_dir():
                raise OutputError(f"{path} is a folder: move it away, or choose another folder with -o")
        if not force and "py" in paths and paths["py"].exists():
            with writing(paths["py"]):
                # What is no text comes out as one that nobody wrote.
                source = paths["py"].read_bytes().decode("utf-8", "replace")
            if not is_unedited(source):
                reason = "was edited by hand, or is not ours: move it away, or overwrite it with --force"
                raise OutputError(f"{paths['py']} {reason}")
    replace_files({paths[kind]: text for kind, (_, text) in files.items()})
    return paths
