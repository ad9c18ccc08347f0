"""`quanta new`: options parsed, a circuit file printed."""

from functools import cache
from inspect import Parameter, Signature
from typing import Annotated, Any

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.cli.help import Command
from quanta_compiler.cli.options import completed, width
from quanta_compiler.text.console import print_result


class NewCommand(Command):
    """The command with the options of all families, looked up where it runs."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return what the function takes, then the families' options, and `--help`."""
        *own, asks_help = super().get_params(ctx)
        return [*own, *_family_parameters(), asks_help]

    def invoke(self, ctx: Any) -> Any:
        """Run the function, with the families' options that were given as the context's object."""
        given = {option.name: ctx.params.pop(option.name) for option in _family_parameters()}
        ctx.obj = {option: value for option, value in given.items() if value is not None}
        return super().invoke(ctx)


COMMAND = NewCommand


@cache
def _family_parameters() -> list[Any]:
    """Return the options that name a family and set its numbers, as typer makes them of a function's arguments."""
    from quanta_compiler.presets import EXAMPLES
    from quanta_compiler.presets.table import PRESETS, flags

    help_of_preset = f"A family by name: {', '.join(PRESETS)}; its options beside it."
    choice = typer.Option(metavar="PRESET", autocompletion=completed((*PRESETS, *EXAMPLES)), help=help_of_preset)
    types: dict[str, Any] = {"preset": Annotated[str | None, choice]}
    for option, text in flags().items():
        types[option] = Annotated[int | None, typer.Option(metavar="COUNT", help=text)]

    def families(**_options: Any) -> None:
        pass

    arguments = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=types[name]) for name in types]
    families.__signature__ = Signature(arguments)  # type: ignore[attr-defined]
    families.__annotations__ = types
    app = typer.Typer(add_completion=False)
    app.command()(families)
    return typer.main.get_command(app).params


@guarded
def new(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The circuit's name.", show_default=False)] = None,
    *,
    layout: Annotated[
        str | None,
        typer.Option(metavar="LAYOUT", help="The axes, such as 16x8x8x4, whose product is the width."),
    ] = None,
    in_features: Annotated[
        int | None,
        typer.Option(
            "--in-features",
            "--in",
            metavar="WIDTH",
            parser=width(),
            help="The input's width; by default that of the axes, or 4096.",
        ),
    ] = None,
    out_features: Annotated[
        int | None,
        typer.Option(
            "--out-features", "--out", metavar="WIDTH", parser=width(), help="The output's width; by default likewise."
        ),
    ] = None,
) -> None:
    """Print a circuit file to start from.

    It is complete and valid as it stands, with comments on what else can be written in it.
    """
    from quanta_compiler.cli.templates import circuit_template, preset_template

    options: dict[str, Any] = dict(context.obj)
    preset = options.pop("preset", None)
    if layout is not None:
        options["layout"] = layout
    if preset is not None:
        text = preset_template(preset, options, name, in_features, out_features)
    else:
        text = circuit_template(options, name, in_features, out_features)
    print_result(text)
