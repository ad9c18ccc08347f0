"""`quanta compile`: the module and what goes with it, written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.cli.options import File, Json, Tokens
from quanta_compiler.text.console import print_json, print_tables, tell
from quanta_compiler.text.words import plural

if TYPE_CHECKING:
    from quanta_compiler.driver import CompiledCircuit


@guarded
def compile_(
    file: File,
    *,
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write; made where it is missing.")
    ] = Path(),
    tokens: Tokens = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a module that was edited by hand.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with 1 where a file in DIR is missing or not up to date."),
    ] = False,
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
    if check:
        _check(compiled, folder, as_json=as_json)
        return
    refuse_to_overwrite(file, [folder / name for name, _ in compiled.files().values()])
    paths = compiled.write(folder, force=force)
    if as_json:
        print_json({"files": {kind: str(path) for kind, path in paths.items()}, "report": compiled.report.to_dict()})
    else:
        print_tables([files_table(paths), summary_table(compiled.report)])


def _check(compiled: CompiledCircuit, folder: Path, *, as_json: bool) -> None:
    """Compare the files of a circuit with those in a folder; raise SpecError for those that differ."""
    from quanta_compiler.diagnostics import SpecError, problem

    old = []
    for name, text in compiled.files().values():
        path = folder / name
        if not path.is_file():
            old.append(problem(path, "is missing", hint="compile without --check"))
        elif path.read_bytes() != text.encode():
            old.append(
                problem(path, "is not up to date", hint="compile again, with --force where it was edited by hand")
            )
    if old:
        raise SpecError(old)
    if as_json:
        print_json({"files": [str(folder / name) for name, _ in compiled.files().values()], "up_to_date": True})
        return
    tell(f"{plural(len(compiled.files()), 'file')} of {compiled.spec.name} up to date")
