"""Operations of a program as Python expressions over torch tensors."""

from __future__ import annotations

import math

from quanta_compiler.ir.circuit import Gate
from quanta_compiler.lowering.moves import is_run
from quanta_compiler.lowering.program import (
    Access,
    Copy,
    Groups,
    Layout,
    Load,
    Matmul,
    Multiply,
    Operation,
    Program,
    Resize,
    Tie,
    sources,
)


def stored_name(key: str) -> str:
    """Return how the module reads a tensor of its state dict: `g0.B` is `gates["g0"]["B"]`."""
    return "gates" + "".join(f'["{name}"]' for name in key.split("."))


def _leaf_name(gate: Gate, kind: str) -> str:
    if gate.kind == "constant":
        return f"self.constant_{gate.name}"
    return stored_name(gate.parameter + {"lowrank_b": ".B", "lowrank_a": ".A"}.get(kind, ""))


class Expressions:
    """Writes one program as statements; every statement comes with the legs of its result as a comment."""

    def __init__(self, program: Program, stored_shapes: dict[str, tuple[int, ...]]) -> None:
        self.program = program
        self.plan = program.plan
        self.stored_shapes = stored_shapes
        self.names: dict[int, str] = {}
        self.dims_of: dict[int, str] = {}
        """The dimensions that a value has where it was made, as Python text."""
        self.layouts: dict[int, Layout] = {}
        self.made = 0

    def statements(self) -> list[tuple[str, str, str]]:
        """Return (statement, comment on its result, label) in order; a label ends the statements of one step."""
        lines: list[tuple[str, str, str]] = []
        for operation in self.program.operations:
            self.layouts[operation.result] = operation.layout
            if isinstance(operation, Load):
                self._load(operation)
                continue
            if isinstance(operation, Resize) and operation.new_size == operation.old_size:
                # A free reshape: the next view reads the same memory by the new legs.
                self.names[operation.result] = self.names[operation.source.value]
                self.dims_of[operation.result] = self.dims_of[operation.source.value]
                continue
            code = self._code(operation)
            name, spent = self._name(operation)
            self.names[operation.result] = name
            self.dims_of[operation.result] = self.dims(operation.groups)
            label = getattr(operation, "label", "")
            lines.append((f"{name} = {code}", self._diary(operation), "" if spent else label))
            if spent:
                lines.append((f"del {spent}", "", label))
        return lines

    def result(self) -> tuple[str, str]:
        """Return the name that holds the output, and its dimensions."""
        return self.names[self.program.output], self.dims_of[self.program.output]

    def dims(self, groups: Groups) -> str:
        """Return sizes as Python text, the batch being `n`."""
        return ", ".join(self._dim(group) for group in groups)

    def _dim(self, group: Layout) -> str:
        size = math.prod(self.plan.sizes[leg] for leg in group if leg != self.plan.batch)
        if self.plan.batch not in group:
            return str(size)
        return "n" if size == 1 else f"n * {size}"

    def _load(self, load: Load) -> None:
        if load.leaf.kind == "input":
            self.names[load.result] = "x"
            self.dims_of[load.result] = f"n, {self.program.in_size}"
            return
        if load.leaf.gate is None:
            self.names[load.result] = "self.one"
            self.dims_of[load.result] = ""
            return
        name = _leaf_name(load.leaf.gate, load.leaf.kind)
        self.names[load.result] = name
        self.dims_of[load.result] = ", ".join(str(size) for size in self.stored_shapes[name])

    def _name(self, operation: Operation) -> tuple[str, str]:
        """Return the name of a result and the name that is spent with it: a tensor is used once, so it may be freed."""
        read = [access.value for access in sources(operation)]
        own = [self.names[value] for value in read if not self._is_stored(value)]
        if not own:
            self.made += 1
            return f"w{self.made}", ""
        keep = "x" if "x" in own else own[0]
        spent = [name for name in own if name != keep]
        return keep, spent[0] if spent else ""

    def _is_stored(self, value: int) -> bool:
        return self.names[value].startswith(("self.", "gates["))

    def _code(self, operation: Operation) -> str:
        if isinstance(operation, Copy):
            return self._copy(operation)
        if isinstance(operation, Matmul):
            left, right = self._access(operation.left), self._access(operation.right)
            return f"torch.bmm({left}, {right})" if len(operation.groups) == 3 else f"{left} @ {right}"
        if isinstance(operation, Multiply):
            return f"{self._access(operation.left)} * {self._access(operation.right)}"
        if isinstance(operation, Resize):
            return self._resize(operation)
        assert isinstance(operation, Tie)
        return self._tie(operation)

    def _copy(self, operation: Copy) -> str:
        """Write a copy: `reshape` makes one only where it cannot give a view, and a batch of 1 makes many views."""
        source, groups = operation.source.groups, operation.groups
        code = self._access(operation.source)
        if source != groups:
            code += f".reshape({self.dims(groups)})"
        old = [leg for leg in self.layouts[operation.source.value] if leg != self.plan.batch]
        merged = [[leg for leg in group if leg != self.plan.batch] for group in groups]
        moves = not all(is_run(tuple(old), tuple(group)) for group in merged)
        return code if moves else f"{code}.contiguous()"

    def _resize(self, operation: Resize) -> str:
        source = self._access(operation.source)
        if operation.new_size < operation.old_size:
            return f"{source}[:, :{operation.new_size}].contiguous()"
        return f"torch.nn.functional.pad({source}, (0, 0, 0, {operation.new_size - operation.old_size}))"

    def _tie(self, operation: Tie) -> str:
        source = self._access(operation.source)
        new, old = operation.legs
        if not operation.source.groups[-1]:
            others = ["-1"] * (len(operation.source.groups) - 1)
            source += f".expand({', '.join([*others, str(self.plan.sizes[old])])})"
        places = operation.layout.index(new), operation.layout.index(old)
        return f"torch.diag_embed({source}, dim1={places[0]}, dim2={places[1]})"

    def _access(self, access: Access) -> str:
        """Return a value read with the dimensions of an access: a view in the layout's order, then a permutation."""
        layout = self.layouts[access.value]
        groups = access.groups
        places = [layout.index(group[0]) for group in groups if group]
        if places == sorted(places):
            in_order = list(range(len(groups)))
        else:
            ends = [layout.index(group[0]) if group else len(layout) for group in groups]
            in_order = sorted(range(len(groups)), key=ends.__getitem__)
        viewed = tuple(groups[i] for i in in_order)
        code = self.names[access.value]
        if self.dims(viewed) != self.dims_of[access.value]:
            code += f".view({self.dims(viewed) or '()'})"
        order = [in_order.index(i) for i in range(len(groups))]
        if order == sorted(order):
            return code
        if order == [1, 0]:
            return f"{code}.t()"
        moved = [i for i, place in enumerate(order) if i != place]
        if len(moved) == 2:
            return f"{code}.transpose({moved[0]}, {moved[1]})"
        return f"{code}.permute({', '.join(str(place) for place in order)})"

    def _diary(self, operation: Operation) -> str:
        """Return the dimensions of a result in the order of memory."""
        return " ".join(
            "n" if leg == self.plan.batch else f"{self.plan.labels[leg]}:{self.plan.sizes[leg]}"
            for leg in operation.layout
        )
