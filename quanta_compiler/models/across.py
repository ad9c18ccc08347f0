"""Which layers of a model have one parameter together: gates with `across`, by the names of the layers."""

from collections import Counter
from collections.abc import Iterable, Iterator

from quanta_compiler.models.layers import TargetLayer
from quanta_compiler.spec.circuit_spec import CircuitSpec, GateSpec

Layer = tuple[str, CircuitSpec]
"""A layer's name and its circuit."""


def shared_gates(layers: Iterable[Layer]) -> Iterator[tuple[Layer, GateSpec, str]]:
    """Yield the gates that layers have together, each with the name of the parameter for all of them.

    Layers have a parameter together where these names are the same: `A-8x4096` for all layers, `A-q_proj-8x4096` for
    those of one target name, `A-model-layers-3-8x4096` for the targets of one layer. Keys of a state dict are made of
    them, so there is no point in a name.
    """
    for layer in layers:
        yield from ((layer, gate, _parameter(gate, layer[0])) for gate in layer[1].gates if gate.across is not None)


def together(spec: CircuitSpec, layer: str) -> dict[str, str]:
    """Return the gates of a layer's circuit that others have too, each with the name of the parameter."""
    return {gate.name: parameter for _, gate, parameter in shared_gates([(layer, spec)])}


def _parameter(gate: GateSpec, layer: str) -> str:
    path = layer.split(".")
    if gate.across == "layers":
        path = path[-1:]
    elif gate.across == "targets":
        # A layer is what is counted first: the experts of a mixture are counted once more inside of it.
        numbers = (place for place, part in enumerate(path) if part.isdigit())
        path = path[: next(numbers, -1) + 1]
    else:
        path = []
    # Doubled, so that no two names become one.
    label = "-".join(part.replace("-", "--") for part in path)
    return "-".join(filter(None, (gate.name, label, "x".join(map(str, gate.shape)))))


def alone(layers: Iterable[Layer]) -> list[tuple[Layer, GateSpec]]:
    """Return the layers that have no other layer to share a gate with, and that gate."""
    shared = list(shared_gates(layers))
    counts = Counter(parameter for *_, parameter in shared)
    return [(layer, gate) for layer, gate, parameter in shared if counts[parameter] == 1]


def obstacle(layers: Iterable[tuple[TargetLayer, CircuitSpec]]) -> str:
    """Return why an adapter refuses the gates that layers, each with its circuit, should share; nothing where not."""
    layers = list(layers)
    for layer, spec in layers:
        for name in together(spec, layer.name) if layer.experts > 1 else ():
            return f"{layer.name} has experts, each with parameters of its own, and gate {name!r} is `across`"
    for (name, _), gate in alone((layer.name, spec) for layer, spec in layers):
        return f"{name} has no other layer of its shape to share gate {gate.name!r} with"
    return ""


def trained_again(layers: Iterable[Layer]) -> int:
    """Return how many trained numbers a sum over layers counts that were counted before."""
    trained = [(parameter, gate.numbers) for _, gate, parameter in shared_gates(layers) if not gate.frozen]
    return sum(numbers for _, numbers in trained) - sum(dict(trained).values())
