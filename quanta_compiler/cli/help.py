"""What `--help` prints: the same plain text everywhere, with bold headings on a terminal, and examples at its end."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand

from quanta_compiler.text.console import is_terminal

_GLUE = {ord(" "): "\N{NO-BREAK SPACE}", ord("-"): "\N{NON-BREAKING HYPHEN}"}


class Page:
    """How commands, and the list of them, lay out their help."""

    def get_help(self, ctx: Any) -> str:
        """Return the help, what had to stay on one line written as usual again."""
        text: str = super().get_help(ctx)  # type: ignore[misc]
        return text.translate({ord(glue): plain for plain, glue in _GLUE.items()})

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name: an argument that may be left out is in brackets."""
        arguments = [one for one in self._shown(ctx) if one.param_type_name == "argument"]
        return ["[OPTIONS]", *(one.metavar if one.required else f"[{one.metavar}]" for one in arguments)]

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the line of the usage."""
        pieces = " ".join(self.collect_usage_pieces(ctx))
        formatter.write_usage(ctx.command_path, pieces, prefix=heading("Usage: "))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options, each with a word for its value, and its default."""
        for title, type_name in (("Arguments", "argument"), ("Options", "option")):
            rows = [_row(one) for one in self._shown(ctx) if one.param_type_name == type_name]
            if rows:
                with formatter.section(heading(title)):
                    formatter.write_dl(rows)

    def _shown(self, ctx: Any) -> Iterator[Any]:
        parameters: list[Any] = self.get_params(ctx)  # type: ignore[attr-defined]
        return (one for one in parameters if not one.hidden)


class Command(Page, TyperCommand):
    """A command; the examples of its help are those that its docstring ends with."""

    def __init__(self, *args: Any, help: str | None = None, **options: Any) -> None:
        text, _, examples = inspect.cleandoc(help or "").partition("\n\nExamples:\n")
        super().__init__(*args, help=text, **options)
        self.examples = tuple(line.strip() for line in examples.splitlines())

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, a line for each."""
        with formatter.section(heading("Examples")):
            for line in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def heading(text: str) -> str:
    """Return a heading, bold where it goes to a terminal."""
    return _styled(text, bold=True)


def coloured(text: str) -> str:
    """Return the name of a command or of an option, coloured where it goes to a terminal."""
    return _styled(text, fg="cyan")


def _styled(text: str, **style: Any) -> str:
    return typer.style(text, **style) if is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") else text


def _row(parameter: Any) -> tuple[str, str]:
    """Return an argument or an option, and what its help says of it."""
    if parameter.param_type_name == "argument":
        return coloured(parameter.metavar), parameter.help
    names = ", ".join(map(coloured, sorted(parameter.opts, key=len)))
    said = parameter.help.replace("-", _GLUE[ord("-")])
    if parameter.is_flag:
        return names, said
    remarks = ["required"] if parameter.required else []
    if parameter.default is not None:
        remarks.append(f"default: {parameter.default}")
    return f"{names} {parameter.metavar}", said + "".join(f" {f'[{one}]'.translate(_GLUE)}" for one in remarks)
