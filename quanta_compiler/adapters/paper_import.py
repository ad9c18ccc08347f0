"""A state dict of the QuanTA paper's own code, turned into a saved adapter of ours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.adapters.paper_circuits import (
    PaperCircuit,
    base_features,
    circuit_field,
    find_circuit,
    missing_gates,
    target_names,
)
from quanta_compiler.adapters.paper_keys import PaperLayer, read_layers
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
class ImportedLayer:
    """One layer of the new adapter."""

    module: str
    circuit: PaperCircuit
    features: Features


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
                "layer": layer.module,
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
    file = open_tensors(path)
    layers = read_layers(file)
    _check_options(file, layers, options)
    circuits = _circuits(file, layers, options)
    warnings = _warnings(file, layers, circuits, options)
    features = {layer.module: _features(file, layer, circuits[layer.module], options) for layer in layers}
    tensors = _tensors(file, layers, circuits, features, options)
    config = _config(file, layers, circuits, options)
    from quanta_compiler.peft.resolved import record

    for module, sizes in features.items():
        record(config, module, fitted_spec(circuits[module].document(), *sizes), config.residual)
    imported = [ImportedLayer(layer.module, circuits[layer.module], features[layer.module]) for layer in layers]
    return PaperAdapter(tuple(imported), config, tensors, tuple(warnings))


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


def _circuits(file: TensorFile, layers: Sequence[PaperLayer], options: ImportOptions) -> dict[str, PaperCircuit]:
    circuits: dict[str, PaperCircuit] = {}
    problems: list[Diagnostic] = []
    for layer in layers:
        if options.frozen_copy and layer.trained and not layer.frozen:
            message = "it has no frozen copies (`quanta_weights2`), other layers have"
            problems.append(problem(file.name, message, place=layer.module, hint="take the whole state dict"))
        found = find_circuit(file, layer, options.layout)
        if isinstance(found, PaperCircuit):
            circuits[layer.module] = found
        else:
            problems += found
    if problems:
        raise SpecError(problems)
    return circuits


def _warnings(
    file: TensorFile, layers: Sequence[PaperLayer], circuits: Mapping[str, PaperCircuit], options: ImportOptions
) -> list[Diagnostic]:
    """Return what the adapter cannot tell, or leaves out."""
    found = []
    lacking = missing_gates(circuits)
    if lacking:
        message = f"gates are missing, the circuits are written without them: {some_of(lacking)}"
        found.append(warning(file.name, message, hint="the paper's code has a gate for every pair of axes"))
    guessed = [
        layer.module
        for layer in layers
        if base_features(file, layer) is None and _said_features(layer, options) is None
    ]
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


def _said_features(layer: PaperLayer, options: ImportOptions) -> Features | None:
    return next((features for pattern, features in options.features if matches(pattern, layer.module)), None)


def _features(file: TensorFile, layer: PaperLayer, circuit: PaperCircuit, options: ImportOptions) -> Features:
    width = math.prod(circuit.layout)
    return _said_features(layer, options) or base_features(file, layer) or (width, width)


def _tensors(
    file: TensorFile,
    layers: Sequence[PaperLayer],
    circuits: Mapping[str, PaperCircuit],
    features: Mapping[str, Features],
    options: ImportOptions,
) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors as matrices: D = T - S, in float32 at least, and S; T alone where there is no S."""
    tensors: dict[str, torch.Tensor] = {}
    problems: list[Diagnostic] = []
    for layer in layers:
        start = f"base_model.model.{layer.module}.quanta_circuit_"
        tensors[f"{start}features"] = torch.tensor(features[layer.module], dtype=torch.float32)
        for position, pair in enumerate(circuits[layer.module].pairs):
            keys = [layer.trained[pair], *([layer.frozen[pair]] if options.frozen_copy else [])]
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


def _config(
    file: TensorFile, layers: Sequence[PaperLayer], circuits: Mapping[str, PaperCircuit], options: ImportOptions
) -> Any:
    from quanta_compiler.peft import QuantaConfig

    return QuantaConfig(
        circuit=circuit_field(circuits),
        residual="frozen_copy" if options.frozen_copy else "none",
        scale=options.scale,
        target_modules=target_names(file, layers),
        base_model_name_or_path=options.base_model,
        inference_mode=True,
    )
