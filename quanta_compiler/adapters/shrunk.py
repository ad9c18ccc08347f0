"""A saved adapter made smaller: each layer's circuit as far as the loss allows, and the configuration that says so."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.adapters.output import CONFIG_FILE, WEIGHTS_FILE
from quanta_compiler.adapters.saved import TENSOR_KEY, SavedAdapter, quanta_config, unpacked
from quanta_compiler.adapters.shrinking import Filled, Shrunk, can_shrink, shrunk
from quanta_compiler.adapters.tensor_file import open_tensors
from quanta_compiler.adapters.updates import CircuitUpdate, none_found
from quanta_compiler.diagnostics import refusal
from quanta_compiler.models.targets import stored_document
from quanta_compiler.spec import to_dict
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.text.words import listed, plural

DIFFERENCE = (
    "with residual {} its update is a difference, of up to twice the rank, and T alone cannot be smaller than what is "
    "subtracted"
)
NO_SIZE = (
    "circuit {} has no rank, no K' and no bond to lower; a bond is an axis between two gates that alone joins two "
    "parts of a circuit"
)
TOGETHER = (
    "circuit {} has gates that other layers have too (`across`), and a smaller one would be smaller there as well"
)
NO_LESS = "no size of it can be lowered for so little"


@dataclass(frozen=True, slots=True)
class Change:
    """A size that is smaller: `rank` or `rank_parameters` of a gate, or `axis NAME` that it makes."""

    gate: str
    what: str
    before: int | None
    """None where K' was not limited."""
    after: int

    def in_words(self) -> str:
        """Return `rank of g0 8 -> 3`, `axis s1 of core1 8 -> 2`, `K' of U all -> 4`."""
        what = "K'" if self.what == "rank_parameters" else self.what
        return f"{what} of {self.gate} {'all' if self.before is None else self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class ShrunkLayer:
    """What became of a layer."""

    layer: str
    in_features: int
    out_features: int
    before: int
    """Trained numbers."""
    after: int
    energy: float
    """The squared Frobenius norm of the update as it was."""
    lost: float
    """||U' - U||^2 / ||U||^2, measured with the numbers that are saved."""
    changes: tuple[Change, ...]
    reason: str | None = None
    """Why it is as it was."""

    @property
    def relative_error(self) -> float:
        """Return ||U' - U|| / ||U|| in the Frobenius norm."""
        return math.sqrt(self.lost)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "layer": self.layer,
            "in_features": self.in_features,
            "out_features": self.out_features,
            "parameters": {"before": self.before, "after": self.after},
            "energy_lost": self.lost,
            "relative_error": self.relative_error,
            "changes": list(map(asdict, self.changes)),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class ShrunkAdapter:
    """A smaller adapter that is complete but not written, and what it cost."""

    path: str
    config: Any
    tensors: Mapping[str, torch.Tensor]
    layers: tuple[ShrunkLayer, ...]

    @property
    def before(self) -> int:
        """Return the trained numbers of all layers."""
        return sum(layer.before for layer in self.layers)

    @property
    def after(self) -> int:
        """Return those that are left."""
        return sum(layer.after for layer in self.layers)

    @property
    def lost(self) -> float:
        """Return what all updates together have lost, relative to their squared norms' sum."""
        energy = sum(layer.energy for layer in self.layers)
        return sum(layer.lost * layer.energy for layer in self.layers) / energy if energy else 0.0

    @property
    def largest_error(self) -> float:
        """Return the largest relative error of a layer."""
        return max(layer.relative_error for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "parameters": {"before": self.before, "after": self.after},
            "energy_lost": self.lost,
            "largest_relative_error": self.largest_error,
            "layers": [layer.to_dict() for layer in self.layers],
        }


def shrink_adapter(
    saved: SavedAdapter,
    energy: float,
    layers: re.Pattern[str] | None,
    *,
    device: torch.device,
    advance: Callable[[], None],
) -> ShrunkAdapter:
    """Make the circuits smaller of those layers whose name `layers` finds something in; the others stay as they are.

    Raises:
        SpecError: it is an adapter of another method, `layers` finds none of its layers, or none can be smaller.

    """
    updates = {layer: update for layer, update in saved.updates.items() if isinstance(update, CircuitUpdate)}
    if len(updates) < len(saved.updates):
        hint = "PEFT's own LoRA has `rank_pattern` for ranks that differ"
        raise refusal(saved.path, "it is no adapter of circuits, which `--shrink` is for", hint=hint)
    if layers is not None and not any(map(layers.search, updates)):
        raise none_found(str(Path(saved.path) / WEIGHTS_FILE), layers, updates)
    from quanta_compiler.peft.resolved import resolve

    config = quanta_config(Path(saved.path))
    if config.bits is not None:
        fact = f"it is rounded to {plural(config.bits, 'bit')}, and what that costs a smaller circuit is not counted"
        hint = "set `bits` to null there, shrink it, and set it again"
        raise refusal(Path(saved.path) / CONFIG_FILE, fact, hint=hint)
    made: dict[str, Filled] = {}
    residuals: dict[str, str] = {}
    told: list[ShrunkLayer] = []
    for layer, update in updates.items():
        residuals[layer] = resolve(config, layer, *reversed(update.shape)).residual
        asked = energy if layers is None or layers.search(layer) else None
        made[layer], one = _layer(layer, update, residuals[layer], asked, device)
        told.append(one)
        advance()
    if not any(one.changes for one in told):
        reasons = list(dict.fromkeys(one.reason for one in told if one.reason))
        remedy = f"allow a larger loss than {energy:g}" if NO_LESS in reasons else None
        raise refusal(saved.path, f"no layer of it gets smaller: {listed(reasons, 3)}", hint=remedy)
    tensors = _tensors(Path(saved.path), {one.layer: made[one.layer] for one in told if one.changes})
    specs = {layer: one.spec for layer, one in made.items()}
    return ShrunkAdapter(saved.path, _config(config, specs, residuals), tensors, tuple(told))


def _layer(
    layer: str, update: CircuitUpdate, residual: str, energy: float | None, device: torch.device
) -> tuple[Filled, ShrunkLayer]:
    """Make one layer's circuit smaller; without `energy` it stays as it is."""
    filled = Filled(update.circuit.spec, update.trained, update.is_from_identity)
    circuit = filled.spec.name
    found: Shrunk | None = None
    reason: str | None = None
    if energy is None:
        reason = "--layers leaves it as it is"
    elif any(gate.across is not None for gate in filled.spec.gates):
        reason = TOGETHER.format(circuit)
    elif not can_shrink(replace(filled, is_from_identity=False), device):
        reason = NO_SIZE.format(circuit)
    elif update.frozen is not None or not can_shrink(filled, device):
        reason = DIFFERENCE.format(residual)
    else:
        found = shrunk(filled, energy, device)
        if found.filled is filled:
            reason = NO_LESS if found.norm else "its update is zero"
    kept = found.filled if found else filled
    return kept, ShrunkLayer(
        layer=layer,
        in_features=update.circuit.in_features,
        out_features=update.circuit.out_features,
        before=sum(filled.tensors[name].numel() for name in update.circuit.trained),
        after=sum(kept.tensors[name].numel() for name in update.circuit.trained),
        energy=update.scale**2 * found.norm if found else update.squared_norm(device),
        lost=found.lost if found else 0.0,
        changes=tuple(_changes(filled.spec, kept.spec)),
        reason=reason,
    )


def _changes(before: CircuitSpec, after: CircuitSpec) -> Iterator[Change]:
    """Yield what is smaller of a circuit; an axis is told of at the gate that makes it."""
    for old, new in zip(before.gates, after.gates, strict=True):
        options = old.matrix.data()
        for key, value in new.matrix.data().items():
            if value != options.get(key):
                yield Change(old.name, key, options.get(key), value)
        for axis, then in zip(old.to, new.to, strict=True):
            if axis != then and not old.matrix.is_diagonal:
                yield Change(old.name, f"axis {axis.name}", axis.size, then.size)


def _config(config: Any, specs: Mapping[str, CircuitSpec], residuals: Mapping[str, str]) -> Any:
    """Return the configuration with one circuit for all layers that have the same, by their whole names."""
    from quanta_compiler.peft.resolved import FORMAT, record

    groups: dict[tuple[str, str], list[str]] = {}
    for layer, spec in specs.items():
        groups.setdefault((json.dumps(to_dict(spec)), residuals[layer]), []).append(layer)
    circuit = {_pattern(layers): stored_document(json.loads(text)) for (text, _), layers in groups.items()}
    cleared = dict.fromkeys(("preset", "circuit_hash", "resolved", "package_version"))
    made = replace(config, circuit=circuit, format=FORMAT, **cleared)
    for layer, spec in specs.items():
        record(made, layer, spec, residuals[layer])
    return made


def _pattern(layers: Sequence[str]) -> str:
    """Return a regular expression that these layers' whole names match and no others, blocks by their numbers."""
    blocks: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        found = re.search(r"(?<=\.)\d+(?=\.)", layer)
        first, last = found.span() if found else (len(layer), len(layer))
        blocks.setdefault((layer[:first], layer[last:]), []).append(layer[first:last])
    names = [
        re.escape(start) + (numbers[0] if len(numbers) == 1 else f"(?:{'|'.join(numbers)})") + re.escape(end)
        for (start, end), numbers in blocks.items()
    ]
    return "^" + (names[0] if len(names) == 1 else f"(?:{'|'.join(names)})")


def _tensors(folder: Path, made: Mapping[str, Filled]) -> dict[str, torch.Tensor]:
    """Return the tensors of a saved adapter, those of some layers' circuits replaced."""
    file = unpacked(open_tensors(folder / WEIGHTS_FILE))
    tensors = {}
    for key in file.shapes:
        tensors[key] = file.read(key)
        found = TENSOR_KEY.fullmatch(key)
        group, _, name = found["part"].partition(".") if found else ("", "", "")
        if found and found["layer"] in made and group in ("gates", "delta"):
            # What is as large as it was stays, as T is no D.
            new = made[found["layer"]].tensors[name]
            tensors[key] = new if new.shape != tensors[key].shape else tensors[key]
    return tensors
