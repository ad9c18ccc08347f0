"""What `--help` prints: the same plain text everywhere, with bold headings on a terminal, and examples at its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand

from quanta_compiler.presets import DEFAULT, REFERENCE
from quanta_compiler.presets import EXAMPLES as PRESETS
from quanta_compiler.text.console import is_terminal

_GLUE = {ord(" "): "\N{NO-BREAK SPACE}", ord("-"): "\N{NON-BREAKING HYPHEN}"}

EXAMPLES: dict[str, tuple[str, ...]] = {
    "new": (
        "quanta new my-circuit --in 3072 > circuit.yaml",
        "quanta new my-circuit --layout 16x8x8x4 > circuit.yaml",
        f"quanta new --preset {REFERENCE} > preset.yaml",
    ),
    "check": (
        "quanta check circuit.yaml",
        "quanta new --in 3072 | quanta check -",
    ),
    "draw": (
        "quanta draw circuit.yaml",
        "quanta draw circuit.yaml -o circuit.svg",
    ),
    "watch": ("quanta watch circuit.yaml --open",),
    "expand": (
        "quanta expand circuit.yaml",
        "quanta expand circuit.yaml --stage plan",
    ),
    "schema": ("quanta schema > circuit.schema.json",),
    "compile": (
        "quanta compile circuit.yaml -o build",
        "quanta compile circuit.yaml -o build --check",
    ),
    "report": (
        "quanta report circuit.yaml",
        "quanta report circuit.yaml -o report.html",
    ),
    "verify": ("quanta verify circuit.yaml",),
    "compare": (
        f"quanta compare circuit.yaml -b {' -b '.join(PRESETS)} -b dense",
        f"quanta compare circuit.yaml -b {REFERENCE} --sort trainable -o compare.html",
        f"quanta compare -b {REFERENCE} -b {DEFAULT} --model examples/models/llama3-8b",
    ),
    "recommend": (
        "quanta recommend --model meta-llama/Llama-3.2-1B --budget 0.05%",
        "quanta recommend --model examples/models/llama3-8b --budget 2M -o circuits",
    ),
    "search": ("quanta search --in 768 --out 768 --axes 3 --max-parameters 20k",),
    "bench": (
        "quanta bench circuit.yaml",
        "quanta bench circuit.yaml --tokens 512 --only dense -o bench.svg",
        "quanta bench --calibrate",
    ),
    "kernel": (
        "quanta kernel circuit.yaml --arch sm_90",
        "quanta kernel circuit.yaml --difference",
        "quanta kernel circuit.yaml --gates float32 --json",
    ),
    "analyze": (
        "quanta analyze adapter",
        "quanta analyze adapter other-adapter -o ranks.svg",
        "quanta analyze adapter --shrink 0.01 -o smaller",
    ),
    "import": ("quanta import checkpoint.safetensors -o adapter",),
}
"""What each command is shown with, as it may be typed in a clone of the repository, beside a `circuit.yaml`."""


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
    """A command, with its examples at the end of its help."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, a line for each."""
        with formatter.section(heading("Examples")):
            for line in EXAMPLES[self.name or ""]:
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
