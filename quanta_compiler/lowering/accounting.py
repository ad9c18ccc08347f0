"""What a program costs: its steps, the memory it needs at once, and what autograd keeps of it for backward."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from quanta_compiler.ir.parameters import TRAINED_KINDS
from quanta_compiler.lowering.program import (
    Copy,
    Layout,
    Load,
    Loop,
    Matmul,
    Multiply,
    Operation,
    Pick,
    Program,
    Resize,
    Tie,
    is_front,
    sources,
)
from quanta_compiler.planner.plan import Leaf

ELEMENT_BYTES = 4


@dataclass(frozen=True, slots=True)
class StepCost:
    """One operation that computes or moves numbers; views are free and not listed."""

    op: str
    operands: tuple[str, ...]
    shape: tuple[int, ...]
    """Of the result; what a loop runs has the number of slices in front."""
    flops: int
    """Of the whole step: of all slices together."""


@dataclass(frozen=True, slots=True)
class ProgramCost:
    """The figures of one program at the batch that it was planned for, in 4-byte elements."""

    steps: tuple[StepCost, ...]
    flops: int
    peak_bytes: int
    """The largest sum of tensors alive at once, the input and the result included, parameters not."""
    saved_bytes: int
    """Distinct storages kept for backward that are no parameters, the input requiring a gradient."""


@dataclass(slots=True)
class _Storage:
    numbers: int
    is_parameter: bool = False
    saved: bool = False


@dataclass(slots=True)
class _Tensor:
    name: str
    storage: _Storage
    needs_grad: bool


@dataclass(slots=True)
class _Account:
    program: Program
    tensors: dict[int, _Tensor] = field(default_factory=dict)
    layouts: dict[int, Layout] = field(default_factory=dict)
    storages: list[_Storage] = field(default_factory=list)
    live: list[_Storage] = field(default_factory=list)
    steps: list[StepCost] = field(default_factory=list)
    given: _Storage | None = None
    """The input's own storage, which the caller holds."""
    input: _Tensor | None = None
    held: list[_Storage] = field(default_factory=list)
    """What is alive for as long as the loop runs: the result, and what every slice is made from."""
    slices: int | None = None
    """Within the loop, how many slices it makes."""
    made: int = 0
    peak: int = 0

    def volume(self, legs: Layout) -> int:
        return math.prod(self.program.plan.sizes[leg] for leg in legs)

    def new_storage(self, numbers: int) -> _Storage:
        storage = _Storage(numbers)
        self.storages.append(storage)
        self.live.append(storage)
        self.peak = max(self.peak, sum(one.numbers for one in self.live))
        return storage

    def result_name(self) -> str:
        self.made += 1
        return f"%{self.made}"  # no gate can be called so

    def step(self, op: str, operands: tuple[str, ...], shape: tuple[int, ...], flops: int = 0) -> None:
        lead = () if self.slices is None else (self.slices,)
        self.steps.append(StepCost(op, operands, lead + shape, flops))

    def free(self, storage: _Storage) -> None:
        if storage is not self.given and not any(storage is one for one in self.held):
            self.live = [one for one in self.live if one is not storage]


def program_cost(program: Program) -> ProgramCost:
    """Count a program's steps, peak and saved bytes by walking its operations."""
    account = _Account(program)
    if program.plan.batch is not None:
        account.input = _take_input(account)
    last_use = {access.value: i for i, op in enumerate(program.operations) for access in sources(op)}
    for i, operation in enumerate(program.operations):
        if program.loop is not None and i == program.loop.first:
            _enter_loop(account, program.loop)
        account.layouts[operation.result] = operation.layout
        if isinstance(operation, Load):
            account.tensors[operation.result] = _load(account, operation.leaf)
            continue
        account.tensors[operation.result] = _run(account, operation)
        for access in sources(operation):
            storage = account.tensors[access.value].storage
            aliased = storage is account.tensors[operation.result].storage
            if last_use[access.value] == i and not aliased:
                account.free(storage)
    if program.loop is not None:
        _write_slice(account)
    else:
        _resize_output(account)
    return ProgramCost(
        steps=tuple(account.steps),
        flops=sum(step.flops for step in account.steps),
        peak_bytes=ELEMENT_BYTES * account.peak,
        saved_bytes=ELEMENT_BYTES * sum(storage.numbers for storage in account.storages if storage.saved),
    )


def _enter_loop(account: _Account, loop: Loop) -> None:
    """Make the result, which the loop fills, and keep all that its slices are made from."""
    account.new_storage(account.program.out_features * account.program.in_features)
    account.held = list(account.live)
    account.slices = loop.slices


def _write_slice(account: _Account) -> None:
    program = account.program
    layout = program.operations[-1].layout
    legs = program.plan.output[: program.rows], program.plan.output[program.rows :]
    shape = tuple(account.volume(tuple(leg for leg in side if leg in layout)) for side in legs)
    account.step("copy", (account.tensors[program.output].name,), shape)


def _load(account: _Account, leaf: Leaf) -> _Tensor:
    if leaf.kind == "one":
        return _Tensor("one", _Storage(1, is_parameter=True), needs_grad=False)
    if leaf.gate is not None:
        factor = {"lowrank_b": ".B", "lowrank_a": ".A"}.get(leaf.kind, "")
        trained = leaf.gate.kind in TRAINED_KINDS and not leaf.gate.frozen
        storage = _Storage(account.volume(leaf.legs), is_parameter=True)
        return _Tensor(leaf.gate.parameter + factor, storage, needs_grad=trained)
    assert account.input is not None, "only an apply program loads the input"
    return account.input


def _take_input(account: _Account) -> _Tensor:
    """Return the input, padded or truncated: that is the first thing a module does."""
    program = account.program
    tokens = program.plan.tokens
    account.given = account.new_storage(tokens * program.in_features)
    tensor = _Tensor("input", account.given, needs_grad=True)
    if program.in_size == program.in_features or (tokens == 1 and program.in_size < program.in_features):
        # The first part of a single vector is a view of it.
        return tensor
    account.step("copy", ("input",), (tokens, program.in_size))
    return _Tensor(account.result_name(), account.new_storage(tokens * program.in_size), needs_grad=True)


def _run(account: _Account, operation: Operation) -> _Tensor:
    if isinstance(operation, Matmul | Multiply):
        return _product(account, operation)
    assert isinstance(operation, Copy | Resize | Tie | Pick)
    source = account.tensors[sources(operation)[0].value]
    if _is_view(account, operation):
        return source
    shape = tuple(account.volume(group) for group in operation.groups)
    storage = account.new_storage(account.volume(operation.layout))
    name = account.result_name()
    account.step("copy", (source.name,), shape)
    return _Tensor(name, storage, source.needs_grad)


def _is_view(account: _Account, operation: Copy | Resize | Tie | Pick) -> bool:
    """Return whether torch moves nothing: dimensions of size 1 may go anywhere, and a first part is a view."""
    if isinstance(operation, Tie):
        return False
    if isinstance(operation, Resize):
        cut_from_one = operation.new_size < operation.old_size and account.volume(operation.source.groups[0]) == 1
        return operation.new_size == operation.old_size or cut_from_one
    sizes = account.program.plan.sizes
    if isinstance(operation, Pick):
        return is_front(operation, account.layouts[operation.value])
    old = account.layouts[operation.source.value]
    return [leg for leg in old if sizes[leg] > 1] == [leg for leg in operation.layout if sizes[leg] > 1]


def _product(account: _Account, operation: Matmul | Multiply) -> _Tensor:
    left = account.tensors[operation.left.value]
    right = account.tensors[operation.right.value]
    if right.needs_grad:
        left.storage.saved = not left.storage.is_parameter
    if left.needs_grad:
        right.storage.saved = not right.storage.is_parameter
    storage = account.new_storage(account.volume(operation.layout))
    shape = tuple(account.volume(group) for group in operation.groups)
    op = "matmul" if isinstance(operation, Matmul) else "elementwise"
    account.step(op, (left.name, right.name), shape, operation.flops)
    return _Tensor(account.result_name(), storage, left.needs_grad or right.needs_grad)


def _resize_output(account: _Account) -> None:
    """Pad or truncate the result to the widths that the user sees."""
    program = account.program
    result = account.tensors[program.output]
    apply = program.plan.batch is not None
    old = (program.plan.tokens, program.out_size) if apply else (program.out_size, program.in_size)
    new = (program.plan.tokens, program.out_features) if apply else (program.out_features, program.in_features)
    cut = (min(old[0], new[0]), min(old[1], new[1]))
    if result.storage.is_parameter:
        account.new_storage(math.prod(old))
        account.step("copy", (result.name,), old)
    storage = result.storage
    for before, after in ((old, cut), (cut, new)):
        # The first rows of a matrix are a view, and so is the beginning of one row.
        if before == after or (after == cut and (before[1] == after[1] or after[0] == 1)):
            continue
        fresh = account.new_storage(math.prod(after))
        account.step("copy", (result.name,), after)
        account.free(storage)
        storage = fresh
