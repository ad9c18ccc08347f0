"""How a comparison is made: every entrant in turn, for one layer or for every layer of a model."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from quanta_compiler.compare.comparison import Comparison, check_sort
from quanta_compiler.compare.entrants import (
    CircuitEntrant,
    CompareError,
    Entrant,
    MethodEntrant,
    Shape,
    baseline_entrant,
    file_entrant,
    named_files,
)
from quanta_compiler.compare.figures import Conditions, circuit_row, method_row, summed
from quanta_compiler.compare.row import Row
from quanta_compiler.diagnostics import Diagnostic, SpecError, offered, refusal
from quanta_compiler.driver import compile_circuit
from quanta_compiler.kinds import limits
from quanta_compiler.models.across import obstacle, trained_again
from quanta_compiler.models.hub import model_folder
from quanta_compiler.models.layers import ModelLayers, read_config
from quanta_compiler.predict.calibration import Calibration, load_calibration
from quanta_compiler.predict.sheets import SHEETS, computed_calibration
from quanta_compiler.runtime.backends import BACKENDS, DEVICES
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.spec.files import STANDARD_INPUT
from quanta_compiler.system.extras import PEFT, require
from quanta_compiler.text.words import plural

TOKENS = 2048
"""The batch that costs are given for, unless something else is asked for."""


def compare(
    files: Sequence[str | os.PathLike[str]] = (),
    *,
    baselines: Sequence[str] = (),
    in_features: int | None = None,
    out_features: int | None = None,
    model: str | os.PathLike[str] | None = None,
    targets: str | Sequence[str] | None = None,
    tokens: int = TOKENS,
    backend: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    rank: bool = False,
    seed: int = 0,
    sort: str = "step_seconds",
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Compare circuits, presets and methods for one layer, or summed over the layers of a model.

    Args:
        files: circuit files; for a model also `TARGET=FILE,TARGET=FILE`, a circuit for every target.
        baselines: `dense`, presets (`lora:8`, `krona:64-64`), methods that are no circuits (`dora:8`), and circuits
            with DoRA's magnitudes (`dora:krona:64-64`, `dora:FILE`).
        in_features: the width of the layer's input, for templates and baselines; by default those of the files.
        out_features: the width of its output; by default that of the input.
        model: a folder with a Hugging Face `config.json`, or a model's id on the Hub.
        targets: the layers of the model, as PEFT's `target_modules`; by default those that PEFT has for it.
        tokens: the batch that is planned for, and that times are predicted for.
        backend: `torch`, `fused`, or `auto`, what our modules would take.
        device: whose calibration predicts the times, `cpu` or `cuda`; by their data sheets, `a100` or `h100`.
        threads: which of the CPU's; by default that of the latest.
        rank: whether to compute the numerical rank of a random instance, by its singular values.
        seed: draws that instance.
        sort: the figure that comes first.
        progress: called with the name of each circuit before it is compiled.

    Raises:
        CompareError: nothing can be compared, or a baseline, a figure or a backend does not exist.
        ModelError: the model cannot be read, or has no such layers.
        LimitError: a numerical rank needs too much memory.

    """
    _check_options(backend, sort, model, targets, (in_features, out_features))
    texts = list(dict.fromkeys(os.fspath(file) for file in ([files] if isinstance(files, str) else files)))
    _check_files(texts, has_model=model is not None)
    calibration = chosen_calibration(device, threads)
    asked = dict.fromkeys([baselines] if isinstance(baselines, str) else baselines)
    others = [baseline_entrant(text) for text in asked]
    table = _Table(Conditions(tokens, backend, calibration, rank, seed), progress or (lambda _: None))
    entrants = [*table.read(texts), *others]
    if model is None:
        percent_of, about, remark = table.add_layers(entrants, in_features, out_features), None, ""
    else:
        layers = named_layers(os.fspath(model), targets, progress or (lambda _: None))
        percent_of, about, remark = table.add_model(entrants, layers), _about(layers), layers.remark
    threads_text = f", {plural(calibration.threads, 'thread')}" if calibration.device == "cpu" else ""
    made = Comparison(
        rows=tuple(table.rows),
        tokens=tokens,
        device=f"{calibration.name}{threads_text}",
        origin=calibration.origin,
        remark="; ".join(filter(None, (calibration.remark, remark))),
        percent_of=percent_of,
        model=about,
        problems=tuple(table.problems),
    )
    return made.sorted_by(sort)


def _check_options(backend: str, sort: str, model: object, targets: object, features: tuple[int | None, ...]) -> None:
    if backend not in BACKENDS:
        hint = offered(backend, BACKENDS, f"choose one of {', '.join(BACKENDS)}", mark="'")
        raise CompareError(f"there is no backend {backend!r}: {hint}", "--backend")
    check_sort(sort)
    if model is not None and any(width is not None for width in features):
        raise CompareError("a model has widths of its own: leave those of a layer out", "--in")
    if model is None and targets is not None:
        raise CompareError("targets are layers of a model: name its folder as well", "--targets")


def _check_files(texts: Sequence[str], *, has_model: bool) -> None:
    """Refuse what no file in the list is to blame for."""
    named = [named_files(text) for text in texts]
    mapping = next((text for text, files in zip(texts, named, strict=True) if "" not in files), None)
    if mapping is not None and not has_model:
        raise CompareError(f"{mapping!r} gives the targets of a model circuits of their own: add --model DIR", "FILE")
    if sum(file == STANDARD_INPUT for files in named for file in files.values()) > 1:
        raise CompareError("standard input can be read only once", "FILE")


def named_layers(
    model: str, targets: str | Sequence[str] | None, progress: Callable[[str], None] = lambda _: None
) -> ModelLayers:
    """Return the targeted layers of a model by its folder or its id on the Hub; raise ModelError."""
    folder = model_folder(model, progress)
    layers = model_layers(folder, targets)
    # The folder of the Hub's cache is called by a hash.
    return layers if folder == Path(model) else replace(layers, name=model)


def model_layers(folder: Path, targets: str | Sequence[str] | None) -> ModelLayers:
    """Return the targeted layers of a model; raise ModelError."""
    read_config(folder)  # what is wrong with it is said before PEFT is imported, which takes seconds
    require("--model", *PEFT)
    from quanta_compiler.peft.targeted import read_model

    return read_model(folder, targets)


def chosen_calibration(device: str, threads: int | None) -> Calibration:
    """Return the calibration for the times, computed for a device of `SHEETS`.

    That of a typical machine comes only where no other was asked for.
    """
    if device in SHEETS:
        if threads is not None:
            raise CompareError(f"{device!r} is known from its data sheet, which has no threads", "--threads")
        return computed_calibration(device)
    if device.partition(":")[0] not in DEVICES:
        known = (*DEVICES, *SHEETS)
        hint = offered(device, known, f"choose one of {', '.join(known)}", mark="'")
        raise CompareError(f"{device!r} is no device: {hint}", "--device")
    calibration = load_calibration(device, threads)
    if calibration.calibrated or (device == "cpu" and threads is None):
        return calibration
    asked, option = (device, "--device") if device != "cpu" else (plural(threads or 0, "thread"), "--threads")
    command = f"`quanta bench --calibrate{f' --device {device}' if device != 'cpu' else f' --threads {threads}'}`"
    raise CompareError(f"this machine is not calibrated for {asked}: {command} does that", option)


def _about(layers: ModelLayers) -> dict[str, Any]:
    keys = ("target", "in_features", "out_features", "layers")
    targets = [dict(zip(keys, group, strict=True)) for group in layers.groups()]
    return {"name": layers.name, "parameters": layers.parameters, "targets": targets, "layers": len(layers.shapes())}


def _shapes(entrants: Sequence[Entrant], in_features: int | None, out_features: int | None) -> list[Shape]:
    """Return the widths of the layers that are compared: those asked for, or those of the files."""
    for width, option in ((in_features, "--in"), (out_features, "--out")):
        if (width or 0) > limits.WIDTH:
            raise CompareError(f"a layer has at most {limits.WIDTH:,} features", option)
    if in_features is not None:
        return [(in_features, out_features if out_features is not None else in_features)]
    # Those that files are written for, or where there are none, baselines.
    circuits = [entrant for entrant in entrants if isinstance(entrant, CircuitEntrant)]
    fixed = [(one.is_baseline, shape) for one in circuits if (shape := one.fixed_shape) is not None]
    written = [shape for is_baseline, shape in fixed if not is_baseline] or [shape for _, shape in fixed]
    if out_features is not None:
        return list(dict.fromkeys((wide, out_features) for wide, _ in written)) or [(out_features, out_features)]
    return list(dict.fromkeys(written))


class _Table:
    """Collects the rows of a comparison, and what is wrong with those that are left out."""

    def __init__(self, conditions: Conditions, progress: Callable[[str], None]) -> None:
        self.conditions = conditions
        self.progress = progress
        self.rows: list[Row] = []
        self.problems: list[Diagnostic] = []
        self._rows: dict[tuple[int, Shape], Row] = {}
        """By the document, all of which live as long as their entrants, and the shape of the layer."""
        self._specs: dict[tuple[int, Shape], CircuitSpec] = {}

    @contextmanager
    def _leaving_out(self) -> Iterator[None]:
        """Keep the problems of an entrant, and go on with the next."""
        try:
            yield
        except SpecError as error:
            self.problems += [problem for problem in error.diagnostics if problem not in self.problems]

    def read(self, files: Sequence[str]) -> list[Entrant]:
        """Return the circuit files that are not wrong."""
        found: list[Entrant] = []
        for file in files:
            with self._leaving_out():
                found.append(file_entrant(file))
        return found

    def add_layers(self, entrants: Sequence[Entrant], in_features: int | None, out_features: int | None) -> str:
        """Add a row for every entrant in one layer; return what percentages are of.

        Where no widths are asked for, they are those of the files, each of which gets the shape that it is written for.
        """
        asked = in_features is not None or out_features is not None
        shapes = _shapes(entrants, in_features, out_features)
        if not shapes and not self.problems:
            raise CompareError("no file gives the widths of the layer: add them, or name a model", "--in")
        for shape in shapes:
            for entrant in entrants:
                with self._leaving_out():
                    if isinstance(entrant, MethodEntrant):
                        self.rows.append(self._method_row(entrant, shape))
                    elif asked or entrant.is_baseline or entrant.fixed_shape in (None, shape):
                        self.rows.append(self._row(entrant, "", shape))
        return f"a dense {' or '.join(f'{rows} x {columns}' for columns, rows in shapes)} layer"

    def _method_row(self, entrant: MethodEntrant, shape: Shape) -> Row:
        method = entrant.method
        if method.per_layer is None:
            message = f"{method.name} is no method for one layer: compare it for a model"
            raise refusal(entrant.source, message, hint="add --model DIR")
        try:
            cost = method.per_layer(*shape, entrant.value, self.conditions.tokens)
        except ValueError as error:
            raise refusal(entrant.source, str(error)) from None
        return method_row(entrant, cost, self.conditions, shape=shape, layers=1, whole=math.prod(shape))

    def add_model(self, entrants: Sequence[Entrant], layers: ModelLayers) -> str:
        """Add a row for every entrant, summed over the layers of a model; return what percentages are of."""
        for entrant in entrants:
            with self._leaving_out():
                self.rows.append(self._model_row(entrant, layers))
        return f"the {layers.parameters:,} numbers of {layers.name}"

    def _model_row(self, entrant: Entrant, layers: ModelLayers) -> Row:
        if isinstance(entrant, MethodEntrant):
            try:
                cost = entrant.method.per_model(layers, entrant.value, self.conditions.tokens)
            except ValueError as error:
                raise refusal(entrant.source, str(error)) from None
            count = None if entrant.method.per_block else len(layers.shapes())
            return method_row(entrant, cost, self.conditions, shape=None, layers=count, whole=layers.parameters)
        rows = [row for layer in layers.layers for row in [self._row(entrant, layer.name, layer.shape)] * layer.experts]
        self.problems += entrant.unused([layer.name for layer in layers.layers])
        counts = Counter(rows)
        fitted = [(layer, self._specs[id(entrant.document(layer.name)), layer.shape]) for layer in layers.layers]
        if reason := obstacle(fitted):
            raise refusal(entrant.source, reason, hint="choose other `targets`, or leave the circuit out")
        again = trained_again((layer.name, spec) for layer, spec in fitted)
        whole = summed(list(counts), list(counts.values()), layers.parameters, self.conditions.tokens, again)
        # Of layers of several shapes the note tells of the one that the circuit does not fit.
        note = next((row.note for row in counts if row.is_misfit), whole.note)
        return replace(whole, name=entrant.name, note=note)

    def _row(self, entrant: CircuitEntrant, layer: str, shape: Shape) -> Row:
        """Return the figures of a circuit for a layer; the same circuit is compiled once."""
        document = entrant.document(layer)
        key = id(document), shape
        if key not in self._rows:
            self._specs[key] = spec = entrant.spec(document, shape)
            self.progress(f"{spec.name} ({spec.in_features} -> {spec.out_features})")
            compiled = compile_circuit(spec, self.conditions.tokens)
            self.problems += [replace(warning, source=entrant.source) for warning in spec.warnings]
            row = circuit_row(entrant.source, compiled, self.conditions, has_magnitudes=entrant.has_magnitudes)
            name = entrant.name if entrant.is_baseline else row.name
            self._rows[key] = replace(row, name=name, family=str(document.get("preset", "circuit")))
        return self._rows[key]
