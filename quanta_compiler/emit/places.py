"""Where the slices of an operator stand in its matrix, and how a slice is read to be written there."""

from dataclasses import dataclass

from quanta_compiler.emit.expressions import Expressions
from quanta_compiler.lowering.program import Access, Layout, Program


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
    def axes(self) -> str:
        """Return the legs that the loop goes over, as comments show them."""
        return self.program.plan.in_words(self.loop.legs)

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
