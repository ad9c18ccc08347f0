"""The command `quanta`: every command parses, calls the compiler, prints, and leaves an exit code.

Modules are imported where a command needs them, so that every command answers at once.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import Annotated

import typer

from quanta_compiler import __version__
from quanta_compiler.cli.analyze import analyze
from quanta_compiler.cli.bench import bench
from quanta_compiler.cli.check import check
from quanta_compiler.cli.compare import compare
from quanta_compiler.cli.compile import compile_
from quanta_compiler.cli.draw import draw
from quanta_compiler.cli.expand import expand
from quanta_compiler.cli.import_ import import_
from quanta_compiler.cli.new import NewCommand, new
from quanta_compiler.cli.report import report
from quanta_compiler.cli.schema import schema
from quanta_compiler.cli.search import search
from quanta_compiler.cli.verify import verify
from quanta_compiler.text.console import is_terminal, print_result

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


app.command(cls=NewCommand)(new)
for _command in (*(check, expand, compile_, report, draw, verify, schema, import_, analyze, bench, compare, search),):
    # `compile` is a builtin and `import` a keyword.
    app.command(name=_command.__name__.rstrip("_"))(_command)


def main() -> None:
    """Run the command line."""
    # Plugins of pydantic are looked for in every installed package, which takes longer than most commands.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    # torch says so as it is imported without numpy, which nothing here needs.
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")
    # Imports make many objects and hardly any garbage: looking for it at the usual rate takes a tenth of the time.
    gc.set_threshold(50_000)
    app(prog_name="quanta")
