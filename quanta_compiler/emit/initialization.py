"""`reset_parameters` of an emitted module: what is stored is drawn; and its constants."""

from collections.abc import Iterator, Sequence

from quanta_compiler.emit.computed import stored_name
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import Stored, drawing, matrix_shape
from quanta_compiler.kinds.initialisers import INITIALISERS


def reset_lines(stored: Sequence[Stored]) -> Iterator[str]:
    """Yield the method: parameters are drawn in float32 on the CPU, in the order of the file, then cast."""
    yield "@torch.no_grad()"
    yield "def reset_parameters(self, generator: torch.Generator | None = None) -> None:"
    yield '    """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""'
    yield "    if any(parameter.is_meta for parameter in self.parameters()):"
    yield "        return"
    if stored:
        yield "    gates = self.gates"
    used = []
    for tensor in stored:
        scheme, drawn = drawing(tensor)
        used.append(scheme)
        yield f"    {INITIALISERS[scheme].call(stored_name(tensor.key), drawn)}"
    for method in dict.fromkeys(row.method for scheme, row in INITIALISERS.items() if scheme in used and row.method):
        yield ""
        yield from method


def constant_lines(circuit: Circuit, constants: Sequence[Gate], like: str, *, uses_one: bool) -> Iterator[str]:
    """Yield properties for what no state dict holds: no buffers, which others would move, or fill with noise.

    `like` is a tensor that has the device and the dtype of the module.
    """
    for gate in constants:
        assert gate.matrix.given is not None
        yield from ["", "@property", f"def constant_{gate.name}(self) -> torch.Tensor:"]
        yield f'    """What the file gives for {gate.name}, {list(matrix_shape(circuit, gate))}."""'
        yield "    rows = ("
        for row in gate.matrix.given:
            yield f"        {tuple(map(float, row))!r},"
        yield "    )"
        yield f'    return self._constant("constant_{gate.name}", rows)'
    if uses_one:
        yield from ["", "@property", "def one(self) -> torch.Tensor:"]
        yield '    """What an identity is made from."""'
        yield '    return self._constant("one", 1.0)'
    if constants or uses_one:
        yield ""
        yield from _constant_method(like)


def _constant_method(like: str) -> Iterator[str]:
    yield "def _constant(self, name: str, values: tuple[tuple[float, ...], ...] | float) -> torch.Tensor:"
    yield '    """Return values with the dtype and on the device of the parameters, where they are now."""'
    yield f"    like: torch.Tensor = {like}"
    yield "    kept, is_plain = self._kept.get(name), type(like) in (torch.Tensor, torch.nn.Parameter)"
    yield "    if is_plain and kept is not None and kept.dtype == like.dtype and kept.device == like.device:"
    yield "        return kept"
    yield "    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():"
    yield "        return torch.tensor(values, dtype=like.dtype, device=like.device)"
    yield "    with torch.inference_mode(False):"
    yield "        made = torch.tensor(values, dtype=like.dtype, device=like.device)"
    yield "    if type(made) is torch.Tensor:"
    yield "        self._kept[name] = made  # for the next call, which may be in any mode"
    yield "    return made"
