"""`quanta kernel`: what a circuit's kernels need of a GPU, compiled here without one."""

from typing import Annotated

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.cli.options import File, Json, completed, one_of, split_names
from quanta_compiler.kernels.engines.triton.architectures import DTYPES, NAMES
from quanta_compiler.text.console import print_json, print_tables, progress_bar, tell_diagnostics


def _known(arches: str) -> str:
    for name in split_names(arches):
        if name not in NAMES:  # names are near each other that mean other GPUs: none is guessed
            raise typer.BadParameter(f"{name!r} is no architecture: choose some of {', '.join(NAMES)}")
    return arches


@guarded
def kernel(
    file: File,
    arch: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            callback=_known,
            autocompletion=completed(NAMES),
            help="Which GPUs, with commas between them: sm_80 (A100), sm_86, sm_89, sm_90 (H100), sm_100, ...",
        ),
    ] = "sm_80,sm_90",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="DTYPE",
            callback=one_of("dtype", DTYPES),
            autocompletion=completed(DTYPES),
            help=f"Of the vectors: {', '.join(DTYPES)}.",
        ),
    ] = DTYPES[0],
    gates: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            callback=one_of("dtype", DTYPES),
            autocompletion=completed(DTYPES),
            help="Of the gates; by default as the vectors.",
        ),
    ] = None,
    *,
    difference: Annotated[
        bool, typer.Option("--difference", help="Of T x - S x, as an adapted layer computes it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what the GPU kernels need.

    Registers, spilled bytes, shared memory and matrix instructions by kernel and tiling, and what is launched: the
    first tiling that fits, otherwise the fewest kernels, otherwise what torch does. Triton compiles without a GPU;
    nothing runs, and no time is measured.
    """
    from quanta_compiler.cli.circuit_files import read_circuit

    spec = read_circuit(file)
    tell_diagnostics(spec.warnings)
    from quanta_compiler.kernels.engines.triton.needs import kernel_needs
    from quanta_compiler.kernels.engines.triton.tables import needs_tables

    with progress_bar() as progress:
        needs = kernel_needs(spec, split_names(arch), dtype, gates or dtype, progress, difference=difference)
    if as_json:
        print_json(needs.to_dict())
    else:
        print_tables(needs_tables(needs))
