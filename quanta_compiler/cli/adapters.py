"""`quanta import` and `quanta analyze`: options parsed, the work done elsewhere, results printed."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_compiler.system.extras import PEFT, require
from quanta_compiler.text.console import guarded, is_terminal, print_json, print_tables, tell_diagnostics

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress

PICTURES = (".svg", ".html", ".png", ".pdf")
_VECTORS = 128
"""How many singular vectors of two adapters are compared unless something else is asked for: the paper's Figure 2."""


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(name="import")(import_)
    app.command(name="analyze")(analyze)


def _layout(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,5}([x-][1-9]\d{0,5}){1,31}", text):
        raise typer.BadParameter(f"{text!r} is no layout: write the sizes of at least two axes, such as 16x8x8x4")
    return tuple(int(size) for size in re.split("[x-]", text))


def _features(texts: list[str]) -> tuple[tuple[str, tuple[int, int]], ...]:
    parsed = []
    for text in texts:
        found = re.fullmatch(r"(?P<pattern>.+)=(?P<inputs>[1-9]\d{0,8}):(?P<outputs>[1-9]\d{0,8})", text)
        if found is None:
            raise typer.BadParameter(f"{text!r} is not PATTERN=IN:OUT, such as k_proj=8192:1024")
        parsed.append((_regex(found["pattern"]).pattern, (int(found["inputs"]), int(found["outputs"]))))
    return tuple(parsed)


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise typer.BadParameter(f"{text!r} is no regular expression: {error}") from None


@guarded
def import_(
    state_dict: Annotated[
        Path, typer.Argument(metavar="STATE_DICT", help="The file: safetensors, or tensors alone in torch's format.")
    ],
    *,
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The adapter's folder; made where it is missing.")
    ],
    layout: Annotated[
        str | None,
        typer.Option(metavar="L", help="The axes, such as 16x8x8x4, where the gates do not tell all of them."),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=IN:OUT",
            help="The features of layers whose base weight is not in the file; by default the product of the axes. "
            "Repeatable.",
        ),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The base model's name, written into the adapter.")
    ] = None,
    scale: Annotated[float, typer.Option(metavar="S", help="Multiplies the update.")] = 1.0,
    no_frozen_copy: Annotated[
        bool,
        typer.Option("--no-frozen-copy", help="The update is T alone: S was subtracted from the base weights."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an adapter.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; problems too.")] = False,
) -> None:
    """Turn a state dict of the QuanTA paper's code into an adapter.

    Gates are the tensors `....quanta_weights.-1 -2`, their frozen copies those of `quanta_weights2`. DIR gets
    adapter_config.json and adapter_model.safetensors, which PEFT loads.
    """
    if not math.isfinite(scale):
        raise typer.BadParameter("the scale is a finite number", param_hint="'--scale'")
    parsed_layout, parsed_features = _layout(layout), _features(features or [])
    require("`quanta import`", *PEFT)
    from quanta_compiler.adapters.output import refuse_existing, write_adapter
    from quanta_compiler.adapters.paper_import import ImportOptions, import_paper_adapter
    from quanta_compiler.adapters.tables import import_tables

    refuse_existing(folder, state_dict, force=force)
    options = ImportOptions(parsed_layout, parsed_features, not no_frozen_copy, scale, base_model)
    with _progress():
        adapter = import_paper_adapter(state_dict, options)
    tell_diagnostics(adapter.warnings)
    paths = write_adapter(adapter.config, adapter.tensors, folder, source=state_dict, force=force)
    if as_json:
        print_json({"files": {kind: str(path) for kind, path in paths.items()}, **adapter.to_dict()})
    else:
        print_tables(import_tables(adapter, paths))


def _picture(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in PICTURES:
        raise typer.BadParameter(f"{str(path)!r} should end in one of {', '.join(PICTURES)}")
    return path


def _device(name: str) -> torch.device:
    import torch

    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise typer.BadParameter(str(error).splitlines()[0], param_hint="'--device'") from None


@guarded
def analyze(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="Folders of saved adapters.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", callback=_picture, help=f"Draw a picture: {', '.join(PICTURES)}."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only the layers in whose name it is found.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="How many singular values are printed.")] = 4,
    vectors: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many singular vectors of two adapters are compared.")
    ] = _VECTORS,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where to compute: cpu, cuda, ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; problems too.")] = False,
) -> None:
    """Look at what adapters have learned.

    For every layer: the numerical, the effective (exp of the entropy of the singular values) and the stable rank of
    the update, its Frobenius norm and its largest singular values. The first adapter is compared with each of the
    others: phi(i, j) is how much of the first i and j right singular vectors' subspaces coincide, from 0 to 1. Reads
    adapters of circuits and of PEFT's LoRA.
    """
    pattern = None if layers is None else _regex(layers)
    if output is not None:
        require("a picture", "matplotlib")
    require("`quanta analyze`", "safetensors")
    from quanta_compiler.adapters.analyze import analyze as analyze_adapters
    from quanta_compiler.adapters.saved import read_adapter
    from quanta_compiler.adapters.tables import analysis_tables

    chosen_device = _device(device)
    with _progress() as progress:
        saved = [read_adapter(folder, pattern) for folder in adapters]
        progress.begin(sum(len(adapter.updates) for adapter in saved))
        analysis = analyze_adapters(saved, vectors=vectors, device=chosen_device, advance=progress.advance)
    tell_diagnostics([warning for adapter in saved for warning in adapter.warnings])
    if output is not None:
        from quanta_compiler.adapters.pictures import write_picture

        tell_diagnostics(write_picture(analysis, output, top))
    if as_json:
        print_json(analysis.to_dict(top))
    else:
        print_tables(analysis_tables(analysis, top))


class _Silent:
    """Takes progress where nobody looks."""

    def begin(self, total: int) -> None:
        """Set how many layers there are."""

    def advance(self) -> None:
        """Count a layer."""


class _Bar(_Silent):
    """Shows progress as a bar of rich."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading", total=None)

    def begin(self, total: int) -> None:
        self._progress.update(self._task, description="layers", total=total)

    def advance(self) -> None:
        self._progress.advance(self._task)


@contextmanager
def _progress() -> Iterator[_Silent]:
    """Show a bar on stderr where a person looks at it; loading PEFT takes seconds, too."""
    if not is_terminal(sys.stderr):
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)
