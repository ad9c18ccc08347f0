"""`quanta expand`: the circuit written out, or what a later stage makes of it."""

from typing import Annotated

import typer

from quanta_compiler.cli.command import guarded, without_numpy
from quanta_compiler.cli.options import File, completed, one_of
from quanta_compiler.text.console import print_result, tell_diagnostics

STAGE_NAMES = ("circuit", "network", "plan", "program", "table", "source", "kernel")
"""Named again here so that usage and help need not load the compiler; a test compares."""


@guarded
def expand(
    file: File,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            autocompletion=completed(STAGE_NAMES),
            callback=one_of("stage", STAGE_NAMES),
            help=f"What a later stage holds instead: {', '.join(STAGE_NAMES)}.",
        ),
    ] = None,
) -> None:
    """Print the circuit written out.

    Patterns and defaults become plain gates, in YAML that compiles to the same circuit; with --stage it is what a
    later stage of the compiler makes of it.
    """
    from quanta_compiler.cli.circuit_files import read_circuit

    spec = read_circuit(file)
    tell_diagnostics(spec.warnings)
    if stage is None:
        from quanta_compiler.spec import to_yaml

        print_result(to_yaml(spec))
    elif stage == "kernel":
        from quanta_compiler.kernels.engines.triton.text import kernel_text

        print_result(kernel_text(spec))
    else:
        with without_numpy():
            from quanta_compiler.report.stages import STAGES

        print_result(STAGES[stage](spec))
