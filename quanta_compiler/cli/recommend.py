"""`quanta recommend`: options parsed, the figures gathered elsewhere, results printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_compiler.cli.command import guarded, without_numpy
from quanta_compiler.cli.options import Device, Json, Targets, count, families
from quanta_compiler.text.console import print_json, print_result, print_tables, tell
from quanta_compiler.text.words import listed

if TYPE_CHECKING:
    from quanta_compiler.recommend.budget import Budget
    from quanta_compiler.recommend.run import Recommendation, Recommended


@guarded
def recommend(
    *,
    model: Annotated[
        str,
        typer.Option(metavar="DIR_OR_ID", help="A folder with a Hugging Face config.json, or a model's id on the Hub."),
    ],
    budget: Annotated[
        str,
        typer.Option(
            metavar="BUDGET", help="What may train in the whole model: a share, such as 0.05%, or a count, such as 2M."
        ),
    ],
    targets: Targets = None,
    family: Annotated[
        str | None,
        typer.Option(
            metavar="FAMILY",
            autocompletion=families,
            help="Print the configuration of this family; by default of the first.",
        ),
    ] = None,
    slower: Annotated[
        float,
        typer.Option(metavar="NUMBER", min=0.1, help="A step of the first is at most NUMBER times that of LoRA r=8."),
    ] = 10,
    tokens: Annotated[int, typer.Option(metavar="COUNT", parser=count(1, 2**31), help="The batch to time.")] = 2048,
    device: Device = "cpu",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write the circuits, a file for each.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files in DIR.")] = False,
    as_json: Json = False,
) -> None:
    """Recommend circuits for a model and a budget.

    For every family that sits beside its layer the largest circuits under the budget, what they cost beside LoRA r=8,
    and the QuantaConfig of one of them. The numbers are dealt out to the layers in proportion to their widths, and what
    is left over to those that larger circuits fit.
    """
    asked = _budget(budget)
    from quanta_compiler.cli.model_layers import read_layers

    layers = read_layers(model, targets)
    with without_numpy():
        from quanta_compiler.compare.figures import Conditions
        from quanta_compiler.compare.run import chosen_calibration
        from quanta_compiler.recommend import recommend as run
    from quanta_compiler.compare.entrants import CompareError

    try:
        conditions = Conditions(tokens, "auto", chosen_calibration(device, None))
    except CompareError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{error.option}'") from None
    made = run(layers, asked, conditions, slower)
    chosen = _chosen(made, family)
    files = {} if output is None else _write(made, output, force=force)
    if as_json:
        extra = {"chosen": chosen.family, "files": files, "remark": layers.remark}
        print_json({**made.to_dict(), **extra})
    else:
        if layers.remark:
            tell(f"note: {layers.remark}")
        _print(made, chosen, files)


def _budget(text: str) -> Budget:
    from quanta_compiler.recommend.budget import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--budget'") from None


def _chosen(made: Recommendation, family: str | None) -> Recommended:
    from quanta_compiler.diagnostics import offered, refusal

    if not made.choices:
        name, reason = next(iter(made.left_out.items()))
        raise refusal(
            "quanta",
            f"no family has a circuit under {made.numbers:,} numbers for {made.model.name} (of {name}: {reason})",
            hint="give a larger --budget, or fewer --targets",
        )
    if family is None:
        return made.choices[0]
    found = made.choice(family)
    if found is None:
        known = [one.family for one in made.choices]
        hint = offered(family, known, f"there is {listed(known, len(known))}", mark="'")
        if family in made.left_out:
            under = f"and the budget is {made.numbers:,}: give a larger --budget, or fewer --targets"
            hint = f"{made.left_out[family]}, {under}"
        raise typer.BadParameter(f"{family!r} is not among the choices: {hint}", param_hint="'--family'")
    return found


def _write(made: Recommendation, folder: Path, *, force: bool) -> dict[str, str]:
    """Write the circuits of all choices; return the path of each by its name."""
    from quanta_compiler.diagnostics import SpecError, problem
    from quanta_compiler.emit.files import write_files
    from quanta_compiler.recommend.files import circuit_files

    files = circuit_files(made)
    hint = "move it away, choose another folder, or overwrite it with --force"
    found = [
        problem(folder / name, "is there already, and is another file", hint=hint)
        for name, text in files.values()
        if (folder / name).is_file() and (folder / name).read_bytes() != text.encode()
    ]
    if found and not force:
        raise SpecError(found)
    return {name: str(path) for name, path in write_files(folder, files, force=force).items()}


def _print(made: Recommendation, chosen: Recommended, files: dict[str, str]) -> None:
    from quanta_compiler.recommend.configuration import configuration
    from quanta_compiler.recommend.tables import recommendation_tables

    print_tables(recommendation_tables(made, chosen))
    circuits = {shape: files.get(one["name"], one) for shape, one in chosen.circuits.items()}
    config = configuration(made.groups, circuits, chosen.starting)
    print_result(f"\nfrom quanta_compiler.peft import QuantaConfig\n\nconfig = {config}\n")
    tell(f"the first is {made.rule}; which learns your task best only training tells")
    for name in files.values():
        tell(name)
