"""What a program costs: its steps, the memory it needs at once, and what autograd keeps of it for backward."""

import math
from dataclasses import dataclass

from quanta_compiler.lowering.account import (
    ELEMENT_BYTES,
    Account,
    Books,
    Elementwise,
    Origin,
    Resized,
    StepCost,
    Storage,
    Tensor,
)
from quanta_compiler.lowering.program import (
    Call,
    Copy,
    Groups,
    Join,
    Load,
    Matmul,
    Multiply,
    Operation,
    Pick,
    Program,
    Resize,
    Split,
    Tie,
    Turn,
    is_computed,
    is_front,
    sources,
)
from quanta_compiler.lowering.rotation_costs import call_function, compute_leaf, gate_blocks, turned


@dataclass(frozen=True, slots=True)
class ProgramCost:
    """The figures of one program at the batch that it was planned for, in 4-byte elements."""

    steps: tuple[StepCost, ...]
    flops: int
    peak_bytes: int
    """The largest sum of tensors alive at once, the input and the result included, parameters not."""
    saved_bytes: int
    """Distinct storages kept for backward that are no parameters, the input requiring a gradient."""


def program_cost(program: Program) -> ProgramCost:
    """Count a program's steps, peak and saved bytes by walking its operations."""
    account = Account(program, Books(_run_all))
    if program.plan.batch is not None:
        account.input = _take_input(account)
    _run_all(account)
    if program.loop is not None:
        _write_slice(account)
    else:
        _resize_output(account)
    return ProgramCost(
        steps=tuple(account.books.steps),
        flops=sum(step.flops for step in account.books.steps),
        peak_bytes=ELEMENT_BYTES * account.books.peak,
        saved_bytes=ELEMENT_BYTES * sum(storage.numbers for storage in account.books.storages if storage.saved),
    )


def _run_all(account: Account) -> None:
    program = account.program
    last_use = {access.value: i for i, op in enumerate(program.operations) for access in sources(op)}
    for i, operation in enumerate(program.operations):
        if program.loop is not None and i == program.loop.first:
            # The result, which the loop fills, and all that its slices are made from stay.
            account.books.new_storage(program.out_features * program.in_features)
            account.books.held = set(account.books.live)
            account.books.slices = program.loop.slices
        account.groups[operation.result] = _groups(account, operation)
        if isinstance(operation, Load):
            account.tensors[operation.result] = _load(account, operation)
            continue
        account.tensors[operation.result] = _run(account, operation)
        for access in sources(operation):
            storage = account.tensors[access.value].storage
            aliased = storage is account.tensors[operation.result].storage
            # What is computed from a parameter by itself has a name to the end.
            if last_use[access.value] == i and not aliased and not account.keeps(storage):
                account.books.free(storage)


def _groups(account: Account, operation: Operation) -> Groups:
    """Return the dimensions that a value is made with: those of the input are the batch and all others."""
    if isinstance(operation, Load):
        batch, layout = account.program.plan.batch, operation.layout
        if operation.leaf.source == "input" and batch is not None:
            return (batch,), tuple(leg for leg in layout if leg != batch)
        return tuple((leg,) for leg in layout)
    if isinstance(operation, Resize) and operation.new_size == operation.old_size:
        return account.groups[operation.source.value]
    return operation.groups


def _write_slice(account: Account) -> None:
    program = account.program
    layout = program.operations[-1].layout
    output, rows = program.plan.output, program.plan.rows
    legs = output[:rows], output[rows:]
    shape = tuple(program.plan.size(leg for leg in side if leg in layout) for side in legs)
    tensor = account.tensors[program.output]
    account.books.step("copy", (tensor.name,), shape, (Elementwise(math.prod(shape), needs_grad=tensor.needs_grad),))


def _load(account: Account, load: Load) -> Tensor:
    leaf = load.leaf
    if leaf.gate is not None and leaf.gate.parameter in account.given:
        return account.given[leaf.gate.parameter]
    if is_computed(load):
        return compute_leaf(account, load)
    if leaf.source == "one":
        return Tensor("one", Storage(1, is_parameter=True), needs_grad=False)
    if leaf.gate is not None:
        factor = {"factor_b": ".B", "factor_a": ".A"}.get(leaf.source, "")
        trained = leaf.gate.trains
        storage = Storage(account.program.plan.size(leaf.legs), is_parameter=True)
        return Tensor(leaf.gate.parameter + factor, storage, needs_grad=trained)
    assert account.input is not None, "only an apply program loads the input"
    return account.input


def _take_input(account: Account) -> Tensor:
    """Return the input, padded or truncated: that is the first thing a module does."""
    program = account.program
    tokens = program.plan.tokens
    tensor = Tensor("input", account.books.new_storage(tokens * program.in_features), needs_grad=True)
    account.books.held = {tensor.storage}
    if program.in_size == program.in_features or (tokens == 1 and program.in_size < program.in_features):
        # The first part of a single vector is a view of it.
        return tensor
    return account.books.resized(tensor, tokens, program.in_features, program.in_size)


def _run(account: Account, operation: Operation) -> Tensor:
    if isinstance(operation, Matmul | Multiply):
        return _product(account, operation)
    if isinstance(operation, Call):
        return _call(account, operation)
    if isinstance(operation, Turn):
        return turned(account, operation)
    assert isinstance(operation, Copy | Resize | Split | Join | Tie | Pick)
    read = [account.tensors[access.value] for access in sources(operation)]
    if _is_view(account, operation):
        return read[0]
    shape = tuple(map(account.program.plan.size, operation.groups))
    needs_grad = any(tensor.needs_grad for tensor in read)
    origin: Origin
    if isinstance(operation, Resize):
        before, _, after = shape
        origin = Resized(before, operation.old_size * after, operation.new_size * after, needs_grad)
    elif isinstance(operation, Split | Join):
        origin = (Elementwise(math.prod(shape), needs_grad=needs_grad),)
    else:
        origin = account.executed(operation, *sources(operation))
    return account.books.copied(read, shape, origin)


def _call(account: Account, operation: Call) -> Tensor:
    """Pad or cut the vectors to the size of the function and back, as the emitted call does."""
    books, given, size = account.books, account.tensors[operation.source.value], account.program.plan.size
    others, columns = map(size, operation.source.groups)
    rows, function = size(operation.groups[-1]), operation.function
    source = given
    if columns < function.size:
        source = books.resized(given, others, columns, function.size)
    blocks = account.blocks(operation.first, function.blocks)
    if operation.maker is not None:
        blocks = gate_blocks(account, operation.maker)
    # A part of vectors is the function's alone: nobody else has a name for it.
    is_named = not isinstance(account.program.operations[operation.source.value], Split)
    with books.holding(*([given.storage] if is_named else [])):
        result = call_function(books, function, source, blocks)
    if rows == function.size:
        return result
    cut = books.resized(result, others, function.size, rows)
    books.free(result.storage)
    return cut


def _is_view(account: Account, operation: Copy | Resize | Split | Join | Tie | Pick) -> bool:
    """Return whether torch moves nothing: dimensions of size 1 may go anywhere, and a part of one vector is a view."""
    plan = account.program.plan
    if isinstance(operation, Tie | Join):
        return False
    if isinstance(operation, Split):
        return plan.size(operation.groups[0]) == 1
    if isinstance(operation, Resize):
        cut_from_one = operation.new_size < operation.old_size and plan.size(operation.source.groups[0]) == 1
        return operation.new_size == operation.old_size or cut_from_one
    old = account.program.operations[operation.source.value].layout
    if isinstance(operation, Pick):
        return is_front(operation, old)
    return [leg for leg in old if plan.sizes[leg] > 1] == [leg for leg in operation.layout if plan.sizes[leg] > 1]


def _product(account: Account, operation: Matmul | Multiply) -> Tensor:
    left = account.tensors[operation.left.value]
    right = account.tensors[operation.right.value]
    if right.needs_grad:
        left.storage.saved = not left.storage.is_parameter
    if left.needs_grad:
        right.storage.saved = not right.storage.is_parameter
    storage = account.books.new_storage(account.program.plan.size(operation.layout))
    shape = tuple(map(account.program.plan.size, operation.groups))
    op = "matmul" if isinstance(operation, Matmul) else "elementwise"
    origin = account.executed(operation, operation.left, operation.right)
    name = account.books.step(op, (left.name, right.name), shape, origin, operation.flops)
    return Tensor(name, storage, left.needs_grad or right.needs_grad)


def _resize_output(account: Account) -> None:
    """Pad or truncate the result to the widths that the user sees."""
    program = account.program
    result = account.tensors[program.output]
    apply = program.plan.batch is not None
    old = (program.plan.tokens, program.out_size) if apply else (program.out_size, program.in_size)
    new = (program.plan.tokens, program.out_features) if apply else (program.out_features, program.in_features)
    cut = (min(old[0], new[0]), min(old[1], new[1]))
    if result.storage.is_parameter:
        account.books.new_storage(math.prod(old))
        account.books.step("copy", (result.name,), old, (Elementwise(math.prod(old)),))
    storage = result.storage
    for before, after in ((old, cut), (cut, new)):
        # The first rows of a matrix are a view, and so is the beginning of one row.
        if before == after or (after == cut and (before[1] == after[1] or after[0] == 1)):
            continue
        fresh = account.books.new_storage(math.prod(after))
        account.books.step("copy", (result.name,), after, Resized(after[0], before[1], after[1], result.needs_grad))
        account.books.free(storage)
        storage = fresh
    if apply and copies_input(program):
        account.books.new_storage(math.prod(new))
        account.books.step("copy", (result.name,), new, (Elementwise(math.prod(new)),))


def owns_result(program: Program) -> bool:
    """Return whether the output surely is neither the input's memory nor that of what is stored.

    What only moves numbers may find nothing to move: a batch of 1 has its dimension anywhere, and its first numbers in
    a row.
    """
    own: set[int] = set()
    for operation in program.operations:
        if any(access.value in own for access in sources(operation)) or _is_new(program, operation):
            own.add(operation.result)
    return program.output in own


def copies_input(program: Program) -> bool:
    """Return whether a forward pass ends with a copy, because all else may have left the input where it is."""
    is_padded = program.in_features < program.in_size or program.out_features > program.out_size
    return not is_padded and not owns_result(program)


def _is_new(program: Program, operation: Operation) -> bool:
    if isinstance(operation, Load):
        return is_computed(operation)
    if isinstance(operation, Copy):
        plan = program.plan
        before, after = (
            [leg for leg in layout if leg != plan.batch and plan.sizes[leg] > 1]
            for layout in (program.operations[operation.source.value].layout, operation.layout)
        )
        return before != after
    if isinstance(operation, Resize):
        return operation.new_size > operation.old_size
    if isinstance(operation, Call):
        return not operation.function.is_identity
    return not isinstance(operation, Pick)
