"""`quanta compare`: options parsed, the figures gathered elsewhere, results printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_compiler.cli.command import FAILED, guarded, without_numpy
from quanta_compiler.cli.model_layers import target_modules
from quanta_compiler.cli.options import Device, Json, Targets, completed, count, families, width
from quanta_compiler.presets import EXAMPLES
from quanta_compiler.runtime.backends import BACKENDS
from quanta_compiler.system.files import write_file
from quanta_compiler.text.console import (
    drawing_width,
    is_terminal,
    print_json,
    print_result,
    print_tables,
    tell,
    tell_diagnostics,
)

if TYPE_CHECKING:
    from quanta_compiler.compare import Comparison


_METHODS = ("dora:8", "mora:8", "series:64", "parallel:64", "prefix:10")


def _baselines(incomplete: str) -> list[str]:
    return ["dense", *EXAMPLES, *_METHODS, *families(incomplete)]


def _sortable(incomplete: str) -> list[str]:
    with without_numpy():
        from quanta_compiler.compare.row import SORTABLE

    return [*SORTABLE]


def _page(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"the page is HTML: {str(path)!r} should end in .html")
    return path


@guarded
def compare(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...",
            help="Circuit files; `-` is standard input. With --model also TARGET=FILE,TARGET=FILE: one for every "
            "target.",
            show_default=False,
        ),
    ] = None,
    *,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            "-b",
            metavar="NAME",
            autocompletion=_baselines,
            help=f"`dense`, a preset (`{'`, `'.join(EXAMPLES)}`), or a method that is no circuit "
            f"(`{'`, `'.join(_METHODS)}`); `dora:` before a preset or a file: with DoRA's magnitudes. Repeatable.",
        ),
    ] = None,
    in_features: Annotated[
        int | None,
        typer.Option("--in", metavar="WIDTH", parser=width(), help="The layer's input; by default that of the files."),
    ] = None,
    out_features: Annotated[
        int | None,
        typer.Option("--out", metavar="WIDTH", parser=width(), help="Its output; by default as wide as the input."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_ID",
            help="Sum over the layers of a model: a folder with a config.json, or an id of the Hub.",
        ),
    ] = None,
    targets: Targets = None,
    tokens: Annotated[
        int, typer.Option(metavar="COUNT", parser=count(1, 2**31), help="The batch to plan for and to time.")
    ] = 2048,
    backend: Annotated[
        str,
        typer.Option(
            metavar="BACKEND",
            autocompletion=completed(BACKENDS),
            help="What runs the circuits: auto, torch or fused.",
        ),
    ] = "auto",
    device: Device = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=1, help="Threads of the calibration; by default the latest."),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            autocompletion=_sortable,
            help="The figure that comes first, by its key in the JSON or its heading.",
        ),
    ] = "step_seconds",
    reverse: Annotated[bool, typer.Option("--reverse", help="The worst first.")] = False,
    rank: Annotated[
        bool, typer.Option("--rank", help="The numerical rank of a random instance; half a minute for 4,096 features.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, max=2**63 - 1, help="Draws that instance.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.html", callback=_page, help="Write a page with a picture as well."
        ),
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Print all columns, not the first six.")] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Compare layouts before training.

    Circuits, presets and other methods in one table: trainable numbers, FLOPs, memory, predicted times, bounds on the
    rank, connectivity; for one layer, or summed over a model. Files that are no circuits are left out and listed.
    """
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv", param_hint="'--csv'")
    if not files and not baselines:
        raise typer.BadParameter("name circuit files, or baselines with --baseline", param_hint="'FILE'")
    from quanta_compiler.cli.circuit_files import refuse_to_overwrite
    from quanta_compiler.diagnostics import refusal

    with without_numpy():
        from quanta_compiler import compare as comparing
        from quanta_compiler.compare.entrants import CompareError, named_files
        from quanta_compiler.compare.tables import HEADINGS
    from quanta_compiler.models.layers import ModelError

    sort = HEADINGS.get(sort.lower(), sort)
    try:
        for text in files or ():
            for file in named_files(text).values():
                refuse_to_overwrite(file, [] if output is None else [output])
        with _progress(slow=rank or model is not None) as tell_next:
            comparison = comparing.compare(
                files or (),
                baselines=baselines or (),
                in_features=in_features,
                out_features=out_features,
                model=model,
                targets=target_modules(targets),
                tokens=tokens,
                backend=backend,
                device=device,
                threads=threads,
                rank=rank,
                seed=seed,
                sort=sort,
                progress=tell_next,
            )
    except CompareError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{error.option}'") from None
    except ModelError as error:
        raise refusal("quanta", str(error), hint=error.hint) from None
    comparison = comparison.sorted_by(sort, reverse=reverse)
    _print(comparison, sort, whole=whole, as_json=as_json, as_csv=as_csv)
    if output is not None:
        _write_page(comparison, output)
    if comparison.failed:
        raise typer.Exit(FAILED)


def _print(comparison: Comparison, sort: str, *, whole: bool, as_json: bool, as_csv: bool) -> None:
    from quanta_compiler.compare.tables import comparison_tables
    from quanta_compiler.presets.starting import starting_notes

    if not as_json:
        tell_diagnostics(comparison.problems)
        if comparison.remark:
            tell(f"note: {comparison.remark}")
        for note in starting_notes({row.family for row in comparison.rows}):
            tell(f"note: {note}")
    if as_json:
        print_json(comparison.to_dict())
    elif as_csv:
        print_result(comparison.to_csv())
    elif comparison.rows:
        print_tables(comparison_tables(comparison, drawing_width(), sort=sort, whole=whole))


def _write_page(comparison: Comparison, output: Path) -> None:
    from quanta_compiler.pages.page import comparison_page

    write_file(output, comparison_page(comparison.to_dict()))
    print(str(output), file=sys.stderr)


@contextmanager
def _progress(*, slow: bool) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is looked at where that takes long and a person waits."""
    if not slow or not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield status.update
