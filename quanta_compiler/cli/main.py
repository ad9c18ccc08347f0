"""The command `quanta`: every command parses, calls the compiler, prints, and leaves an exit code.

Modules are imported where a command needs them, so that every command answers at once.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from quanta_compiler import __version__
from quanta_compiler.cli import adapters as adapter_commands
from quanta_compiler.cli import bench as bench_command
from quanta_compiler.cli import compare as compare_command
from quanta_compiler.cli import search as search_command
from quanta_compiler.text.console import (
    FAILED,
    can_draw_boxes,
    drawing_width,
    guarded,
    is_terminal,
    print_json,
    print_result,
    print_tables,
    tell,
    tell_diagnostics,
    without_numpy,
)

_EPILOG = "Exit status: 0 done, 1 the input is wrong or the check failed, 2 wrong usage, 3 a limit was reached."

app = typer.Typer(
    name="quanta",
    help="Compile circuits of small matrices (QuanTA, KronA, LoRA, tensor trains, ...) to PyTorch modules.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Panels and colours are for people: a pipe gets plain help.
    rich_markup_mode="markdown" if is_terminal(sys.stdout) and is_terminal(sys.stderr) else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[str, typer.Argument(metavar="FILE", help="The circuit file; `-` is standard input.")]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--tokens", metavar="N", min=1, max=2**31, help="Plan for batches of N tokens, whatever the file says."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; problems too, as a list of diagnostics.")]


def main() -> None:
    """Run the command line."""
    # Plugins of pydantic are looked for in every installed package, which takes longer than most commands.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    # torch says so as it is imported without numpy, which nothing here needs.
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")
    # Imports make many objects and hardly any garbage: looking for it at the usual rate takes a tenth of the time.
    gc.set_threshold(50_000)
    app(prog_name="quanta")


def _print_version(asked: bool) -> None:
    if asked:
        print_result(f"quanta {__version__}")
        raise typer.Exit


@app.callback()
def _quanta(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
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


@app.command()
@guarded
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Circuit files; `-` is standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print problems and warnings as a JSON list.")] = False,
) -> None:
    """Validate circuit files.

    Every problem is printed with its place, the line itself, and a hint.
    """
    from quanta_compiler.cli.circuit_files import check_file
    from quanta_compiler.report.terminal import plural

    checked = []
    for file in files:
        result = check_file(file)
        checked.append(result)
        if not as_json:
            tell_diagnostics(result.diagnostics, result.omitted)
            if result.circuit is not None:
                print_result(result.verdict())
    if as_json:
        print_json([diagnostic.to_dict() for result in checked for diagnostic in result.diagnostics])
    wrong = [result for result in checked if result.errors]
    if not wrong:
        return
    if not as_json:
        problems = plural(sum(result.errors for result in wrong), "problem")
        tell(f"{problems} in {len(wrong)} of {plural(len(files), 'file')}")
    raise typer.Exit(FAILED)


def _check_stage(stage: str | None) -> str | None:
    # Named again here so that usage and help need not load the compiler; a test compares.
    if stage is not None and stage not in STAGE_NAMES:
        raise typer.BadParameter(f"{stage!r} is no stage: choose one of {', '.join(STAGE_NAMES)}")
    return stage


STAGE_NAMES = ("circuit", "network", "plan", "program", "table", "source")


@app.command()
@guarded
def expand(
    file: File,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="S", callback=_check_stage, help=f"What a later stage holds instead: {', '.join(STAGE_NAMES)}."
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
    else:
        with without_numpy():
            from quanta_compiler.report.stages import STAGES

        print_result(STAGES[stage](spec))


@app.command(name="compile")
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

    compiled, warnings = compile_file(file, tokens)
    tell_diagnostics(warnings)
    refuse_to_overwrite(file, [folder / name for name, _ in compiled.files().values()])
    paths = compiled.write(folder, force=force)
    if as_json:
        print_json({"files": {kind: str(path) for kind, path in paths.items()}, "report": compiled.report.to_dict()})
    else:
        print_tables([files_table(paths), summary_table(compiled.report)])


@app.command()
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
    from quanta_compiler.cli.circuit_files import compile_file, refuse_to_overwrite
    from quanta_compiler.report.terminal import report_tables

    if output is not None and output.suffix.lower() != ".html":
        raise typer.BadParameter(f"the page is HTML: {str(output)!r} should end in .html", param_hint="'-o'")
    compiled, warnings = compile_file(file, tokens)
    tell_diagnostics(warnings)
    if output is not None:
        from quanta_compiler.emit.files import write_file

        refuse_to_overwrite(file, [output])
        write_file(output, compiled.page())
    if as_json:
        print_result(compiled.report.to_json())
    elif output is not None:
        print_result(str(output))
    else:
        print_tables(report_tables(compiled.report))


@app.command()
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
    from quanta_compiler.cli.circuit_files import read_circuit, refuse_to_overwrite
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
        from quanta_compiler.emit.files import write_file
        from quanta_compiler.report.svg import render_svg

        refuse_to_overwrite(file, [output])
        write_file(output, render_svg(circuit))
        print_result(str(output))


@app.command()
@guarded
def verify(
    file: File,
    max_bytes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Stop rather than take more memory; by default half of what is free."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**63 - 1, help="Draws the gates and the input.")] = 0,
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

    compiled, warnings = compile_file(file, tokens)
    tell_diagnostics(warnings)
    result = verify_module(compiled, seed=seed, max_bytes=max_bytes)
    if as_json:
        print_json(result.to_dict())
    else:
        print_tables([verification_table(result)])
    if not result.passed:
        raise typer.Exit(FAILED)


@app.command()
@guarded
def schema() -> None:
    """Print the JSON Schema.

    An editor with the YAML language server completes and checks circuit files by it.
    """
    from quanta_compiler.spec.schema import schema_text

    print_result(schema_text())


adapter_commands.register(app)
bench_command.register(app)
compare_command.register(app)
search_command.register(app)
