"""The command `quanta`: every command parses, calls the compiler, prints, and leaves an exit code.

Modules are imported where a command needs them, so that every command answers at once.
"""

import gc
import os
import warnings
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core

from quanta_compiler import __version__
from quanta_compiler.cli.help import Command, Page, coloured, heading
from quanta_compiler.text.console import print_result

_EPILOG = "Exit status: 0 done, 1 the input is wrong or the check failed, 2 wrong usage, 3 a limit was reached."

GROUPS = {
    "Write a circuit": ("new", "check", "draw", "watch", "expand", "schema"),
    "Compile it": ("compile", "report", "verify"),
    "Choose one": ("compare", "recommend", "search"),
    "Measure and analyze": ("bench", "kernel", "analyze", "import"),
}
"""The commands in the order of work, as help lists them."""
COMMANDS = tuple(command for commands in GROUPS.values() for command in commands)
"""For each the module that has its name, and the function in it."""


class _Commands(Page, typer.core.TyperGroup):
    """The commands, each loaded where it is called or listed: none waits for the options of the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            # Those that there are, for the message that suggests one.
            self.commands = {name: _loaded(name) for name in COMMANDS}
            return None
        return _loaded(cmd_name)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "COMMAND ..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in GROUPS.items():
            with formatter.section(heading(title)):
                rows = [(coloured(f"{one:{width}}"), _loaded(one).get_short_help_str(100)) for one in commands]
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)


def _loaded(name: str) -> Any:
    # `import` is a keyword and `compile` a builtin.
    module = import_module(f"quanta_compiler.cli.{'import_' if name == 'import' else name}")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    function = getattr(module, f"{name}_" if name in ("import", "compile") else name)
    alone.command(name=name, cls=getattr(module, "COMMAND", Command))(function)
    return typer.main.get_command(alone)


app = typer.Typer(
    name="quanta",
    cls=_Commands,
    help="Compile circuits of small matrices (QuanTA, KronA, LoRA, tensor trains, ...) to PyTorch modules.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text, on a terminal too: panels leave help half of the line.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
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


def run() -> None:
    """Run the command line."""
    # Plugins of pydantic are looked for in every installed package, which takes longer than most commands.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    # torch says so as it is imported without numpy, which nothing here needs.
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")
    # Imports make many objects and hardly any garbage: looking for it at the usual rate takes a tenth of the time.
    gc.set_threshold(50_000)
    app(prog_name="quanta")
