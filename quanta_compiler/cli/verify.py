"""`quanta verify`: the compiled module run beside the reference."""

from typing import Annotated

import typer

from quanta_compiler.cli.command import FAILED, guarded
from quanta_compiler.cli.options import File, Json, MaxBytes, Tokens
from quanta_compiler.text.console import print_json, print_tables


@guarded
def verify(
    file: File,
    max_bytes: MaxBytes = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, max=2**63 - 1, help="Draws gates and input.")] = 0,
    tokens: Tokens = None,
    as_json: Json = False,
) -> None:
    """Test the compiled module.

    It runs in float32 on well-scaled random gates, forward and operator(), beside a float64 reference that applies
    gate by gate; the check fails where they differ by more than 1e-5 of the norm.
    """
    from quanta_compiler.cli.circuit_files import compile_file
    from quanta_compiler.oracle.verification import verification_table
    from quanta_compiler.oracle.verification import verify as verify_module

    compiled = compile_file(file, tokens)
    result = verify_module(compiled, seed=seed, max_bytes=max_bytes)
    if as_json:
        print_json(result.to_dict())
    else:
        print_tables([verification_table(result)])
    if not result.passed:
        raise typer.Exit(FAILED)
