"""A state dict of the QuanTA paper's own code, turned into a saved adapter of ours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.adapters.paper_circuits import (
    ImportedLayer,
    PaperCircuit,
    base_features,
    circuit_field,
    find_circuit,
    target_names,
)
from quanta_compiler.adapters.paper_keys import PaperLayer, pair_text, read_layers
from quanta_compiler.adapters.tensor_file import TensorFile, open_tensors
from quanta_compiler.diagnostics import Diagnostic, SpecError, problem, refusal, warning
from quanta_compiler.models.fitting import fitted_spec
from quanta_compiler.models.targets import matches
from quanta_compiler.nn import wide
from quanta_compiler.text.words import plural, some_of

Features = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the state dict does not say."""

    layout: tuple[int, ...] | None = None
    features: tuple[tuple[str, Features], ...] = ()
    """Patterns for layers, and their in_features and out_features; the first that matches counts."""
    frozen_copy: bool = True
    """False: the update is the trained circuit alone."""
    scale: float = 1.0
    base_model: str | None = None


@dataclass(frozen=True, slots=True)
class PaperAdapter:
    """An adapter that is complete but not written: every tensor is read and checked."""

    layers: tuple[ImportedLayer, ...]
    config: Any
    """The QuantaConfig."""
    tensors: Mapping[str, torch.Tensor]
    """As `adapter_model.safetensors` holds them."""
    warnings: tuple[Diagnostic, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        layers = [
            {
                "layer": layer.keys.module,
                "in_features": layer.features[0],
                "out_features": layer.features[1],
                "layout": list(layer.circuit.layout),
                "gates": len(layer.circuit.pairs),
            }
            for layer in self.layers
        ]
        targets = self.config.target_modules
        return {"residual": self.config.residual, "target_modules": sorted(targets), "layers": layers}


def import_paper_adapter(path: Path, options: ImportOptions) -> PaperAdapter:
    """Read a state dict of the paper's code and return it as an adapter.

    Raises:
        SpecError: the file cannot be read, or what it holds is no adapter; every problem is listed.

    """
    from quanta_compiler.peft import QuantaConfig
    from quanta_compiler.peft.resolved import record

    file = open_tensors(path)
    found = read_layers(file)
    _check_options(file, found, options)
    layers = _imported(file, found, options)
    warnings = _warnings(file, layers, options)
    tensors = _tensors(file, layers, options)
    config = QuantaConfig(
        circuit=circuit_field(layers),
        residual="frozen_copy" if options.frozen_copy else "none",
        scale=options.scale,
        target_modules=target_names(file, layers),
        base_model_name_or_path=options.base_model,
        inference_mode=True,
    )
    for layer in layers:
        record(config, layer.keys.module, fitted_spec(layer.circuit.document(), *layer.features), config.residual)
    return PaperAdapter(layers, config, tensors, tuple(warnings))


def _check_options(file: TensorFile, layers: Sequence[PaperLayer], options: ImportOptions) -> None:
    modules = [layer.module for layer in layers]
    unused = [pattern for pattern, _ in options.features if not any(matches(pattern, module) for module in modules)]
    if unused:
        message = f"--features {unused[0]!r} means none of its layers: {some_of(modules)}"
        raise refusal(file.name, message, hint="a pattern is a regular expression for the end of a layer's name")
    has_copies = any(layer.frozen for layer in layers)
    if options.frozen_copy and not has_copies:
        message = "it holds no frozen copies S (`quanta_weights2`), and the update of the paper's code is T - S"
        hint = (
            "save the whole state dict, buffers included; or say --no-frozen-copy where the update is T alone, "
            "because S was subtracted from the base weights already"
        )
        raise refusal(file.name, message, hint=hint)
    if has_copies and not options.frozen_copy:
        message = "it does hold frozen copies S (`quanta_weights2`), so that its update is T - S"
        raise refusal(file.name, message, hint="leave out --no-frozen-copy")


def _imported(file: TensorFile, layers: Sequence[PaperLayer], options: ImportOptions) -> tuple[ImportedLayer, ...]:
    imported: list[ImportedLayer] = []
    problems: list[Diagnostic] = []
    for layer in layers:
        if options.frozen_copy and layer.trained and not layer.frozen:
            message = "it has no frozen copies (`quanta_weights2`), other layers have"
            problems.append(problem(file.name, message, place=layer.module, hint="take the whole state dict"))
        circuit = find_circuit(file, layer, options.layout)
        if isinstance(circuit, PaperCircuit):
            width = math.prod(circuit.layout)
            imported.append(ImportedLayer(layer, circuit, _known_features(file, layer, options) or (width, width)))
        else:
            problems += circuit
    if problems:
        raise SpecError(problems)
    return tuple(imported)


def _known_features(file: TensorFile, layer: PaperLayer, options: ImportOptions) -> Features | None:
    """Return in_features and out_features as the user says them, else by the base weight, where the file holds it."""
    said = (features for pattern, features in options.features if matches(pattern, layer.module))
    return next(said, None) or base_features(file, layer)


def _warnings(file: TensorFile, layers: Sequence[ImportedLayer], options: ImportOptions) -> list[Diagnostic]:
    found = []
    lacking = [f"{it.keys.module} (no {pair_text(missing)})" for it in layers if (missing := it.circuit.missing())]
    if lacking:
        message = f"gates are missing, the circuits are written without them: {some_of(lacking)}"
        found.append(warning(file.name, message, hint="the paper's code has a gate for every pair of axes"))
    guessed = [layer.keys.module for layer in layers if _known_features(file, layer.keys, options) is None]
    if guessed:
        message = (
            f"it holds no base weight of {plural(len(guessed), 'layer')}, whose features are taken to be the product "
            f"of the layout: {some_of(guessed)}"
        )
        hint = "say otherwise with --features, such as --features k_proj=8192:1024"
        found.append(warning(file.name, message, hint=hint))
    norms = [key for key in file.shapes if "Norm" in key]
    if norms:
        message = f"the paper's code trains normalization layers as well; they are left out: {some_of(norms)}"
        found.append(warning(file.name, message, hint="copy them into the base model"))
    return found


def _tensors(file: TensorFile, layers: Sequence[ImportedLayer], options: ImportOptions) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors as matrices: D = T - S, in float32 at least, and S; T alone where there is no S."""
    tensors: dict[str, torch.Tensor] = {}
    problems: list[Diagnostic] = []
    for layer in layers:
        start = f"base_model.model.{layer.keys.module}.quanta_circuit_"
        tensors[f"{start}features"] = torch.tensor(layer.features, dtype=torch.float32)
        for position, pair in enumerate(layer.circuit.pairs):
            keys = [layer.keys.trained[pair], *([layer.keys.frozen[pair]] if options.frozen_copy else [])]
            matrices = [_matrix(file, key) for key in keys]
            problems += [matrix for matrix in matrices if isinstance(matrix, Diagnostic)]
            trained, *copies = [matrix for matrix in matrices if isinstance(matrix, torch.Tensor)] or [torch.empty(0)]
            for copy in copies:
                tensors[f"{start}frozen.g{position}"] = copy
                tensors[f"{start}delta.g{position}"] = wide(trained) - wide(copy)
            if not copies:
                tensors[f"{start}gates.g{position}"] = trained
    if problems:
        raise SpecError(problems)
    return tensors


def _matrix(file: TensorFile, key: str) -> torch.Tensor | Diagnostic:
    """Return a gate `[d_b, d_a, d_b, d_a]` as our matrix `[d_b d_a, d_b d_a]`: rows are output, columns input."""
    tensor = file.read(key)
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        return problem(file.name, f"the gate holds {kind} numbers", place=key, hint="gates are of a floating dtype")
    if not bool(torch.isfinite(tensor).all()):
        broken = tensor.numel() - int(torch.isfinite(tensor).sum())
        message = f"{broken:,} of its {tensor.numel():,} numbers are NaN or infinite"
        return problem(file.name, message, place=key, hint="take a checkpoint from before the run diverged")
    rows = tensor.shape[0] * tensor.shape[1]
    # A copy of its own: safetensors refuses tensors that share memory.
    return tensor.reshape(rows, rows).clone(memory_format=torch.contiguous_format)
