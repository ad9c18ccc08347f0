"""The books of a program: its steps, its tensors, and the memory that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from quanta_compiler.kinds.made import Step
from quanta_compiler.lowering.program import Access, Groups, Layout, Operation, Program

ELEMENT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Operand:
    """A value as an operation finds it."""

    layout: Layout
    groups: Groups
    """The dimensions that it was made with; none for what is stored."""
    needs_grad: bool


@dataclass(frozen=True, slots=True)
class Executed:
    """An operation of a program, with what it reads."""

    program: Program
    operation: Operation
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Resized:
    """The end of every row cut, or padded with zeros."""

    rows: int
    old: int
    new: int
    needs_grad: bool


@dataclass(frozen=True, slots=True)
class Elementwise:
    """An operation of torch, or several that are alike, on `numbers` of every operand, in their order."""

    numbers: int
    flops: int = 0
    needs_grad: bool = False
    operands: int = 1
    times: int = 1


@dataclass(frozen=True, slots=True)
class Making:
    """A step of the function that makes `matrices` matrices of a gate."""

    step: Step
    count: int
    needs_grad: bool


Origin = Executed | Resized | tuple[Elementwise, ...] | Making
"""What a step is, for who asks what it takes a machine."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """One operation that computes or moves numbers; views are free and not listed."""

    op: str
    operands: tuple[str, ...]
    shape: tuple[int, ...]
    """Of the result; what a loop runs has the number of slices in front."""
    flops: int
    """Of the whole step: of all slices together."""
    origin: Origin


@dataclass(slots=True, eq=False)
class Storage:
    """A piece of memory."""

    numbers: int
    is_parameter: bool = False
    saved: bool = False


@dataclass(slots=True)
class Tensor:
    """What a program calls a value: several may be views of one storage."""

    name: str
    storage: Storage
    needs_grad: bool


@dataclass(slots=True)
class Books:
    """What is counted over a program, and over the rotations that it applies."""

    run: Callable[[Account], None]
    """Counts all operations of a program."""
    storages: list[Storage] = field(default_factory=list)
    live: set[Storage] = field(default_factory=set)
    steps: list[StepCost] = field(default_factory=list)
    held: set[Storage] = field(default_factory=set)
    """What is not given back: the caller's input, and for as long as the loop runs, its result and what it reads."""
    slices: int | None = None
    """Within the loop, how many slices it makes."""
    peak: int = 0

    def new_storage(self, numbers: int) -> Storage:
        """Take memory."""
        storage = Storage(numbers)
        self.storages.append(storage)
        self.live.add(storage)
        self.peak = max(self.peak, sum(one.numbers for one in self.live))
        return storage

    def step(self, op: str, operands: tuple[str, ...], shape: tuple[int, ...], origin: Origin, flops: int = 0) -> str:
        """Add a step; return a name for its result."""
        lead = () if self.slices is None else (self.slices,)
        self.steps.append(StepCost(op, operands, lead + shape, flops, origin))
        return f"%{len(self.steps)}"  # no gate can be called so

    def copied(self, tensors: Sequence[Tensor], shape: tuple[int, ...], origin: Origin) -> Tensor:
        """Add a copy, or a cut or a padding; return its result."""
        needs_grad = any(tensor.needs_grad for tensor in tensors)
        name = self.step("copy", tuple(tensor.name for tensor in tensors), shape, origin)
        return Tensor(name, self.new_storage(math.prod(shape)), needs_grad)

    def resized(self, tensor: Tensor, rows: int, old: int, new: int) -> Tensor:
        """Add what cuts or pads the end of every row; return its result."""
        return self.copied([tensor], (rows, new), Resized(rows, old, new, tensor.needs_grad))

    def repeat(self, storages: int, steps: int, result: Storage, times: int) -> list[Storage]:
        """Count what has been counted since again, so often; return the memory of the results, which stays taken."""
        more, done = self.storages[storages:], self.steps[steps:]
        results: list[Storage] = []
        for _ in range(times):
            self.steps += done
            for one in more:
                copied = Storage(one.numbers, saved=one.saved)
                self.storages.append(copied)
                if one is result:
                    self.live.add(copied)
                    results.append(copied)
        self.peak = max(self.peak, sum(one.numbers for one in self.live))
        return results

    @contextmanager
    def holding(self, *storages: Storage) -> Iterator[None]:
        """Keep memory that a name still refers to, whichever step reads it last."""
        before = self.held
        self.held = before.union(storages)
        yield
        self.held = before

    def free(self, storage: Storage) -> None:
        """Give memory back, unless somebody else holds it."""
        if storage not in self.held:
            self.live.discard(storage)


@dataclass(slots=True)
class Account:
    """One program on the books: its values as tensors."""

    program: Program
    books: Books
    tensors: dict[int, Tensor] = field(default_factory=dict)
    groups: dict[int, Groups] = field(default_factory=dict)
    """The dimensions that values were made with."""
    input: Tensor | None = None
    given: dict[str, Tensor] = field(default_factory=dict)
    """What the program is given beside its input, by the parameter that it stands for: a function its blocks."""
    names: tuple[str, ...] = ()
    """The gates of the file that the program belongs to, where it has none of its own."""
    computed: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    """What is computed from parameters by itself, and has a name to the end."""

    def keeps(self, storage: Storage) -> bool:
        """Return whether a storage is that of something computed or given, which no reader is the last to need."""
        return any(storage is tensor.storage for tensor in chain(self.given.values(), *self.computed.values()))

    def blocks(self, first: int, count: int) -> Sequence[Tensor]:
        """Return some of what a function is given beside its input."""
        return list(self.given.values())[first : first + count]

    def executed(self, operation: Operation, *read: Access) -> Executed:
        """Return an operation with what is known of the values that it reads."""
        operations, values = self.program.operations, [one.value for one in read]
        operands = [Operand(operations[one].layout, self.groups[one], self.tensors[one].needs_grad) for one in values]
        return Executed(self.program, operation, tuple(operands))
