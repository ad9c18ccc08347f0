"""`operator()` of an emitted module: built at once, or slice by slice, each written to its place."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quanta_compiler.emit.body import WIDTH, Body
from quanta_compiler.emit.computed import Names
from quanta_compiler.emit.expressions import Expressions
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.lowering.program import Access, Layout, Program

_CONTEXT = "torch.autograd.function.BackwardCFunction"


@dataclass(frozen=True, slots=True)
class _Dimension:
    """Neighbouring legs of the result, as one dimension of the matrix and of a slice."""

    legs: Layout
    size: str
    """The size in the matrix, as Python text."""
    is_fixed: bool = False
    """Whether a slice is one index of it."""
    written: str = ""
    """The part of a slice that is written, where the rest is cut off."""


@dataclass(frozen=True, slots=True)
class _Side:
    """The rows or the columns of the matrix: the part that slices fill, and its dimensions."""

    dimensions: tuple[_Dimension, ...]
    part: str = ":"
    is_padded: bool = False


class SlicePlaces:
    """The matrix viewed so that a slice is one index of a dimension, and the slice with the dimensions that remain."""

    def __init__(self, program: Program, expressions: Expressions) -> None:
        assert program.loop is not None
        self.program = program
        self.expressions = expressions
        self.loop = program.loop
        self.slices = program.loop.slices
        self.layout = program.operations[-1].layout
        self.tied = [leg for tie in self.loop.ties for leg in tie]
        output, rows = program.plan.output, program.plan.rows
        self.sides = (
            self._side(output[:rows], program.out_features, program.out_size),
            self._side(output[rows:], program.in_features, program.in_size),
        )
        self.dimensions = [dimension for side in self.sides for dimension in side.dimensions]

    @property
    def fills_matrix(self) -> bool:
        """Return whether every number of the matrix is in a slice."""
        return not self.tied and not any(side.is_padded for side in self.sides)

    def place_code(self) -> str:
        """Return the view of `matrix` that slice `i` fills."""
        parts = [side.part for side in self.sides]
        code = "matrix"
        if parts != [":", ":"]:
            code += f"[{parts[0]}]" if parts[1] == ":" else f"[{', '.join(parts)}]"
        fixed = [i for i, dimension in enumerate(self.dimensions) if dimension.is_fixed]
        if fixed or any(len(side.dimensions) != 1 for side in self.sides):
            code += f".view({', '.join(dimension.size for dimension in self.dimensions)})"
        if fixed:
            code += f"[{', '.join([':'] * fixed[0] + ['i'])}]"
        free = [dimension.legs[0] for dimension in self.dimensions if not dimension.is_fixed and dimension.legs]
        for new, old in self.loop.ties:
            code += f".diagonal(0, {free.index(new)}, {free.index(old)})"
            free = [leg for leg in free if leg not in (new, old)] + [old]
        return code

    def slice_code(self) -> str:
        """Return the slice with the dimensions of its place."""
        tied = tuple((old,) if old in self.layout else () for _, old in self.loop.ties)
        free = [one for one in self.dimensions if not one.is_fixed and not set(one.legs[:1]) & set(self.tied)]
        code = self.expressions.access(Access(self.program.output, (*(one.legs for one in free), *tied)))
        written = [one.written or ":" for one in free]
        if written != [":"] * len(free):
            code += f"[{', '.join(written)}]"
        if () in tied:
            sizes = [-1] * len(free) + [self.program.plan.size((old,)) for _, old in self.loop.ties]
            code += f".expand({', '.join(map(str, sizes))})"
        return code

    def _side(self, legs: Layout, features: int, size: int) -> _Side:
        if features >= size:
            return _Side(self._runs(legs), f":{size}" if features > size else ":", features > size)
        fixed = tuple(leg for leg in legs if leg in self.loop.legs)
        if not fixed:
            return _Side((_Dimension(legs, str(features), written=f":{features}"),))
        width = size // self.program.plan.size(fixed)
        if features % width == 0:
            return _Side(self._runs(legs))
        # The last slice is cut: it is written to as many rows or columns as there are.
        rest = _Dimension(legs[len(fixed) :], "-1", written=f": {features} - i * {width}")
        return _Side((rest,), f"i * {width} : (i + 1) * {width}")

    def _runs(self, legs: Layout) -> tuple[_Dimension, ...]:
        """Return legs cut where a slice has them apart, with one dimension for those that the loop fixes."""
        groups: list[Layout] = []
        for leg in legs:
            if groups and self._joins(groups[-1][-1], leg):
                groups[-1] = (*groups[-1], leg)
            else:
                groups.append((leg,))
        return tuple(
            _Dimension(group, str(self.slices), is_fixed=True)
            if group[0] in self.loop.legs
            else _Dimension(group, str(self.program.plan.size(group)))
            for group in groups
        )

    def _joins(self, first: int, second: int) -> bool:
        """Return whether two neighbours of the result are neighbours in a slice, or are both fixed."""
        if first in self.loop.legs or second in self.loop.legs:
            return first in self.loop.legs and second in self.loop.legs
        if first in self.tied or second in self.tied:
            return False
        return self.layout.index(first) + 1 == self.layout.index(second)


class OperatorLines:
    """The method, and where it works slice by slice, what makes the slices and their gradients."""

    def __init__(self, circuit: Circuit, program: Program, names: Names, peak_bytes: int | None) -> None:
        self.circuit = circuit
        self.program = program
        self.names = names
        self.peak_bytes = peak_bytes
        """What it needs, where that is so much that the memory is looked at first."""
        self.reads_gates = any(gate.matrix.trains for gate in circuit.gates)
        self.shape = circuit.out_features, circuit.in_features
        self.sliced = program if program.loop is not None else program.in_slices
        """The program with a loop, if the matrix is so large that there is one."""
        if self.sliced is None:
            return
        # The statements before the loop, and those in it, are written once: the method and the class share their names.
        assert self.sliced.loop is not None
        body, first = Body(self.sliced, names), self.sliced.loop.first
        self.before = list(body.lines(body.statements(self.sliced.operations[:first])))
        self.arguments = body.enter_loop()
        self.inside = list(body.lines(body.statements(self.sliced.operations[first:])))
        self.places = SlicePlaces(self.sliced, body)

    def method(self) -> Iterator[str]:
        """Yield `operator`, and what its slices are made from."""
        yield "def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:"
        yield f'    """Return the circuit\'s matrix, {list(self.shape)}, differentiable.'
        yield ""
        if self.program.loop is not None:
            slices = self.places.slices
            yield f"    It is built in {slices} slices, each written to its place: no second matrix is made."
            yield "    Nothing of a slice is kept for backward, which makes it again."
            yield ""
        yield "    With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without"
        yield "    gradients and computed in the dtype of the parameters, and it is returned."
        yield '    """'
        yield "    if add_to is not None:"
        yield f"        if add_to.shape != {self.shape}:"
        message = f"expected {list(self.shape)} to add to, got "
        yield f'            raise ValueError(f"{message}{{list(add_to.shape)}}")'
        yield from self._add()
        if self.peak_bytes is not None:
            yield f"    self._require_memory({self.peak_bytes // 4})"
        if self.program.at_once is None:
            yield from self._at_once(self.program)
        else:
            yield from self._build_in_slices()
            yield ""
            yield "def _operator_at_once(self) -> torch.Tensor:"
            yield '    """Return the same matrix, built without a loop."""'
            yield from self._at_once(self.program.at_once)
        if self.sliced is not None:
            yield ""
            yield from self._parts()

    def _add(self) -> Iterator[str]:
        yield "        with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):"
        if self.sliced is None:
            yield "            return add_to.add_(self.operator(), alpha=scale)"
            return
        if self.peak_bytes is not None:
            yield f"            self._require_memory({self.peak_bytes // 4 - math.prod(self.shape)})"
        yield "            parts = self._operator_parts()"
        yield f"            for i in range({self.places.slices}):"
        yield "                self._Slices.place(add_to, i).add_(self._Slices.make(i, *parts), alpha=scale)"
        yield "        return add_to"

    def _build_in_slices(self) -> Iterator[str]:
        yield "    # A compiler would unroll the loop; torch.func and forward differentiation know nothing of slices."
        yield "    is_forward = torch.autograd.forward_ad._current_level >= 0"
        yield "    if is_forward or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():"
        yield "        return self._operator_at_once()"
        yield "    parts = self._operator_parts()"
        yield "    result: torch.Tensor = self._Slices.apply(*parts)  # type: ignore[no-untyped-call, unused-ignore]"
        yield "    return result"

    def _at_once(self, program: Program) -> Iterator[str]:
        circuit = self.circuit
        if self.reads_gates:
            yield "    gates = self.gates"
        lines, result = Body(program, self.names).whole(f"{circuit.out_size}, {circuit.in_size}")
        yield from lines
        rows, columns = circuit.out_features - circuit.out_size, circuit.in_features - circuit.in_size
        if rows < 0 or columns < 0:
            kept = min(circuit.out_features, circuit.out_size), min(circuit.in_features, circuit.in_size)
            yield f"    {result} = {result}[:{kept[0]}, :{kept[1]}].contiguous()"
        if rows > 0 or columns > 0:
            pads = f"(0, {max(columns, 0)}, 0, {max(rows, 0)})"
            yield f"    {result} = torch.nn.functional.pad({result}, {pads})"
        yield f"    return {result}"

    def _parts(self) -> Iterator[str]:
        yield "def _operator_parts(self) -> tuple[torch.Tensor, ...]:"
        yield '    """Return what every slice of the operator is made from: the arguments of `_Slices.make`."""'
        if self.reads_gates:
            yield "    gates = self.gates"
        yield from self.before
        values = list(self.arguments.values())
        line = f"    return {', '.join(values)}" + ("," if len(values) == 1 else "")
        if len(line) <= WIDTH:
            yield line
            return
        yield "    return ("
        yield from (f"        {value}," for value in values)
        yield "    )"

    def slices_class(self) -> Iterator[str]:
        """Yield the class inside of the class that makes slices, if there are any."""
        if self.sliced is None:
            return
        yield "class _Slices(torch.autograd.Function):" if self.program.loop is not None else "class _Slices:"
        axes = self.sliced.plan.in_words(self.places.loop.legs)
        yield f'    """The operator in {self.places.slices} slices, one for each index of {axes}."""'
        functions = [self._make(), self._place()]
        if self.program.loop is not None:
            functions += [self._forward(), _setup_context(), self._backward()]
        for lines in functions:
            yield ""
            yield "    @staticmethod"
            yield from (f"    {line}" if line else "" for line in lines)

    def _make(self) -> Iterator[str]:
        yield from _signature("make", ["i: int", *(f"{name}: torch.Tensor" for name in self.arguments)], "torch.Tensor")
        yield '    """Return slice `i`, with the dimensions of its place."""'
        yield from self.inside
        yield f"    return {self.places.slice_code()}"

    def _place(self) -> Iterator[str]:
        yield "def place(matrix: torch.Tensor, i: int) -> torch.Tensor:"
        yield '    """Return a view of where slice `i` stands in the matrix."""'
        yield f"    return {self.places.place_code()}"

    def _forward(self) -> Iterator[str]:
        yield "def forward(*parts: torch.Tensor) -> torch.Tensor:"
        made = "new_empty" if self.places.fills_matrix else "new_zeros"
        yield "    slices = Circuit._Slices"
        yield f"    result = parts[0].{made}{self.shape}"
        yield f"    for i in range({self.places.slices}):"
        yield "        slices.place(result, i).copy_(slices.make(i, *parts))"
        yield "    return result"

    def _backward(self) -> Iterator[str]:
        arguments = [f"ctx: {_CONTEXT}", "gradient: torch.Tensor"]
        yield from _signature("backward", arguments, "tuple[torch.Tensor | None, ...]")
        yield "    slices = Circuit._Slices"
        yield "    twice = torch.is_grad_enabled()  # gradients of the gradients are wanted"
        yield "    needed = ctx.needs_input_grad"
        yield "    with torch.enable_grad():"
        yield "        # Views of their own, so that what a part was made from is not differentiated here."
        yield "        parts = [part.view_as(part) for part in ctx.saved_tensors]"
        yield "        wanted = [part for part, is_needed in zip(parts, needed) if is_needed]"
        yield "        # A sum of many slices is rounded once."
        yield "        wide = [torch.promote_types(part.dtype, torch.float32) for part in wanted]"
        yield "        sums = [torch.zeros_like(part, dtype=dtype) for part, dtype in zip(wanted, wide)]"
        yield f"        for i in range({self.places.slices}):"
        yield "            place = slices.place(gradient, i)"
        yield "            found = torch.autograd.grad(slices.make(i, *parts), wanted, place, create_graph=twice)"
        yield "            sums = [total + more for total, more in zip(sums, found)]"
        yield "    gradients = (total.to(part.dtype) for total, part in zip(sums, wanted))"
        yield "    return tuple(next(gradients) if is_needed else None for is_needed in needed)"


def _setup_context() -> Iterator[str]:
    arguments = [f"ctx: {_CONTEXT}", "inputs: tuple[torch.Tensor, ...]", "output: torch.Tensor"]
    yield from _signature("setup_context", arguments, "None")
    yield "    ctx.save_for_backward(*inputs)"


def _signature(name: str, arguments: Sequence[str], result: str) -> Iterator[str]:
    line = f"def {name}({', '.join(arguments)}) -> {result}:"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"def {name}("
    yield from (f"    {argument}," for argument in arguments)
    yield f") -> {result}:"
