"""What became of a configuration's circuits at the layers: each circuit with its layout and its gates written out.

A preset or `{auto: N}` is a rule, and rules change from version to version. A saved adapter therefore holds what its
rules made of each shape, and a layer of such a shape gets that circuit, whatever today's rules say.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from quanta_compiler.models.fitting import FeaturesError
from quanta_compiler.models.targets import circuit_for, stored_document, target_for
from quanta_compiler.nn import FittedCircuit, fit_circuit
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.presets.layouts import AUTO_RULE
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.spec import to_dict
from quanta_compiler.spec.circuit_spec import CircuitSpec

FORMAT = 3
"""The format of saved adapters that is written; 2 knew no circuit without a copy that begins as the identity, and 1,
which had no marker, held T and S and no resolved circuits."""

Entries = dict[str, dict[str, Any]]
"""What `QuantaConfig.resolved` holds: by width and target, the circuit, its residual, and the SHA-256 of both."""


class Resolved(NamedTuple):
    """A circuit for a layer, and what the layer's update is."""

    fitted: FittedCircuit
    residual: str


def checked_format(value: object, *, is_saved: bool) -> int:
    """Return the format of a configuration; one that was saved without a marker is of the first.

    Raises:
        AdapterError: it was written by a newer version of this package.

    """
    if value is None:
        return 1 if is_saved else FORMAT
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AdapterError(f"`format` is an integer from 1 on, got {value!r}\nhint: restore adapter_config.json")
    if value > FORMAT:
        raise AdapterError(
            f"the adapter is of format {value}; this version of quanta-compiler reads up to {FORMAT}\n"
            "hint: update the package: pip install --upgrade quanta-compiler"
        )
    return value


def auto_rule(format: int | None) -> int:
    """Return the rule that `{auto: N}` is laid out by: format 1 was saved while the first was the only one."""
    return 1 if format == 1 else AUTO_RULE


def _place(circuit: Any, name: str, in_features: int, out_features: int) -> str:
    """Return what a resolved circuit is filed under: `24 -> 16`, in a mapping `k_proj: 24 -> 16`."""
    target = target_for(circuit, name)
    shape = f"{in_features} -> {out_features}"
    return shape if target is None else f"{target}: {shape}"


def resolve(config: Any, name: str, in_features: int, out_features: int) -> Resolved:
    """Return the circuit of a configuration for the module `name`.

    Raises:
        SpecError: a preset's options do not suit these widths.
        FeaturesError: there is no circuit for the module, it is written for other features, or it does not begin as
            the identity and has to.

    """
    if config.placement != "parallel":
        # Before or behind the layer it is square.
        in_features = out_features = in_features if config.placement == "input" else out_features
    entry = config.resolved.get(_place(config.circuit, name, in_features, out_features))
    document = circuit_for(config.circuit, name) if entry is None else entry["circuit"]
    fitted = fit_circuit(document, in_features, out_features, auto_rule=auto_rule(config.format))
    residual = str(config.residual)
    if residual == "auto":
        # As the adapter was saved, or by the circuit.
        residual = _chosen(config, fitted) if entry is None else str(entry["residual"])
    reason = fitted.spec.off_identity if residual == "identity" else None
    if reason is not None:
        asked = "residual='identity'" if config.placement == "parallel" else f"placement={config.placement!r}"
        text = f"`{asked}` is for circuits that begin as the identity, and {fitted.spec.name!r} does not: {reason}"
        raise FeaturesError(text, _BEGIN)
    return Resolved(fitted, residual)


def _chosen(config: Any, fitted: FittedCircuit) -> str:
    if config.placement == "parallel" and fitted.starts_at_zero:
        return "none"
    # Format 1 knew two.
    is_identity = config.placement != "parallel" or (fitted.spec.off_identity is None and config.format != 1)
    return "identity" if is_identity else "frozen_copy"


_PLACED = next(name for name, family in PRESETS.items() if family.placement == "input")
_BEGIN = (
    f"take a preset that does (`preset={_PLACED!r}`, say); in a circuit of your own write `init: identity` for its "
    "dense and diagonal gates, and leave angles at zero (`kind: orthogonal`, say); or take the parallel placement with "
    "`residual='frozen_copy'`, which every circuit can have"
)


def record(config: Any, name: str, spec: CircuitSpec, residual: str) -> None:
    """Write down in the configuration what its circuit is at a layer; a dict that others hold stays as it is."""
    key = _place(config.circuit, name, spec.in_features, spec.out_features)
    known = config.resolved.get(key)
    if known is None or known["residual"] != residual:
        entry = {"circuit": stored_document(to_dict(spec)), "residual": residual}
        config.resolved = {**config.resolved, key: {**entry, "hash": _digest(config.circuit_hash, key, entry)}}


def checked_entries(entries: object, circuit_hash: str, *, is_meant: bool) -> Entries:
    """Return resolved circuits; those of a circuit that was changed on purpose (`is_meant`) are left out.

    Raises:
        AdapterError: they are not what was saved, or belong to another circuit.

    """
    if not isinstance(entries, Mapping | None):
        raise AdapterError(f"`resolved` is a mapping, got {type(entries).__name__}\n{_RESTORE}")
    checked: Entries = {}
    for key, entry in (entries or {}).items():
        if isinstance(entry, Mapping) and entry.get("hash") == _digest(circuit_hash, key, entry):
            checked[key] = dict(entry)
        elif not is_meant:
            raise AdapterError(f"`resolved` does not hold what was saved for {key}\n{_RESTORE}")
    return checked


def _digest(circuit_hash: str | None, key: str, entry: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a resolved circuit and of what it was made from."""
    content = [circuit_hash, key, entry.get("circuit"), entry.get("residual")]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


_RESTORE = (
    "hint: restore adapter_config.json, or set `resolved` to null (None) to have the circuits made from `circuit` anew"
)
