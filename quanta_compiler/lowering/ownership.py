"""Whether a program's result is memory of its own, whatever the batch: a module returns nobody else's."""

from quanta_compiler.lowering.program import (
    Call,
    Copy,
    Load,
    Operation,
    Pick,
    Program,
    Resize,
    is_computed,
    sources,
)


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
    """Return whether an operation takes memory in any batch."""
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
