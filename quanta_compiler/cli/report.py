"""`quanta report`: what a circuit costs, printed or as a page."""

from pathlib import Path
from typing import Annotated

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.cli.options import File, Json, Tokens
from quanta_compiler.text.console import print_result, print_tables


@guarded
def report(
    file: File,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="Write a page to look at instead.")
    ] = None,
    tokens: Tokens = None,
    as_json: Json = False,
) -> None:
    """Print what the circuit costs.

    Parameters, FLOPs, memory, bounds on the rank, every gate and every step. With --json it is the text that compile
    writes to STEM.report.json; with -o a page that opens in a browser and needs no network, beside it.
    """
    from quanta_compiler.cli.circuit_files import compile_file, write_beside
    from quanta_compiler.report.terminal import report_tables

    if output is not None and output.suffix.lower() != ".html":
        raise typer.BadParameter(f"the page is HTML: {str(output)!r} should end in .html", param_hint="'-o'")
    compiled = compile_file(file, tokens)
    if output is not None:
        write_beside(file, output, compiled.page())
    if as_json:
        print_result(compiled.report.to_json())
    elif output is not None:
        print_result(str(output))
    else:
        print_tables(report_tables(compiled.report))
