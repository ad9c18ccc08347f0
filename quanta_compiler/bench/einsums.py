"""The circuit as a tensor network that others contract: torch.einsum at once or gate by gate, and opt_einsum.

Where our report publishes a low-rank gate as one operand, here it is two: nobody would write out B A. Matrices of `ry`
and `orthogonal` gates are computed from what trains in every pass.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import opt_einsum
import torch

from quanta_compiler.bench.contestants import Contestant, Cost, LeftOutError, Setting
from quanta_compiler.bench.options import FORWARD, OPERATOR, TRAINING
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import Stored, all_stored, inner_size
from quanta_compiler.kernels.matrices.rotations import made_by
from quanta_compiler.kinds.kind import Form
from quanta_compiler.planner.published import equation as equation_of
from quanta_compiler.runtime.rotation_functions import ry

_LETTERS = 52
"""How many indices torch.einsum can tell apart."""
Contract = Callable[..., Any]
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Factor:
    """A tensor of the network: what it is stored as, its legs, and those of them that it leaves in the state."""

    key: str
    legs: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Network:
    """The gates' tensors in the order in which they are applied; `sizes` is indexed by leg."""

    factors: tuple[_Factor, ...]
    sizes: tuple[int, ...]

    def shape(self, legs: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.sizes[leg] for leg in legs)


def _network(circuit: Circuit) -> _Network:
    if any(gate.form is Form.RESHAPE for gate in circuit.gates):
        raise LeftOutError("the circuit has a `slice` gate, which an einsum can only write as a matrix of 0 and 1")
    if any(gate.form is Form.CIRCUIT for gate in circuit.gates):
        raise LeftOutError("the circuit has a `pauli` gate, which an einsum can only write as a whole matrix")
    sizes = [leg.size for leg in circuit.legs]
    factors: list[_Factor] = []
    for gate in circuit.gates:
        if gate.form is Form.FACTORS:
            sizes.append(inner_size(gate, circuit.size(gate.rows), circuit.size(gate.columns)) or 1)
        factors += _factors(gate, len(sizes) - 1)
    return _Network(tuple(factors), tuple(sizes))


def _factors(gate: Gate, bond: int) -> list[_Factor]:
    """Return a gate's tensors, the one that meets the state first in front."""
    if gate.is_diagonal:
        return [_Factor(gate.parameter, gate.per + gate.columns, gate.per + gate.columns)]
    # A transposed gate is the same stored matrix with its legs the other way round.
    rows, columns = (gate.columns, gate.rows) if gate.transpose else (gate.rows, gate.columns)
    if gate.form is Form.FACTORS:
        left = _Factor(f"{gate.parameter}.B", (*gate.per, *rows, bond), gate.per)
        right = _Factor(f"{gate.parameter}.A", (*gate.per, bond, *columns), gate.per)
        return [left, right] if gate.transpose else [right, left]
    key = gate.name if gate.matrix.given is not None else gate.parameter
    return [_Factor(key, gate.per + rows + columns, gate.per)]


class _Rival:
    """The network with its tensors: leaves of autograd, shaped as their first gate needs them."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.circuit = circuit = setting.compiled.circuit
        self.network = network = _network(circuit)
        shapes = {factor.key: network.shape(factor.legs) for factor in reversed(network.factors)}
        self.leaves: dict[str, torch.Tensor] = {}
        self._rotations = [stored for stored in all_stored(circuit) if stored.gate.matrix.is_made]
        """What is not stored as it is contracted."""
        for stored in all_stored(circuit):
            shape = stored.shape if stored.gate.matrix.is_made else shapes[stored.key]
            leaf = setting.gates[stored.key].view(shape).detach().requires_grad_(not stored.gate.frozen)
            self.leaves[stored.key] = leaf
        self.all = dict(self.leaves)
        like: dict[str, Any] = {"dtype": setting.dtype, "device": setting.device}
        for gate in circuit.gates:
            if gate.matrix.given is not None:
                self.all[gate.name] = torch.tensor(gate.matrix.given, **like).view(shapes[gate.name])
            elif gate.form is Form.SIGNS:
                self.all[gate.name] = torch.ones(shapes[gate.name], **like)
                self.all[gate.name][-1, -1] = -1
        self._layout = network.shape(circuit.inputs)
        self._reads = [(factor.key, network.shape(factor.legs)) for factor in network.factors]

    def read(self) -> list[torch.Tensor]:
        """Return the factors' tensors; a shared one whose second gate splits it otherwise is viewed anew."""
        made = {stored.key: _rotation_matrix(stored, self.leaves[stored.key]) for stored in self._rotations}
        tensors = self.all | made
        return [tensors[key] if tensors[key].shape == shape else tensors[key].view(shape) for key, shape in self._reads]

    def state(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input as `[tokens, *layout]`."""
        return _resized(x, self.circuit.in_size).reshape(-1, *self._layout)

    def output(self, state: torch.Tensor) -> torch.Tensor:
        """Return the last state as `[tokens, out_features]`."""
        return _resized(state.reshape(-1, self.circuit.out_size), self.circuit.out_features)

    def contestant(self, name: str, title: str, forward: Forward, numbers: Sequence[float]) -> Contestant:
        """Return a chain of tensors of these `numbers`: each may be copied, and has a gradient later."""
        flops, item = self.setting.circuit_flops[0], self.setting.dtype.itemsize
        return Contestant(
            name=name,
            title=title,
            forward=forward,
            parameters=tuple(self.leaves[key] for key in self.setting.trained),
            own=tuple(self.all.values()),
            costs={
                FORWARD: Cost(flops, item * (numbers[0] + 3 * max(numbers))),
                TRAINING: Cost(3 * flops, 4 * item * sum(numbers)),
            },
            is_circuit=True,
        )


def _rotation_matrix(stored: Stored, numbers: torch.Tensor) -> torch.Tensor:
    """Return what a gate stores, `[*per, ...]`, as its matrices `[*per, rows, columns]`, contiguous."""
    if stored.gate.form is Form.ANGLE:
        return ry(numbers.flatten()).view(*numbers.shape[:-1], 2, 2)
    return made_by(stored.gate.matrix, stored.part.fan_out, stored.part.fan_in)(numbers).contiguous()


@dataclass(frozen=True, slots=True)
class _Contraction:
    """One einsum over the whole network, `[*operands] -> output`."""

    equation: str
    shapes: tuple[tuple[int, ...], ...]
    symbols: int


def _contraction(terms: Sequence[Sequence[int]], output: Sequence[int], sizes: Sequence[int]) -> _Contraction:
    shapes = tuple(tuple(sizes[leg] for leg in term) for term in terms)
    return _Contraction(equation_of(terms, output), shapes, len(sizes))


def _apply_contraction(circuit: Circuit, network: _Network, tokens: int) -> _Contraction:
    batch = len(network.sizes)
    terms = [(batch, *circuit.inputs), *(factor.legs for factor in network.factors)]
    return _contraction(terms, (batch, *circuit.outputs), (*network.sizes, tokens))


def _operator_contraction(circuit: Circuit, network: _Network) -> _Contraction:
    """Return the einsum of the matrix, identities last.

    An axis that no gate contracts would stand in the output twice: its two sides are tied by an identity.
    """
    terms = [factor.legs for factor in network.factors]
    sizes, output = list(network.sizes), []
    for leg in circuit.outputs:
        if leg in circuit.inputs:
            terms.append((len(sizes), leg))
            output.append(len(sizes))
            sizes.append(sizes[leg])
        else:
            output.append(leg)
    return _contraction(terms, (*output, *circuit.inputs), sizes)


def optimizer_for(operands: int) -> str:
    """Return how opt_einsum is to search, as thoroughly as the code of the paper on up to four axes.

    On five axes that code takes `branch-all`, which searches all_pairs on 8x8x4x4x4 for 11 s and finds what `branch-2`
    finds in 0.01 s.
    """
    return "optimal" if operands <= 7 else "branch-2" if operands <= 11 else "auto"


def opt_einsum_contestant(setting: Setting) -> Contestant:
    """Return one expression over the input and all gates, planned once, as in the code of the QuanTA paper."""

    def prepare(contraction: _Contraction) -> Contract:
        optimizer = optimizer_for(len(contraction.shapes))
        expression: Contract = opt_einsum.contract_expression(
            contraction.equation, *contraction.shapes, optimize=optimizer
        )
        return expression

    return _whole("opt-einsum", "opt_einsum.contract_expression, planned once", setting, prepare)


def einsum_contestant(setting: Setting) -> Contestant:
    """Return torch.einsum over the input and all gates as torch ships it: with opt_einsum's order, at every call."""

    def prepare(contraction: _Contraction) -> Contract:
        if contraction.symbols > _LETTERS:
            raise LeftOutError(f"torch.einsum knows {_LETTERS} indices, the circuit has {contraction.symbols}")
        equation = contraction.equation
        return lambda *operands: torch.einsum(equation, *operands)

    return _whole("einsum", "torch.einsum over everything, planned at every call", setting, prepare)


def _whole(name: str, title: str, setting: Setting, prepare: Callable[[_Contraction], Contract]) -> Contestant:
    rival = _Rival(setting)
    circuit, network = rival.circuit, rival.network
    apply = _apply_contraction(circuit, network, setting.tokens)
    contract = prepare(apply)

    def forward(x: torch.Tensor) -> torch.Tensor:
        state = rival.state(x)
        return rival.output(contract(state, *rival.read()))

    applying = rival.contestant(name, title, forward, _intermediates(apply))
    operator = _operator_contraction(circuit, network)
    try:
        contract_gates = prepare(operator)
    except LeftOutError:
        # The matrix has an index more for every axis that no gate contracts.
        return applying
    like: dict[str, Any] = {"dtype": setting.dtype, "device": setting.device}
    identities = [torch.eye(size, **like) for size, _ in operator.shapes[len(network.factors) :]]

    def matrix() -> torch.Tensor:
        made = contract_gates(*rival.read(), *identities).reshape(circuit.out_size, circuit.in_size)
        return _resized(_resized(made.t(), circuit.out_features).t(), circuit.in_features)

    cost = Cost(setting.circuit_flops[1], 3 * setting.dtype.itemsize * sum(_intermediates(operator)))
    return replace(applying, costs={**applying.costs, OPERATOR: cost}, operator=matrix)


def gate_by_gate_contestant(setting: Setting) -> Contestant:
    """Return one torch.einsum after the other, in the order of the file."""
    rival = _Rival(setting)
    steps, volumes = _steps(rival.circuit, rival.network)

    def forward(x: torch.Tensor) -> torch.Tensor:
        state = rival.state(x)
        for equation, tensor in zip(steps, rival.read(), strict=True):
            state = torch.einsum(equation, state, tensor)
        return rival.output(state)

    numbers = [float(setting.tokens * volume) for volume in volumes]
    return rival.contestant("gate-by-gate", "one torch.einsum for every gate", forward, numbers)


def _steps(circuit: Circuit, network: _Network) -> tuple[list[str], list[int]]:
    """Return the equations of gate by gate, and how many numbers a token's state has after each."""
    batch = len(network.sizes)
    state = [batch, *circuit.inputs]
    equations, volumes = [], [circuit.in_size]
    for place, factor in enumerate(network.factors):
        before = list(state)
        state = _after(state, factor)
        if place == len(network.factors) - 1:
            state = [batch, *circuit.outputs]
        if len({*before, *factor.legs}) > _LETTERS:
            raise LeftOutError(f"torch.einsum knows {_LETTERS} indices, and a gate meets more")
        equations.append(equation_of([before, factor.legs], state))
        volumes.append(math.prod(network.shape(state[1:])))
    return equations, volumes


def _after(state: list[int], factor: _Factor) -> list[int]:
    """Return the legs of the state after a factor: new ones stand where the contracted ones stood."""
    new = [leg for leg in factor.legs if leg not in state]
    contracted = [leg for leg in factor.legs if leg in state and leg not in factor.kept]
    if len(new) == len(contracted):
        replaced = dict(zip(contracted, new, strict=True))
        return [replaced.get(leg, leg) for leg in state]
    return [leg for leg in state if leg not in contracted] + new


def _resized(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Return `[n, width]`: rows padded with zeros or truncated, untouched where they fit."""
    missing = width - rows.shape[1]
    return rows if missing == 0 else torch.nn.functional.pad(rows, (0, missing))


def _intermediates(contraction: _Contraction) -> list[float]:
    """Return how many numbers each result of opt_einsum's order has, the operands' first."""
    optimizer = optimizer_for(len(contraction.shapes))
    _, info = opt_einsum.contract_path(contraction.equation, *contraction.shapes, shapes=True, optimize=optimizer)
    return [sum(math.prod(shape) for shape in contraction.shapes), *map(float, info.size_list)]
