"""Operations of a program as Python expressions over torch tensors."""

import math
from collections.abc import Iterable, Iterator, Sequence

from quanta_compiler.emit.computed import ComputedLeaves, Names, Statement, stored_name
from quanta_compiler.lowering.moves import is_run
from quanta_compiler.lowering.program import (
    Access,
    Call,
    Copy,
    Layout,
    Load,
    Matmul,
    Multiply,
    Operation,
    Pick,
    Program,
    Resize,
    Tie,
    is_computed,
    is_front,
    sources,
)


def _argument_name(load: Load) -> str:
    """Return how a function that gets a tensor of the state dict calls it: no two alike, whatever gates are called."""
    gate = load.leaf.gate
    if gate is None:
        return "one"
    if gate.matrix.given is not None:
        return f"constant_{gate.name}"
    if gate.block is not None:
        return f"block{gate.block}_{gate.parameter}"
    return {"factor_b": "b", "factor_a": "a"}.get(load.leaf.source, "gate") + f"_{gate.parameter}"


class Expressions:
    """Writes one program as statements; every statement comes with the legs of its result as a comment."""

    def __init__(self, program: Program, names_of: Names) -> None:
        self.program = program
        self.names_of = names_of
        self.computed = ComputedLeaves(program, names_of)
        self.plan = program.plan
        self.names: dict[int, str] = {}
        self.dims_of: dict[int, str] = {}
        """The dimensions that a value has where it was made, as Python text."""
        self.layouts = [operation.layout for operation in program.operations]
        self.kept: set[int] = set()
        """Values whose names no other value may take: what is stored, and in a loop what every slice reads."""
        self.stored: set[int] = set()
        """Values that are stored: what parametrizes or converts a module may leave them in any order of memory."""
        self.made = 0

    def statements(self, operations: Sequence[Operation]) -> list[Statement]:
        """Return the statements of the program's next operations."""
        lines: list[Statement] = []
        for operation in operations:
            if isinstance(operation, Load):
                lines += self._load(operation)
                continue
            if isinstance(operation, Resize) and operation.new_size == operation.old_size:
                # A free reshape: the next view reads the same memory by the new legs.
                self.names[operation.result] = self.names[operation.source.value]
                self.dims_of[operation.result] = self.dims_of[operation.source.value]
                for values in (self.kept, self.stored):
                    values.update({operation.result} if operation.source.value in values else ())
                continue
            if isinstance(operation, Call) and operation.maker is not None:
                lines += self.computed.blocks(operation.maker)
            code = self._code(operation)
            name, spent = self._name(operation)
            self.names[operation.result] = name
            self.dims_of[operation.result] = self.dims(operation.groups)
            label = getattr(operation, "label", "")
            lines.append((f"{name} = {code}", self.plan.in_words(operation.layout), "" if spent else label))
            if spent:
                lines.append((f"del {spent}", "", label))
        return lines

    def enter_loop(self) -> dict[str, str]:
        """Let the operations from here on stand in a function of their own; return its arguments: name -> value."""
        loop = self.program.loop
        assert loop is not None
        inside = self.program.operations[loop.first :]
        # Values of the loop itself have no names yet.
        read = [access.value for operation in inside for access in sources(operation) if access.value in self.names]
        arguments: dict[str, str] = {}
        stored = {
            self.names[operation.result]: _argument_name(operation)
            for operation in self.program.operations
            if isinstance(operation, Load)
        }
        for value in read:
            outside = self.names[value]
            self.names[value] = stored.get(outside, outside)
            arguments[self.names[value]] = outside
            self.kept.add(value)
        return arguments

    def dims(self, groups: Iterable[Layout]) -> str:
        """Return sizes as Python text, the batch being `n`."""
        return ", ".join(self._dim(group) for group in groups)

    def _dim(self, group: Layout) -> str:
        size = self.plan.size(leg for leg in group if leg != self.plan.batch)
        if self.plan.batch not in group:
            return str(size)
        return "n" if size == 1 else f"n * {size}"

    def _load(self, load: Load) -> list[Statement]:
        if load.leaf.source == "input":
            self.names[load.result] = "x"
            self.dims_of[load.result] = f"n, {self.program.in_size}"
            return []
        self.kept.add(load.result)
        if load.leaf.gate is None:
            self.names[load.result] = "self.one"
            self.dims_of[load.result] = ""
            return []
        if is_computed(load):
            self.names[load.result], self.dims_of[load.result], lines = self.computed.load(load)
            return lines
        name = self.names_of.stored.get(load.leaf.gate.parameter, "")
        if not name:
            gate, suffix = load.leaf.gate, {"factor_b": ".B", "factor_a": ".A"}.get(load.leaf.source, "")
            is_given = gate.matrix.given is not None
            name = f"self.constant_{gate.name}" if is_given else stored_name(gate.parameter + suffix)
            self.stored.add(load.result)
        self.names[load.result] = name
        self.dims_of[load.result] = ", ".join(str(size) for size in self.names_of.shapes[name])
        return []

    def _name(self, operation: Operation) -> tuple[str, str]:
        """Return the name of a result and the name that is spent with it: a tensor is used once, so it may be freed."""
        read = [access.value for access in sources(operation)]
        own = [self.names[value] for value in read if value not in self.kept]
        if not own:
            self.made += 1
            return f"w{self.made}", ""
        keep = "x" if "x" in own else own[0]
        spent = [name for name in own if name != keep]
        return keep, spent[0] if spent else ""

    def _code(self, operation: Operation) -> str:
        if isinstance(operation, Copy):
            return self._copy(operation)
        if isinstance(operation, Pick):
            return self._pick(operation)
        if isinstance(operation, Matmul):
            left, right = self.access(operation.left), self.access(operation.right)
            return f"torch.bmm({left}, {right})" if len(operation.groups) == 3 else f"{left} @ {right}"
        if isinstance(operation, Multiply):
            # A product of elements has the order of its factors in memory, and is viewed in the order of its legs.
            return " * ".join(self.access(factor, in_order=True) for factor in (operation.left, operation.right))
        if isinstance(operation, Resize):
            source, missing = self.access(operation.source), operation.new_size - operation.old_size
            if missing < 0:
                return f"{source}[:, :{operation.new_size}].contiguous()"
            return f"torch.nn.functional.pad({source}, (0, 0, 0, {missing}))"
        if isinstance(operation, Call):
            return self._call(operation)
        assert isinstance(operation, Tie)
        return self._tie(operation)

    def _copy(self, operation: Copy) -> str:
        """Write a copy: `reshape` makes one only where it cannot give a view, and a batch of 1 makes many views.

        A `contiguous` behind it would be lost where a module is exported, since it does nothing to other batches.
        """
        source, groups = operation.source.groups, operation.groups
        old = [leg for leg in self.layouts[operation.source.value] if leg != self.plan.batch]
        merged = [[leg for leg in group if leg != self.plan.batch] for group in groups]
        moves = not all(is_run(tuple(old), tuple(group)) for group in merged)
        code = self.access(operation.source, in_order=True) + ("" if moves else ".contiguous()")
        if source == groups:
            return code
        return f"{code}.{'reshape' if moves else 'view'}({self.dims(groups)})"

    def _pick(self, operation: Pick) -> str:
        """Index the fixed legs of a value, viewed with a dimension for them; move the others where that is no view."""
        layout = self.layouts[operation.source.value]
        runs = self._pick_runs(operation, layout)
        code = self._contiguous(operation.source.value)
        if self.dims(runs) != self.dims_of[operation.source.value]:
            code += f".view({self.dims(runs)})"
        places = [self.index(run) if run[0] in operation.picked else ":" for run in runs]
        last = max(i for i, place in enumerate(places) if place != ":")
        code += f"[{', '.join(places[: last + 1])}]"
        if is_front(operation, layout):
            return code
        kept = [run for run in runs if run[0] not in operation.picked]
        return f"{code}{permuted([kept.index(group) for group in operation.groups])}.contiguous()"

    def _pick_runs(self, operation: Pick, layout: Layout) -> list[Layout]:
        """Return a layout cut into the groups of a pick's result and stretches of the loop's legs between them."""
        assert self.program.loop is not None
        order = self.program.loop.legs
        runs: list[Layout] = []
        for leg in layout:
            if runs and leg in runs[-1]:
                continue
            if leg not in operation.picked:
                runs.append(next(group for group in operation.groups if leg in group))
            elif runs and runs[-1][-1] in order and order.index(runs[-1][-1]) + 1 == order.index(leg):
                runs[-1] = (*runs[-1], leg)
            else:
                runs.append((leg,))
        return runs

    def index(self, legs: Layout) -> str:
        """Return the index that slice `i` has along neighbouring legs of the loop, flattened."""
        assert self.program.loop is not None
        order = self.program.loop.legs
        inner = self.plan.size(order[order.index(legs[-1]) + 1 :])
        code = f"i // {inner}" if inner > 1 else "i"
        return code if legs[0] == order[0] else f"{code} % {self.plan.size(legs)}"

    def _call(self, operation: Call) -> str:
        columns, rows = (self.plan.size(access[-1]) for access in (operation.source.groups, operation.groups))
        function, maker, gate = operation.function, operation.maker, operation.gate
        assert maker is not None
        assert gate is not None
        code = self.access(operation.source, in_order=True)
        if columns < function.size:
            code = f"torch.nn.functional.pad({code}, (0, {function.size - columns}))"
        blocks = self.computed.blocks_of(maker, self.computed.place(maker, gate))
        code = self.computed.applied(function, code, blocks)
        return code if rows == function.size else f"{code}[:, :{rows}].contiguous()"

    def _tie(self, operation: Tie) -> str:
        source = self.access(operation.source)
        new, old = operation.legs
        if not operation.source.groups[-1]:
            others = ["-1"] * (len(operation.source.groups) - 1)
            source += f".expand({', '.join([*others, str(self.plan.sizes[old])])})"
        places = operation.layout.index(new), operation.layout.index(old)
        return f"torch.diag_embed({source}, dim1={places[0]}, dim2={places[1]})"

    def _contiguous(self, value: int) -> str:
        """Return a value that may be viewed with other dimensions."""
        return self.names[value] + (".contiguous()" if value in self.stored else "")

    def access(self, access: Access, *, in_order: bool = False) -> str:
        """Return a value read with the dimensions of an access: a view in the layout's order, then a permutation.

        With `in_order` the view's dimensions are in the order of memory.
        """
        layout = self.layouts[access.value]
        groups = access.groups
        places = [layout.index(group[0]) for group in groups if group]
        if places == sorted(places):
            order = list(range(len(groups)))
        else:
            ends = [layout.index(group[0]) if group else len(layout) for group in groups]
            order = sorted(range(len(groups)), key=ends.__getitem__)
        viewed, dims = tuple(groups[i] for i in order), self.dims_of[access.value]
        if self.dims(viewed) != dims:
            code = view_code(self._contiguous(access.value), dims, self.dims(viewed))
        else:
            code = self._contiguous(access.value) if in_order else self.names[access.value]
        return code + permuted([order.index(i) for i in range(len(groups))])


def permuted(order: Sequence[int]) -> str:
    """Return the call that brings dimensions into an order."""
    if list(order) == sorted(order):
        return ""
    if list(order) == [1, 0]:
        return ".t()"
    moved = [i for i, place in enumerate(order) if i != place]
    if len(moved) == 2:
        return f".transpose({moved[0]}, {moved[1]})"
    return f".permute({', '.join(str(place) for place in order)})"


_Dimension = tuple[bool, int]
"""Whether the batch is in it, and the size of the rest."""


def view_code(code: str, old: str, new: str) -> str:
    """Return the view of a tensor with the dimensions `old`, as Python text, that has the dimensions `new`.

    Where torch cannot see that an unknown batch allows it, the tensor is one dimension first.
    """
    if old == new:
        return code
    if _is_in_doubt(list(_dimensions(old)), list(_dimensions(new))):
        code += f".view(n * {math.prod(size for _, size in _dimensions(old))})"
    return f"{code}.view({new or '()'})"


def _is_in_doubt(old: list[_Dimension], new: list[_Dimension]) -> bool:
    """Follow torch, which merges old dimensions until the next new one divides them, and goes on with the rest.

    In doubt is whether a number divides a batch, and which is the least of the merged strides, unless it is 1.
    """
    for has_batch, size in new:
        if not old:
            return False
        merged, rest, depends = old[0], old[1:], False
        while merged[1] % size or has_batch > merged[0]:
            if merged[0] > has_batch or not rest:
                return True
            depends = depends or any(batch for batch, _ in rest)
            merged, rest = (merged[0] or rest[0][0], merged[1] * rest[0][1]), rest[1:]
        if depends and math.prod(other for _, other in rest) > 1:
            return True
        left = merged[0] and not has_batch, merged[1] // size
        old = rest if left == (False, 1) else [left, *rest]
    return False


def _dimensions(dims: str) -> Iterator[_Dimension]:
    """Yield the dimensions that a text lists: `n * 4, 8`."""
    for dimension in dims.split(", ") if dims else ():
        number = dimension.removeprefix("n").removeprefix(" * ")
        yield dimension.startswith("n"), int(number or 1)
