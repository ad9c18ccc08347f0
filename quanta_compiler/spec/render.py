"""CircuitSpec back to data and to YAML that compiles to the same circuit."""

import json
from typing import Any

from quanta_compiler.kinds.kind import AxisSize
from quanta_compiler.kinds.plugins import PACKAGES, package_of
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec, Init
from quanta_compiler.spec.scalars import reads_as_text


def to_dict(spec: CircuitSpec) -> dict[str, Any]:
    """Return the circuit, everything written out, as data that JSON can hold; `load_spec` takes it back.

    The order of keys counts (axes of a named layout, rows of a gate): do not sort them.
    """
    sizes = [axis.size for axis in spec.layout]
    brought = {gate.kind: package_of(gate.kind) for gate in spec.gates if not gate.share}
    packages = {kind: package for kind, package in brought.items() if package is not None}
    return {
        "version": 1,
        "name": spec.name,
        "layout": sizes if spec.positional else {axis.name: axis.size for axis in spec.layout},
        "in_features": spec.in_features,
        "out_features": spec.out_features,
        "gates": [_gate(gate) for gate in spec.gates],
        "output": [_ref(axis) for axis in spec.output],
        "plan": {"tokens": spec.tokens, "optimizer": spec.optimizer},
        **({PACKAGES: packages} if packages else {}),
    }


def to_yaml(spec: CircuitSpec) -> str:
    """Return the circuit as a file with patterns and defaults written out, one line per gate."""
    data = to_dict(spec)
    gates = data.pop("gates")
    layout = data.pop("layout")
    layout_text = "x".join(map(str, layout)) if isinstance(layout, list) else flow_text(layout)
    lines = [f"version: {data['version']}", f"name: {flow_text(data['name'])}", f"layout: {layout_text}"]
    lines += [f"{key}: {data[key]}" for key in ("in_features", "out_features")]
    lines += ["gates:", *(f"  - {flow_text(gate)}" for gate in gates)]
    lines += [f"{key}: {flow_text(data[key])}" for key in ("output", "plan", PACKAGES) if key in data]
    return "\n".join(lines) + "\n"


def _ref(axis: AxisSize) -> int | str:
    return int(axis.name) if axis.name.isdigit() else axis.name


def _gate(gate: GateSpec) -> dict[str, Any]:
    data: dict[str, Any] = {"name": gate.name, "axes": [_ref(axis) for axis in gate.axes]}
    if gate.to != gate.axes:
        same_names = [axis.name for axis in gate.to] == [axis.name for axis in gate.axes]
        new = {axis.name: axis.size for axis in gate.to}
        data["to"] = list(new.values()) if same_names else new
    if gate.per:
        data["per"] = [_ref(axis) for axis in gate.per]
    if gate.share is not None:
        data["share"] = gate.share
        return {**data, "transpose": True} if gate.transpose else data
    data |= {"kind": gate.kind, **gate.matrix.data()}
    if gate.init is not None:
        data["init"] = init_data(gate.init)
    if gate.frozen:
        data["frozen"] = True
    if gate.across is not None:
        data["across"] = gate.across
    return data


def init_data(init: Init) -> Any:
    """Return an initialiser as a file writes it."""
    return init.scheme if init.std is None else {"scheme": init.scheme, "std": init.std}


def flow_text(value: Any) -> str:
    """Write data as one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if reads_as_text(value) else json.dumps(value)
    text = repr(value)
    # YAML 1.1 takes `1e-05` for text: it wants the point.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _key(key: str) -> str:
    return key if key.isdigit() else flow_text(key)
