"""`quanta bench`: options parsed, the measurement done elsewhere, results printed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_compiler.bench.options import ADAPTERS, DTYPES, NAMES, ROUNDS, Options
from quanta_compiler.cli.command import FAILED, guarded
from quanta_compiler.cli.options import Json, MaxBytes, completed, count, one_of, picture_option, some_of, split_names
from quanta_compiler.diagnostics import Diagnostic, problem, warning
from quanta_compiler.runtime.backends import DEVICES
from quanta_compiler.system.extras import PEFT, require
from quanta_compiler.system.files import OutputError
from quanta_compiler.system.machine import LimitError, Load, is_crowded
from quanta_compiler.text.console import print_json, print_tables, progress_bar, tell, tell_diagnostics
from quanta_compiler.text.quantities import figure_text, percent_text

if TYPE_CHECKING:
    from quanta_compiler.bench.result import Bench
    from quanta_compiler.driver import CompiledCircuit

PICTURES = (".svg", ".png", ".pdf")


@guarded
def bench(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="The circuit file; `-` is standard input.", show_default=False)
    ] = None,
    *,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="COUNT",
            parser=count(1, 2**31),
            help="The size of the batch; by default what the file plans for.",
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="DTYPE",
            callback=one_of("dtype", DTYPES),
            autocompletion=completed(DTYPES),
            help=f"What is computed in: {', '.join(DTYPES)}.",
        ),
    ] = DTYPES[0],
    threads: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, max=1024, help="Threads; by default as many as torch takes.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="COUNT", parser=count(1, 10_000), help="How often to measure each.")
    ] = ROUNDS,
    adapters: Annotated[
        bool, typer.Option("--adapters", help="Measure PEFT methods on a frozen layer as well; slow for wide layers.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            callback=some_of("contestant", NAMES),
            autocompletion=completed(NAMES),
            help="Measure these beside ours, with commas between them.",
        ),
    ] = None,
    output: Annotated[Path | None, picture_option(PICTURES)] = None,
    max_bytes: MaxBytes = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine, once, for predicted times; takes no FILE.")
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            autocompletion=completed(DEVICES),
            help="Where it is measured: cpu, cuda, cuda:1.",
        ),
    ] = "cpu",
    as_json: Json = False,
) -> None:
    """Measure the compiled module.

    Beside other ways to compute the circuit (torch.einsum, opt_einsum), a dense layer and LoRA, in interleaved rounds
    of one process: time as a ratio to ours, memory, and how far it is from the speed of one large matrix product and
    from copying the input and the output. What computes something else is named and not timed.

    With --calibrate it is the machine that is measured, in a minute or two, and kept in the cache folder: `quanta
    compare` predicts times from that.
    """
    if calibrate:
        others = (tokens, adapters, only, output, max_bytes, dtype != DTYPES[0], rounds != ROUNDS)
        if file is not None or any(others):
            raise typer.BadParameter("it goes with --threads, --device and --json alone", param_hint="'--calibrate'")
        return _calibrate(threads, device, as_json=as_json)
    if file is None:
        raise typer.BadParameter("give a circuit file, or --calibrate", param_hint="'FILE'")
    chosen = None if only is None else split_names(only)
    on_layer = [name for name in chosen or () if name in ADAPTERS]
    if on_layer and not adapters:
        raise typer.BadParameter(
            f"{on_layer[0]!r} is measured on a frozen layer: add --adapters", param_hint="'--only'"
        )
    from quanta_compiler.cli.circuit_files import compile_file, display_name, refuse_to_overwrite

    if output is not None:
        refuse_to_overwrite(file, [output])
        _require_folder(output)
        require("a picture", "matplotlib")
    if adapters:
        require("--adapters", *PEFT)
    compiled = compile_file(file, tokens)
    from quanta_compiler.bench.tables import bench_tables

    options = Options(device, dtype, rounds, threads, adapters, chosen, max_bytes=max_bytes)
    result = _measured(compiled, options)
    tell_diagnostics(_doubts(result, display_name(file)))
    if output is not None:
        from quanta_compiler.bench.picture import write_picture

        write_picture(result, output)
        tell(str(output))
    if as_json:
        print_json(result.to_dict())
    else:
        print_tables(bench_tables(result))
    if result.wrong:
        tell_diagnostics(_wrong_results(result, display_name(file)))
        raise typer.Exit(FAILED)


def _measured(compiled: CompiledCircuit, options: Options) -> Bench:
    from quanta_compiler.bench.devices import DeviceError
    from quanta_compiler.bench.run import bench as measure

    # A thread that draws the bar would take a core from what is measured.
    with progress_bar(redraws_alone=False) as progress:
        try:
            return measure(compiled, options, progress=progress)
        except DeviceError as error:
            raise typer.BadParameter(str(error), param_hint="'--device'") from None
        except RuntimeError as error:
            # What torch raises where it gets no memory has no class of its own on the CPU.
            if "allocate" not in str(error):
                raise
            tokens = f"{compiled.report.apply.planned_tokens:,}"
            remedy = "measure fewer --tokens, or lower --max-bytes"
            raise LimitError(f"there is not enough memory for {tokens} tokens: {remedy}") from None


def _calibrate(threads: int | None, device: str, *, as_json: bool) -> None:
    from quanta_compiler.bench.calibrate import calibrate as measure
    from quanta_compiler.bench.devices import DeviceError
    from quanta_compiler.bench.tables import calibration_table
    from quanta_compiler.predict.calibration import require_storage, store_calibration

    try:
        require_storage()
    except OSError as error:
        raise OutputError(f"cannot keep a calibration in the cache folder: {error}") from None
    load = Load()
    with progress_bar(redraws_alone=False) as progress:
        try:
            found = measure(device, threads, progress=progress)
        except DeviceError as error:
            raise typer.BadParameter(str(error), param_hint="'--device'") from None
    others, cores = load.others(), os.cpu_count() or 1
    path = store_calibration(found)
    if is_crowded(others, found.threads, cores):
        hint = "close them and calibrate again: predicted times are too long by what they took"
        tell_diagnostics([_crowded("quanta", others, cores, found.threads, hint)])
    if found.kernel is None:
        message = "the kernel does not run here and was not measured: times are those of the torch backend"
        needed = "with a compiler, and without QUANTA_KERNEL=off" if found.device == "cpu" else "with Triton"
        hint = f"calibrate again {needed}, to have times of the kernel"
        tell_diagnostics([warning("quanta", message, hint=hint)])
    if as_json:
        print_json({"path": str(path), "others_cores": others, "calibration": json.loads(found.to_json())})
    else:
        print_tables([calibration_table(found, path)])


def _crowded(source: str, others: float | None, cores: int, threads: int, hint: str) -> Diagnostic:
    message = f"other programs kept {figure_text(others or 0)} of {cores} cores busy (threads measured: {threads})"
    return warning(source, message, hint=hint)


def _require_folder(path: Path) -> None:
    """Raise OutputError now where a picture could not be written after minutes."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder: give the name of a file")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")


def _doubts(result: Bench, source: str) -> list[Diagnostic]:
    found = []
    threads, cores = result.settings["threads"], result.machine["cores"]
    if is_crowded(result.others_cores, threads, cores):
        fewer = ", or measure with fewer --threads: threads that wait for each other are slowed most"
        hint = f"close them{fewer if threads > 1 else ''}"
        found.append(_crowded(source, result.others_cores, cores, threads, hint))
    wide = sorted(result.wide_spreads(), key=lambda one: -one[1])
    if wide:
        shown = ", ".join(f"{name} {percent_text(100 * spread)}" for name, spread in wide[:4])
        more = f", and {len(wide) - 4} more" if len(wide) > 4 else ""
        hint = f"close other programs, or take more rounds (--rounds {2 * result.settings['rounds'] + 1})"
        found.append(warning(source, f"spread too wide to believe: {shown}{more}", hint=hint))
    return found


def _wrong_results(result: Bench, source: str) -> list[Diagnostic]:
    from quanta_compiler.bench.result import MODE_TITLES

    hint = "this is a fault of the contestant, not of the file: please report it with the file"
    far = f"of the norm away from the module in float64 (tolerance {result.tolerance:g})"
    return [
        problem(source, f"{name} computes something else: {MODE_TITLES[mode]} is {figure_text(error)} {far}", hint=hint)
        for name, mode, error in result.wrong
    ]
