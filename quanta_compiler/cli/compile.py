"""`quanta compile`: the module and what goes with it, written."""

from pathlib import Path
from typing import Annotated

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.cli.options import File, Json, Tokens
from quanta_compiler.text.console import print_json, print_tables


@guarded
def compile_(
    file: File,
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write; made where it is missing.")
    ] = Path(),
    tokens: Tokens = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a module that was edited by hand.")] = False,
    as_json: Json = False,
) -> None:
    """Write the PyTorch module.

    STEM.py (the module, which imports torch alone), STEM.report.json, STEM.report.html and STEM.svg go to DIR, STEM
    being the circuit's name; what it costs is printed. A module that was edited by hand stays as it is, unless --force
    is given.
    """
    from quanta_compiler.cli.circuit_files import compile_file, refuse_to_overwrite
    from quanta_compiler.report.terminal import files_table, summary_table

    compiled = compile_file(file, tokens)
    refuse_to_overwrite(file, [folder / name for name, _ in compiled.files().values()])
    paths = compiled.write(folder, force=force)
    if as_json:
        print_json({"files": {kind: str(path) for kind, path in paths.items()}, "report": compiled.report.to_dict()})
    else:
        print_tables([files_table(paths), summary_table(compiled.report)])
