"""`reset_parameters` of an emitted module: every scheme of the file format as torch calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import Stored
from quanta_compiler.spec.circuit_spec import Init


def reset_lines(
    circuit: Circuit, stored: Sequence[Stored], constants: Sequence[Gate], *, uses_one: bool
) -> Iterator[str]:
    """Yield the method: parameters are drawn in float32 on the CPU, in the order of the file, then cast."""
    yield "@torch.no_grad()"
    yield "def reset_parameters(self, generator: torch.Generator | None = None) -> None:"
    yield '    """Draw all parameters anew: in float32 on the CPU, in file order, so that a seed means the same anywhere."""'
    yield "    if any(tensor.is_meta for tensor in [*self.parameters(), *self.buffers()]):"
    yield "        return"
    if stored:
        yield "    gates = self.gates"
    for tensor in stored:
        name, _, factor = tensor.key.partition(".")
        target = f'gates["{name}"]' + (f'["{factor}"]' if factor else "")
        yield f"    {target}.copy_({_draw(tensor)})"
    for gate in constants:
        assert gate.value is not None
        rows = ", ".join("[" + ", ".join(repr(float(number)) for number in row) + "]" for row in gate.value)
        yield f'    self.constant_{gate.name}.copy_(torch.tensor([{rows}], dtype=torch.float64, device="cpu"))'
    if uses_one:
        yield "    self.one.fill_(1.0)"
    if any(_scheme(tensor).scheme == "orthogonal" for tensor in stored):
        yield ""
        yield from _orthogonal()


def _scheme(tensor: Stored) -> Init:
    """Return the scheme of one tensor: `zeros` makes B of a low-rank gate zero, and its A as it is drawn by default."""
    init = tensor.gate.init
    assert init is not None, "a gate that stores numbers has a scheme"
    if init.scheme == "zeros" and tensor.key.endswith(".A"):
        return Init("kaiming_uniform")
    return init


def _draw(tensor: Stored) -> str:
    """Return an expression of the tensor's shape; the bounds are those of `torch.nn.init` for `[fan_out, fan_in]`."""
    init = _scheme(tensor)
    shape = ", ".join(str(size) for size in tensor.shape)
    empty = f'torch.empty({shape}, dtype=torch.float32, device="cpu")'
    if init.scheme == "kaiming_uniform":
        # As torch.nn.Linear draws its weight: uniform, bound 1/sqrt(columns).
        bound = 1 / math.sqrt(tensor.fan_in)
        return f"{empty}.uniform_({-bound!r}, {bound!r}, generator=generator)"
    if init.scheme == "xavier_uniform":
        bound = math.sqrt(6 / (tensor.fan_in + tensor.fan_out))
        return f"{empty}.uniform_({-bound!r}, {bound!r}, generator=generator)"
    if init.scheme == "normal":
        return f"{empty}.normal_(0.0, {init.std if init.std is not None else 0.02!r}, generator=generator)"
    if init.scheme == "orthogonal":
        matrices = math.prod(tensor.shape) // (tensor.fan_out * tensor.fan_in)
        drawn = f"self._orthogonal({matrices}, {tensor.fan_out}, {tensor.fan_in}, generator)"
        return f"{drawn}.view({shape})"
    if init.scheme == "identity" and tensor.gate.kind == "diagonal":
        return f'torch.ones({shape}, device="cpu")'
    if init.scheme == "identity":
        return f'torch.eye({tensor.fan_out}, {tensor.fan_in}, device="cpu")'
    return f'torch.zeros({shape}, device="cpu")'


def _orthogonal() -> Iterator[str]:
    yield "@staticmethod"
    yield "def _orthogonal(count: int, rows: int, columns: int, generator: torch.Generator | None) -> torch.Tensor:"
    yield '    """Return matrices with orthonormal columns, or rows where they are fewer: [count, rows, columns]."""'
    yield '    drawn = torch.empty(count, rows, columns, dtype=torch.float32, device="cpu")'
    yield "    for matrix in drawn:"
    yield "        torch.nn.init.orthogonal_(matrix, generator=generator)"
    yield "    return drawn"
