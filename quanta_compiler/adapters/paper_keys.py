"""Keys of the QuanTA paper's own code: which tensors of a state dict are gates of which layer.

    base_model.model.model.layers.0.self_attn.q_proj.quanta_weights.-1 -2

is the trained gate of layer `model.layers.0.self_attn.q_proj` on its last two axes, `[d_-2, d_-1, d_-2, d_-1]`: output
axes, then input axes. `quanta_weights2` holds the frozen copies. Ports of that code put the adapter's name before or
behind the pair and write it `n1_n2`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from quanta_compiler.adapters.tensor_file import TensorFile
from quanta_compiler.diagnostics import Diagnostic, SpecError, problem, quote, refusal
from quanta_compiler.text.words import plural, some_of

Pair = tuple[int, int]
"""Two axes counted from the end, the one nearer to the end first: (-1, -2)."""

_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|base_model\.model)\.)*")
"""What data parallelism, `torch.compile` and PEFT put before the name that the model itself gives a module."""
_GATE = re.compile(r"(?:^|(?P<module>.+?)\.)quanta_weights(?P<frozen>2?)\.(?P<rest>.+)")
_REST = re.compile(
    r"(?:(?P<before>[^. ]+)\.)?(?P<first>[-n]?\d{1,3})[ _,](?P<second>[-n]?\d{1,3})(?:\.(?P<after>[^. ]+))?"
)
_FORM = "keys of gates end in `quanta_weights.-1 -2`: two axes counted from the end, the nearer one first"


@dataclass(slots=True)
class PaperLayer:
    """One adapted layer: the keys of its trained gates and of their frozen copies, by pair of axes."""

    module: str
    """The module's name in the base model."""
    prefix: str
    """The name that the file gives the module, with what wraps the model."""
    trained: dict[Pair, str] = field(default_factory=dict)
    frozen: dict[Pair, str] = field(default_factory=dict)


class _Gate(NamedTuple):
    prefix: str
    adapter: str
    pair: Pair
    is_frozen: bool


def read_layers(file: TensorFile) -> list[PaperLayer]:
    """Return the adapted layers of a state dict, in the order of their names, numbers counted.

    Raises:
        SpecError: there are none, keys have another form, or two spell one gate; every such key is listed.

    """
    gates: dict[str, _Gate] = {}
    problems: list[Diagnostic] = []
    for key, shape in file.shapes.items():
        if found := _GATE.fullmatch(key):
            gate = _read_gate(shape, found)
            if isinstance(gate, _Gate):
                gates[key] = gate
            else:
                problems.append(problem(file.name, gate[0], place=key, hint=gate[1]))
    if problems:
        raise SpecError(problems)
    if not gates:
        message = f"it holds {plural(len(file.shapes), 'tensor')}, and no gate of the QuanTA paper's code"
        shown = f": {some_of(list(file.shapes))}" if file.shapes else ""
        raise refusal(file.name, message + shown, hint=_FORM)
    adapters = sorted({gate.adapter for gate in gates.values()})
    if len(adapters) > 1:
        message = f"it holds several adapters: {some_of(adapters)}"
        raise refusal(file.name, message, hint="import a file that holds one of them alone")
    layers: dict[str, PaperLayer] = {}
    for key, gate in gates.items():
        module = _WRAPPERS.sub("", gate.prefix)
        layer = layers.setdefault(module, PaperLayer(module, gate.prefix))
        known = (layer.frozen if gate.is_frozen else layer.trained).setdefault(gate.pair, key)
        if known != key:
            message = f"the gate is there a second time, as {quote(known)}"
            problems.append(problem(file.name, message, place=key, hint="remove one of the two"))
    if problems:
        raise SpecError(problems)
    return sorted(layers.values(), key=lambda layer: natural_key(layer.module))


def _read_gate(shape: tuple[int, ...], found: re.Match[str]) -> _Gate | tuple[str, str]:
    """Return what a key says, or the fact and the remedy where it is none of a gate."""
    rest = _REST.fullmatch(found["rest"])
    if rest is None:
        return "the key names no pair of axes", _FORM
    first, second = (int(rest[name].replace("n", "-")) for name in ("first", "second"))
    if not second < first < 0:
        return f"the key names the axes {first} and {second}", _FORM
    if len(shape) != 4 or shape[:2] != shape[2:] or 0 in shape:
        size = "x".join(map(str, shape)) or "a single number"
        hint = "the file was changed after the paper's code wrote it: take the original"
        if len(shape) == 4:
            hint = "the paper's code has gates with equal input and output axes only"
        return f"the gate is {size}, not `[d_{second}, d_{first}, d_{second}, d_{first}]`", hint
    if not _WRAPPERS.sub("", f"{found['module'] or ''}."):
        return "the key names no module", "save the state dict of the whole model, not that of one layer"
    adapter = rest["before"] or rest["after"] or "default"
    return _Gate(found["module"], adapter, (first, second), bool(found["frozen"]))


def pairs_in_order(axis_count: int) -> list[Pair]:
    """Return all pairs of axes in the order in which the paper's code applies their gates."""
    return [(-a, -b) for a in range(1, axis_count) for b in range(a + 1, axis_count + 1)]


def pair_text(pairs: Iterable[Pair]) -> str:
    """Return pairs as the keys write them: `-1 -2, -1 -3`."""
    return ", ".join(f"{a} {b}" for a, b in pairs)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort names as people do: `layers.2` before `layers.10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
