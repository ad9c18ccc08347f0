"""`reset_parameters` of an emitted module: every scheme of the file format as torch calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from quanta_compiler.emit.computed import stored_name
from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.parameters import Stored
from quanta_compiler.spec.circuit_spec import Init


def reset_lines(stored: Sequence[Stored], constants: Sequence[Gate], *, uses_one: bool) -> Iterator[str]:
    """Yield the method: parameters are drawn in float32 on the CPU, in the order of the file, then cast."""
    yield "@torch.no_grad()"
    yield "def reset_parameters(self, generator: torch.Generator | None = None) -> None:"
    yield '    """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""'
    yield "    if any(tensor.is_meta for tensor in [*self.parameters(), *self.buffers()]):"
    yield "        return"
    if stored:
        yield "    gates = self.gates"
    calls = [_draw(tensor) for tensor in stored]
    for call in calls:
        yield f"    {call}"
    if constants or uses_one:
        yield "    self._fill_constants()"
    for scheme, lines in _HELPERS.items():
        if any(call.startswith(f"self._{scheme}(") for call in calls):
            yield ""
            yield from lines


def _scheme(tensor: Stored) -> Init:
    """Return the scheme of one tensor: `zeros` makes B of a low-rank gate zero, and its A as it is drawn by default."""
    init = tensor.gate.init
    assert init is not None, "a gate that stores numbers has a scheme"
    if init.scheme == "zeros" and tensor.key.endswith(".A"):
        return Init("kaiming_uniform")
    return init


def _draw(tensor: Stored) -> str:
    """Return a call that fills one tensor; the bounds are those of `torch.nn.init` for `[fan_out, fan_in]`."""
    init = _scheme(tensor)
    target = stored_name(tensor.key)
    if init.scheme == "kaiming_uniform":
        # As torch.nn.Linear draws its weight: uniform, bound 1/sqrt(columns).
        return f"self._uniform({target}, {1 / math.sqrt(tensor.fan_in)!r}, generator)"
    if init.scheme == "xavier_uniform":
        return f"self._uniform({target}, {math.sqrt(6 / (tensor.fan_in + tensor.fan_out))!r}, generator)"
    if init.scheme == "normal":
        return f"self._normal({target}, {0.02 if init.std is None else init.std!r}, generator)"
    if init.scheme == "orthogonal":
        return f"self._orthogonal({target}, {tensor.fan_out}, {tensor.fan_in}, generator)"
    if init.scheme == "identity" and tensor.gate.kind == "diagonal":
        return f"{target}.fill_(1.0)"
    if init.scheme == "identity":
        return f'{target}.copy_(torch.eye({tensor.fan_out}, {tensor.fan_in}, device="cpu"))'
    return f"{target}.zero_()"


def constant_lines(constants: Sequence[Gate], *, uses_one: bool) -> Iterator[str]:
    """Yield what fills the buffers that no state dict holds: at the start, and when a module from meta is loaded."""
    yield "@torch.no_grad()"
    yield "def _fill_constants(self) -> None:"
    for gate in constants:
        assert gate.value is not None
        yield "    rows = ["
        for row in gate.value:
            yield f"        [{', '.join(repr(float(number)) for number in row)}],"
        yield "    ]"
        yield f"    self.constant_{gate.name} = self._filled(self.constant_{gate.name}, rows)"
    if uses_one:
        yield "    self.one = self._filled(self.one, 1.0)"
    yield ""
    yield "@staticmethod"
    yield "def _filled(buffer: torch.Tensor, values: list[list[float]] | float) -> torch.Tensor:"
    yield '    made = torch.tensor(values, dtype=buffer.dtype, device="cpu")'
    yield "    return made if buffer.is_meta else buffer.copy_(made)"
    yield ""
    yield "def _load_from_state_dict(self, *args: object) -> None:"
    yield "    # Constants are not in the state dict; a module that was made on the meta device gets them here."
    yield "    super()._load_from_state_dict(*args)"
    yield "    self._fill_constants()"


_EMPTY = '    drawn = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")'
_HELPERS = {
    "uniform": (
        "@staticmethod",
        "def _uniform(tensor: torch.Tensor, bound: float, generator: torch.Generator | None) -> None:",
        _EMPTY,
        "    tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))",
    ),
    "normal": (
        "@staticmethod",
        "def _normal(tensor: torch.Tensor, std: float, generator: torch.Generator | None) -> None:",
        _EMPTY,
        "    tensor.copy_(drawn.normal_(0.0, std, generator=generator))",
    ),
    "orthogonal": (
        "@staticmethod",
        "def _orthogonal(tensor: torch.Tensor, rows: int, columns: int, generator: torch.Generator | None) -> None:",
        "    # As torch.nn.init.orthogonal_ draws: orthonormal columns, or rows where they are fewer.",
        _EMPTY,
        "    drawn = drawn.normal_(generator=generator).view(-1, rows, columns)",
        "    q, r = torch.linalg.qr(drawn if rows >= columns else drawn.mT)",
        "    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)",
        "    tensor.copy_((q if rows >= columns else q.mT).reshape(tensor.shape))",
    ),
}
