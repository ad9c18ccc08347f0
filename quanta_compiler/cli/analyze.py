"""`quanta analyze`: what saved adapters have learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.cli.options import completed, picture_name, regex, wrong_option
from quanta_compiler.runtime.backends import DEVICES
from quanta_compiler.system.extras import PEFT, require
from quanta_compiler.text.console import print_json, print_tables, progress_bar, tell, tell_diagnostics

if TYPE_CHECKING:
    import re

    import torch

PICTURES = (".svg", ".html", ".png", ".pdf")
_TOP = 4
_VECTORS = 128
"""How many singular vectors of two adapters are compared unless something else is asked for: the paper's Figure 2."""


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
            "--output",
            "-o",
            metavar="PATH",
            help=f"Draw a picture: {', '.join(PICTURES)}; with --shrink the folder of the smaller adapter.",
        ),
    ] = None,
    shrink: Annotated[
        float | None,
        typer.Option(
            metavar="ENERGY",
            help="Write a smaller adapter that keeps all but this part of each update's energy: 0.01, say.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an adapter, with --shrink.")] = False,
    layers: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only the layers in whose name it is found.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=1, show_default=str(_TOP), help="How many singular values are printed."),
    ] = None,
    vectors: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            min=1,
            show_default=str(_VECTORS),
            help="How many singular vectors of two adapters are compared.",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="DEVICE", autocompletion=completed(DEVICES), help="Where to compute: cpu, cuda, ..."),
    ] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; problems too.")] = False,
) -> None:
    """Look at what adapters have learned.

    For every layer: the numerical, the effective (exp of the entropy of the singular values) and the stable rank of
    the update, its Frobenius norm and its largest singular values. The first adapter is compared with each of the
    others: phi(i, j) is how much of the first i and j right singular vectors' subspaces coincide, from 0 to 1. Reads
    adapters of circuits and of PEFT's LoRA.

    With --shrink, lower ranks, thinner bonds and fewer angles (K') instead, and what they cost: for every layer whose
    update has no frozen copy, as much as the loss of energy, of the squared Frobenius norm, allows.
    """
    pattern = None if layers is None else regex(layers)
    if shrink is not None:
        for option, value in {"--top": top, "--vectors": vectors}.items():
            if value is not None:
                raise wrong_option(option, "a smaller adapter has no singular values to print: leave it out")
        _shrink(adapters, shrink, output, pattern, device, force=force, as_json=as_json)
        return
    top, vectors = top or _TOP, vectors or _VECTORS
    picture_name(PICTURES)(output)
    if output is not None:
        require("a picture", "matplotlib")
    require("`quanta analyze`", "safetensors")
    from quanta_compiler.adapters.analysis import analyze as analyze_adapters
    from quanta_compiler.adapters.saved import read_adapter
    from quanta_compiler.adapters.tables import analysis_tables

    chosen_device = _device(device)
    with progress_bar("reading") as progress:
        saved = [read_adapter(folder, pattern) for folder in adapters]
        progress.begin("layers", sum(len(adapter.updates) for adapter in saved))
        analysis = analyze_adapters(saved, vectors=vectors, device=chosen_device, advance=progress.advance)
    tell_diagnostics([warning for adapter in saved for warning in adapter.warnings])
    if output is not None:
        from quanta_compiler.adapters.pictures import write_picture

        tell_diagnostics(write_picture(analysis, output, top))
        tell(str(output))
    if as_json:
        print_json(analysis.to_dict(top))
    else:
        print_tables(analysis_tables(analysis, top))


def _shrink(
    adapters: list[Path],
    energy: float,
    folder: Path | None,
    layers: re.Pattern[str] | None,
    device: str,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Write a smaller adapter, and print what became of its layers."""
    if not 0 < energy < 1:
        raise wrong_option("--shrink", f"{energy:g} is no part of the energy: write a number between 0 and 1, say 0.01")
    if folder is None:
        raise wrong_option("--output", "say with -o DIR where the smaller adapter goes")
    if len(adapters) > 1:
        raise wrong_option("--shrink", f"one adapter is shrunk at a time, and {len(adapters)} are given")
    require("`quanta analyze --shrink`", *PEFT)
    from quanta_compiler.adapters.output import WEIGHTS_FILE, refuse_existing, write_adapter
    from quanta_compiler.adapters.saved import read_adapter
    from quanta_compiler.adapters.shrunk import shrink_adapter
    from quanta_compiler.adapters.tables import shrunk_tables

    source = adapters[0] / WEIGHTS_FILE
    refuse_existing(folder, source, force=force)
    chosen_device = _device(device)
    with progress_bar("reading") as progress:
        saved = read_adapter(adapters[0])
        progress.begin("layers", len(saved.updates))
        shrunk = shrink_adapter(saved, energy, layers, device=chosen_device, advance=progress.advance)
    paths = write_adapter(shrunk.config, shrunk.tensors, folder, source=source, force=force)
    if as_json:
        print_json({"files": {kind: str(path) for kind, path in paths.items()}, "energy": energy, **shrunk.to_dict()})
    else:
        print_tables(shrunk_tables(shrunk, paths))
