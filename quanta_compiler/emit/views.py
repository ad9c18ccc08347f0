"""Views of contiguous tensors where the number of tokens is not known, as when a module is exported."""

import math
from collections.abc import Iterator

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
