"""A circuit made ready to run: its table, the engines' forms of it, and where its matrices come from."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from itertools import cycle
from typing import TypeVar

import torch

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels.engine import Engine, Runner, engine_for
from quanta_compiler.kernels.matrices.rotations import Lookup, Rotations
from quanta_compiler.kernels.precision import Matrices, matrix_dtype, without_autocast
from quanta_compiler.kernels.rows import Rows
from quanta_compiler.kinds.kind import Form
from quanta_compiler.lowering.rows import operator_rows
from quanta_compiler.lowering.table import GateTable, MatrixSource, lower_table
from quanta_compiler.planner.planner import plan_operator
from quanta_compiler.spec import load_spec

_Any = TypeVar("_Any")


class _Runners(dict[Engine, Runner]):
    """What carries out a table, by the engine; made when it is first looked up, which costs no call after that."""

    def __init__(self, table: GateTable) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, engine: Engine) -> Runner:
        return self.setdefault(engine, engine.prepare(self._table))


class Executable:
    """A circuit's table with all that is derived from it once."""

    def __init__(self, text: str) -> None:
        spec = load_spec(json.loads(text))
        circuit = build_circuit(spec)
        self.tokens = spec.tokens
        self.table: GateTable = lower_table(circuit)
        self.in_features, self.out_features = circuit.in_features, circuit.out_features
        entries = [(entry, entry.matrix) for entry in self.table.entries if entry.matrix is not None]
        self._readers = [None if _is_rotation(source) else _reader(source) for _, source in entries]
        rotations = [entry for entry, source in entries if _is_rotation(source)]
        self._rotations = Rotations(rotations) if rotations else None
        self.first_stored = next(filter(None, (_stored_by(source) for _, source in entries)), None)
        """A tensor that the circuit stores, by its gate and part: all have one dtype. None where it stores none."""
        self.numbers = [entry.blocks * entry.rows * entry.columns for entry, _ in entries]
        self._runners = _Runners(self.table)
        self._circuit, self._optimizer = circuit, spec.optimizer

    @cached_property
    def rows(self) -> Rows | None:
        """What makes the operator row by row; None where there is no table for that."""
        found = operator_rows(plan_operator(self._circuit, self._optimizer), self._circuit)
        return None if found is None else Rows(found)

    def matrices(self, lookup: Lookup, like: torch.Tensor) -> list[torch.Tensor]:
        """Return the matrices of all entries that have one, from the tensors that a circuit stores.

        Those that come from nothing stored are on the device of `like`.
        """
        rotations = iter(self._rotations.matrices(lookup, like) if self._rotations is not None else ())
        return [next(rotations) if reader is None else reader(lookup) for reader in self._readers]

    def forward(self, x: torch.Tensor, matrices: Matrices) -> torch.Tensor:
        """Return `[..., in_features] -> [..., out_features]`, without gradient.

        With the matrices of two circuits, one behind the other, it is the difference of what they make, rounded once.

        Raises:
            ValueError: the tensors have other sizes or devices than the circuit and each other.

        """
        self.check(x, matrices)
        # No view: autograd lets nobody write into a view that an operator returns.
        runner, (own, minus) = self.runner(x.device, x.dtype), self.sides(matrices)
        return runner.forward_difference(x.contiguous(), own, minus) if minus else runner.forward(x.contiguous(), own)

    def runner(self, device: torch.device, dtype: torch.dtype) -> Runner:
        """Return what carries the table out on a device, with vectors of a dtype."""
        return self._runners[engine_for(device.type, dtype)]

    def in_words(self) -> str:
        """Return the engines that have carried it out in this process, and how."""
        ways = ((engine.name, runner.in_words()) for engine, runner in self._runners.items())
        return "; ".join(", ".join(filter(None, way)) for way in ways)

    def backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, needed: Sequence[bool]
    ) -> list[torch.Tensor]:
        """Return those gradients of the input and of the matrices, in this order, that are needed.

        `x` may be None where no gradient of a matrix is needed.

        Raises:
            ValueError: the tensors have other sizes or devices than the circuit and each other.

        """
        self._check_backward(grad, x, matrices, needed)
        flat_grad = grad.detach().reshape(-1, self.out_features).contiguous()
        flat = None if x is None else x.detach().reshape(-1, self.in_features).contiguous()
        runner = self.runner(grad.device, grad.dtype)
        own, minus = self.sides(matrices)
        if minus:
            dx, sums = runner.backward_difference(flat_grad, flat, (own, minus), needed)
        else:
            dx, sums = runner.backward(flat_grad, flat, own, needed)
        results = [] if dx is None else [dx.view(*grad.shape[:-1], self.in_features)]
        found = [(total, matrix) for total, matrix in zip(sums, matrices, strict=True) if total is not None]
        return results + [total.to(matrix.dtype).view(matrix.shape) for total, matrix in found]

    def sides(self, matrices: Sequence[_Any]) -> tuple[Sequence[_Any], Sequence[_Any]]:
        """Return what is of T and what is of S, of which there are none where only one circuit is meant."""
        count = len(self.numbers)
        return matrices[:count], matrices[count:]

    def check(self, x: torch.Tensor, matrices: Matrices) -> None:
        """Raise ValueError where the tensors do not go together."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"expected [..., {self.in_features}], got {list(x.shape)}")
        if not x.dtype.is_floating_point:
            raise ValueError(f"expected vectors of a floating-point dtype, got {x.dtype}")
        self._check_matrices(x.device, matrices)

    def _check_matrices(self, device: torch.device, matrices: Matrices) -> None:
        if len(matrices) not in (len(self.numbers), 2 * len(self.numbers)):
            raise ValueError(f"expected {len(self.numbers)} matrices, got {len(matrices)}")
        for matrix, numbers in zip(matrices, cycle(self.numbers), strict=False):
            if matrix.device != device:
                raise ValueError(f"the input is on {device}, the gates are on {matrix.device}")
            if matrix.numel() != numbers:
                raise ValueError(f"expected a gate of {numbers} numbers, got {list(matrix.shape)}")

    def _check_backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, matrices: Matrices, needed: Sequence[bool]
    ) -> None:
        """Raise ValueError where tensors do not go together as those of autograd do: the kernel would not see it."""
        if grad.shape[-1:] != (self.out_features,):
            raise ValueError(f"expected a gradient [..., {self.out_features}], got {list(grad.shape)}")
        if len(needed) != 1 + len(matrices):
            raise ValueError(f"expected to be asked for {1 + len(matrices)} gradients, got {len(needed)}")
        if x is None:
            if any(needed[1:]):
                raise ValueError("the gradient of a gate needs the input")
            self._check_matrices(grad.device, matrices)
            return
        self.check(x, matrices)
        if x.shape[:-1] != grad.shape[:-1]:
            raise ValueError(f"the input is {list(x.shape)}, the gradient of the result {list(grad.shape)}")
        if x.dtype != grad.dtype:
            raise ValueError(f"the input is {x.dtype}, the gradient of the result {grad.dtype}")
        if x.device != grad.device:
            raise ValueError(f"the input is on {x.device}, the gradient of the result on {grad.device}")


def _is_rotation(source: MatrixSource) -> bool:
    """Return whether matrices are not what is stored, but computed from it or from nothing."""
    return bool(source.gate.parts) or source.gate.matrix.is_made


def _stored_by(source: MatrixSource) -> tuple[str, str] | None:
    if source.gate.matrix.given is not None:
        return source.gate.name, "value"
    if _is_rotation(source):
        owners = (part.parameter for part in source.gate.parts or (source.gate,) if part.form is not Form.SIGNS)
        return next(((owner, "") for owner in owners), None)
    return source.gate.parameter, source.factor or ("B" if source.gate.form is Form.FACTORS else "")


def _reader(source: MatrixSource) -> Callable[[Lookup], torch.Tensor]:
    """Return what makes an entry's matrices, `[blocks, rows, columns]` in any shape, from stored tensors."""
    gate, owner = source.gate, source.gate.parameter
    if gate.matrix.given is not None:
        return lambda lookup: lookup(gate.name, "value")
    if gate.form is Form.FACTORS and not source.factor:
        if gate.transpose:
            return lambda lookup: _product(lookup(owner, "B"), lookup(owner, "A")).mT
        return lambda lookup: _product(lookup(owner, "B"), lookup(owner, "A"))
    if gate.transpose and not gate.is_diagonal:
        return lambda lookup: lookup(owner, source.factor).mT
    return lambda lookup: lookup(owner, source.factor)


def _product(b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Return B A in the dtype of the sums: it is no rounding of its own."""
    dtype = matrix_dtype(b.dtype)
    with without_autocast(b.device):
        return b.to(dtype) @ a.to(dtype)


@lru_cache(maxsize=512)
def executable(circuit: str) -> Executable:
    """Return a circuit's executable form, made once for every text.

    It is made in a thread of its own: the caller's may be in inference mode, under a default device, in a trace or in a
    transform of torch.func, and the tensors that are kept would be good for nothing else.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(Executable, circuit).result()
