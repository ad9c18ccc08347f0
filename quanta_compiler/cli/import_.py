"""`quanta import`: a checkpoint of the paper's code, turned into an adapter."""

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from quanta_compiler.cli.command import guarded
from quanta_compiler.cli.options import regex
from quanta_compiler.system.extras import PEFT, require
from quanta_compiler.text.console import print_json, print_tables, progress_bar, tell_diagnostics


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
        parsed.append((regex(found["pattern"]).pattern, (int(found["inputs"]), int(found["outputs"]))))
    return tuple(parsed)


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
        typer.Option(metavar="LAYOUT", help="The axes, such as 16x8x8x4, where the gates do not tell all of them."),
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
    scale: Annotated[float, typer.Option(metavar="NUMBER", help="Multiplies the update.")] = 1.0,
    no_frozen_copy: Annotated[
        bool, typer.Option("--no-frozen-copy", help="The update is T alone: S was subtracted from the base weights.")
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
    with progress_bar("reading"):
        adapter = import_paper_adapter(state_dict, options)
    tell_diagnostics(adapter.warnings)
    paths = write_adapter(adapter.config, adapter.tensors, folder, source=state_dict, force=force)
    if as_json:
        print_json({"files": {kind: str(path) for kind, path in paths.items()}, **adapter.to_dict()})
    else:
        print_tables(import_tables(adapter, paths))
