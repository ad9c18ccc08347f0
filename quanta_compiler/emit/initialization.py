"""`reset_parameters` of an emitted module: every scheme of the file format as torch calls; and its constants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from quanta_compiler.emit.computed import stored_name
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import Stored, matrix_shape
from quanta_compiler.spec.circuit_spec import Init


def reset_lines(stored: Sequence[Stored]) -> Iterator[str]:
    """Yield the method: parameters are drawn in float32 on the CPU, in the order of the file, then cast."""
    yield "@torch.no_grad()"
    yield "def reset_parameters(self, generator: torch.Generator | None = None) -> None:"
    yield '    """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""'
    yield "    if any(parameter.is_meta for parameter in self.parameters()):"
    yield "        return"
    if stored:
        yield "    gates = self.gates"
    calls = [_draw(tensor) for tensor in stored]
    for call in calls:
        yield f"    {call}"
    for scheme, lines in _HELPERS.items():
        if any(call.startswith(f"self._{scheme}(") for call in calls):
            yield ""
            yield from lines


def _scheme(tensor: Stored) -> Init:
    """Return the scheme of one tensor: `zeros` makes B of a low-rank gate zero, and its A as it is drawn by default."""
    init = tensor.gate.init
    assert init is not None, "a gate that stores numbers has a scheme"
    part = tensor.part
    scheme = {"zeros": part.zeros, "identity": part.identity}.get(init.scheme, init.scheme)
    return Init(scheme, init.std)


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
    if init.scheme == "ones":
        return f"{target}.fill_(1.0)"
    if init.scheme == "identity":
        return f'{target}.copy_(torch.eye({tensor.fan_out}, {tensor.fan_in}, device="cpu"))'
    return f"{target}.zero_()"


def constant_lines(circuit: Circuit, constants: Sequence[Gate], like: str, *, uses_one: bool) -> Iterator[str]:
    """Yield properties for what no state dict holds: no buffers, which others would move, or fill with noise.

    `like` is a tensor that has the device and the dtype of the module.
    """
    for gate in constants:
        assert gate.value is not None
        yield from ["", "@property", f"def constant_{gate.name}(self) -> torch.Tensor:"]
        yield f'    """What the file gives for {gate.name}, {list(matrix_shape(circuit, gate))}."""'
        yield "    rows = ("
        for row in gate.value:
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
