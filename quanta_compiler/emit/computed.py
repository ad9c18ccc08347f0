"""Leaves that are computed from what is stored: a statement for each, or one for all RY."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.ir.two_design import ANGLES
from quanta_compiler.lowering.program import Load, PauliProgram, Program

Statement = tuple[str, str, str]
"""A statement, a comment on its result, and a label, with which the statements of one step end."""

_A_LINE = 6
"""Parameters that a line lists."""


def stored_name(key: str) -> str:
    """Return how the module reads a tensor of its state dict: `g0.B` is `gates["g0"]["B"]`."""
    return "gates" + "".join(f'["{name}"]' for name in key.split("."))


@dataclass(slots=True)
class ComputedLeaves:
    """Writes the computed leaves of one program, each once."""

    program: Program
    functions: Mapping[PauliProgram, str]
    """The names of the functions that apply `pauli` gates."""
    like: str
    """A tensor that has the dtype and the device of the module."""
    helpers: list[str] = field(default_factory=list)
    """The functions that the statements call."""
    known: dict[str, str] = field(default_factory=dict)
    """Names that are there already, with their dimensions."""

    def load(self, load: Load) -> tuple[str, str, list[Statement]]:
        """Return the name of a leaf, its dimensions, and the statements that make it where nothing has yet."""
        gate = load.leaf.gate
        assert gate is not None
        if gate.kind == "ry":
            return self._ry(gate)
        if gate.kind == "cz":
            # Axes of size 1 are left out.
            rows, columns = (1, 1, *(self._size((leg,)) for leg in gate.columns))[-2:]
            name = "cz" if (rows, columns) == (2, 2) else f"cz_{rows}x{columns}"
            code = f"{self._helper('_cz')}({self.like}, {rows}, {columns})"
            return name, f"{rows}, {columns}", self._once(name, code, f"{rows}, {columns}")
        name = f"matrix_{gate.parameter}"
        dims, code = self._pauli(load) if gate.kind == "pauli" else self._orthogonal(gate)
        return name, dims, self._once(name, code, dims)

    def _once(self, name: str, code: str, dims: str) -> list[Statement]:
        if name in self.known:
            return []
        self.known[name] = dims
        return [(f"{name} = {code}", "", "")]

    def _helper(self, name: str) -> str:
        self.helpers.append(name)
        return f"Circuit.{name}"

    def _size(self, legs: tuple[int, ...]) -> int:
        return math.prod(self.program.plan.sizes[leg] for leg in legs)

    def _owner_sides(self, gate: Gate) -> tuple[int, int]:
        """Return rows and columns of the matrix that the owner of the parameter has."""
        rows, columns = self._size(gate.rows), self._size(gate.columns)
        return (columns, rows) if gate.transpose else (rows, columns)

    # RY

    def _ry(self, gate: Gate) -> tuple[str, str, list[Statement]]:
        first, count = self._places()[gate.parameter, gate.angle]
        place, dims = (f"ry[{first}]", "2, 2") if not gate.per else (f"ry[{first}:{first + count}]", f"{count}, 2, 2")
        if "ry" in self.known:
            return place, dims, []
        self.known["ry"] = ""
        return place, dims, [(line, "", "") for line in self._ry_lines()]

    def _places(self) -> dict[tuple[str, int | None], tuple[int, int]]:
        """Return where the matrices of every RY stand among all: the first, and how many there are."""
        places: dict[tuple[str, int | None], tuple[int, int]] = {}
        first = 0
        for gate in self._ry_gates():
            if gate.parameter == ANGLES and gate.angle is not None:
                places[gate.parameter, gate.angle] = gate.angle, 1
            elif (gate.parameter, gate.angle) not in places:
                count = self._size(gate.per)
                places[gate.parameter, gate.angle] = first, count
                first += count
        return places

    def _ry_gates(self) -> Iterator[Gate]:
        for operation in self.program.operations:
            gate = operation.leaf.gate if isinstance(operation, Load) else None
            if gate is not None and gate.kind == "ry":
                yield gate

    def _ry_lines(self) -> Iterator[str]:
        """Yield what computes all RY at once."""
        call = self._helper("_ry")
        gates = {gate.parameter: gate for gate in self._ry_gates()}
        if all(gate.angle is not None for gate in gates.values()):
            yield f"ry = {call}({ANGLES})"
            return
        read = [stored_name(name) + (".flatten()" if gate.per else "") for name, gate in gates.items()]
        if len(read) == 1:
            yield f"ry = {call}({read[0]})"
            return
        for first in range(0, len(read), _A_LINE):
            yield f"{ANGLES} {'+' if first else ''}= [{', '.join(read[first : first + _A_LINE])}]"
        yield f"ry = {call}(torch.cat({ANGLES}))"

    # Whole matrices

    def _orthogonal(self, gate: Gate) -> tuple[str, str]:
        rows, columns = self._owner_sides(gate)
        size, smaller = max(rows, columns), min(rows, columns)
        kept = smaller if gate.rank_parameters is None else min(smaller, gate.rank_parameters)
        # The first rows of Q are the first columns of its transpose, which S with the other sign makes.
        numbers = ("-" if rows < columns else "") + stored_name(gate.parameter)
        call = self._helper("_cayley" if gate.map == "cayley" else "_exponential")
        dims = [self._size((leg,)) for leg in gate.per] + [size, smaller]
        return ", ".join(map(str, dims)), f"{call}({numbers}, {size}, {smaller}, {kept})"

    def _pauli(self, load: Load) -> tuple[str, str]:
        gate, pauli = load.leaf.gate, load.pauli
        assert gate is not None
        assert pauli is not None
        rows, size = pauli.plan.count, pauli.plan.size
        angles, eye = stored_name(gate.parameter), self._helper("_eye")

        def made(numbers: str) -> str:
            rows_of = f"{eye}({numbers}, {rows}, {size})"
            return f"Circuit.{self.functions[pauli]}({rows_of}, {numbers})" if pauli in self.functions else rows_of

        if not gate.per:
            return f"{rows}, {size}", made(angles)
        each = f"{angles}.view({self._size(gate.per)}, {pauli.plan.angles})"
        dims = f"{self._size(gate.per)}, {rows}, {size}"
        return dims, f"torch.stack([{made(ANGLES)} for {ANGLES} in {each}])"
