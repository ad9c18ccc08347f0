"""`quanta draw`: the circuit as a picture, in text or in a file."""

from pathlib import Path
from typing import Annotated

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.cli.options import File
from quanta_compiler.text.console import can_draw_boxes, drawing_width, print_result, tell_diagnostics


@guarded
def draw(
    file: File,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.svg", help="Write an SVG picture instead of text.")
    ] = None,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw without box-drawing characters.")] = False,
) -> None:
    """Draw the circuit.

    A wire for every axis with its size, a box for every gate; gates that can act at once share a column.
    """
    from quanta_compiler.cli.circuit_files import read_circuit, write_beside
    from quanta_compiler.ir.build import build_circuit

    if output is not None and output.suffix.lower() != ".svg":
        raise typer.BadParameter(f"the picture is SVG: {str(output)!r} should end in .svg", param_hint="'-o'")
    spec = read_circuit(file)
    tell_diagnostics(spec.warnings)
    circuit = build_circuit(spec)
    if output is None:
        from quanta_compiler.report.text_diagram import render_text

        only = ascii_only or not can_draw_boxes()
        print_result(render_text(circuit, width=drawing_width(), ascii_only=only))
    else:
        from quanta_compiler.report.svg import render_svg

        write_beside(file, output, render_svg(circuit))
        print_result(str(output))
