"""`quanta new`: options parsed, a circuit file printed."""

from __future__ import annotations

from typing import Annotated

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.text.console import print_result


@guarded
def new(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The circuit's name.", show_default=False)] = None,
    *,
    layout: Annotated[
        str | None, typer.Option(metavar="L", help="The axes, such as 16x8x8x4; their product is the layer's width.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="P", help="A family by name: lora, krona, tt, ...; its options beside it.")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(metavar="R", help="Of lora, tt, loretta, btt and quantum_peft: the rank (of bonds).")
    ] = None,
    tt_rank: Annotated[int | None, typer.Option(metavar="R", help="Of loretta: the rank of its bonds.")] = None,
    blocks: Annotated[int | None, typer.Option(metavar="N", help="Of monarch: how many blocks.")] = None,
    block_rank: Annotated[int | None, typer.Option(metavar="R", help="Of monarch: the rank of a block.")] = None,
    layers: Annotated[
        int | None, typer.Option(metavar="L", help="Of quantum_peft and quantum_peft_full: the layers of its circuits.")
    ] = None,
    in_features: Annotated[
        int | None,
        typer.Option(
            "--in-features", "--in", metavar="N", help="The input's width; by default that of the axes, or 4096."
        ),
    ] = None,
    out_features: Annotated[
        int | None,
        typer.Option("--out-features", "--out", metavar="N", help="The output's width; by default likewise."),
    ] = None,
) -> None:
    """Print a circuit file to start from.

    It is complete and valid as it stands, with comments on what else can be written in it.
    """
    from quanta_compiler.cli.templates import TemplateError, circuit_template, preset_template

    numbers = {"rank": rank, "tt_rank": tt_rank, "blocks": blocks, "block_rank": block_rank, "layers": layers}
    given = {"layout": layout, **numbers}
    options = {key: value for key, value in given.items() if value is not None}
    try:
        if preset is not None:
            text = preset_template(preset, options, name, in_features, out_features)
        else:
            text = circuit_template(options, name, in_features, out_features)
    except TemplateError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{error.option}'") from None
    print_result(text)
