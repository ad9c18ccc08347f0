"""Which kernels carry out a table on a device: one where it fits, otherwise the fewest segments that fit."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from quanta_compiler.kernels.engines.triton.architectures import SHARED, TENSOR_COLUMNS
from quanta_compiler.kernels.engines.triton.forms import SEGMENT
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, Launch, Number, Tiling
from quanta_compiler.kernels.engines.triton.resources import Resources, matrix_bytes, resources, tilings
from quanta_compiler.text.quantities import bytes_text
from quanta_compiler.text.words import plural

_LOG = logging.getLogger("quanta_compiler")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no segmentation fits, as a clause."""

    reason: str
    failed: bool = False
    """Whether it should have been compiled, and could not be."""


Plan = tuple[Launch, ...] | Refusal
"""The kernels in the order in which they are launched."""


def in_words(plan: Plan) -> str:
    """Return the kernels of a plan and their tokens, or why there are none, as a clause."""
    if isinstance(plan, Refusal):
        return f"as torch does ({plan.reason})"
    tokens = " and ".join(str(count) for count in dict.fromkeys(launch.tiling.tokens for launch in plan))
    return f"{plural(len(plan), 'kernel')} of {tokens} token{'' if tokens == '1' else 's'}"


Fit = Callable[[Kernel], Tiling | Refusal]
"""Finds how a kernel can be launched on a device."""

Told = Callable[[Kernel, Tiling, Resources | str], None]
"""Takes what a kernel needs with a tiling, or why it cannot be compiled."""


def _log(kernel: Kernel, tiling: Tiling, needs: Resources | str) -> None:
    _LOG.debug("%s %s: %s", kernel, tiling, needs)


def fitting(kernels: Kernels, number: Number, arch: int, told: Told = _log) -> Fit:
    """Return what finds a kernel's first tiling that fits an architecture, by compiling it; `told` takes all tried."""
    table = kernels.table

    def fit(kernel: Kernel) -> Tiling | Refusal:
        held = matrix_bytes(table, kernel.first, kernel.last, number)
        if held > SHARED[arch] * 1024:
            return Refusal(f"a gate takes {bytes_text(held)}, shared memory has {_shared(arch)}")
        tried: list[Resources] = []
        for tiling in tilings(table, kernel):
            needs = resources(kernels, kernel, tiling, number, arch)
            told(kernel, tiling, needs)
            if isinstance(needs, str):
                return Refusal(f"Triton cannot compile it ({needs})", failed=True)
            if needs.fits(arch):
                return tiling
            tried.append(needs)
        return _refusal(tried, arch)

    return fit


CHOICES = 4
"""Tilings of a kernel among which a GPU may choose: each is compiled for that, which takes longer than to time it."""


def choices(kernels: Kernels, kernel: Kernel, number: Number, arch: int) -> list[Tiling]:
    """Return tilings that fit an architecture, of a kernel of which one does; the first is what `fitting` finds."""

    def fits(tiling: Tiling) -> bool:
        needs = resources(kernels, kernel, tiling, number, arch)
        _log(kernel, tiling, needs)
        return isinstance(needs, Resources) and needs.fits(arch)

    return list(islice(filter(fits, tilings(kernels.table, kernel)), CHOICES))


def _refusal(tried: list[Resources], arch: int) -> Refusal:
    """Return why none of them fits: what the nearest one has too much of."""
    if not tried:
        return Refusal("a token is too large for the registers")
    spilled = min(needs.spilled for needs in tried)
    if spilled:
        return Refusal(f"it spills {bytes_text(spilled)} a thread or more")
    unspilled = [needs for needs in tried if needs.spilled == 0]
    shared = min(needs.shared for needs in unspilled)
    if shared > SHARED[arch] * 1024:
        return Refusal(f"it takes {bytes_text(shared)} or more, shared memory has {_shared(arch)}")
    columns = min(needs.tensor_columns for needs in unspilled)
    return Refusal(f"it takes {columns} columns or more, tensor memory has {TENSOR_COLUMNS}")


def _shared(arch: int) -> str:
    return bytes_text(1024 * SHARED[arch])


def planned(whole: Kernel, fit: Fit) -> Plan:
    """Cut a kernel into the fewest that fit: each takes as many entries as it can, the next goes on from there."""
    if whole.minus:
        tiling = fit(whole)
        return tiling if isinstance(tiling, Refusal) else (Launch(whole, tiling),)
    launches: list[Launch] = []
    forward = whole.name == "forward"
    begin, end = whole.first, whole.last
    while begin < end or not launches:
        length, found = _longest(whole, begin, end, fit)
        if isinstance(found, Refusal):
            return found
        segment = whole.part(*((begin, begin + length) if forward else (end - length, end)))
        launches.append(Launch(segment, found))
        begin, end = (begin + length, end) if forward else (begin, end - length)
    return tuple(launches)


def _longest(whole: Kernel, begin: int, end: int, fit: Fit) -> tuple[int, Tiling | Refusal]:
    """Return how many of the entries `[begin, end)` the next kernel takes, and how; more than fit never fit."""
    forward = whole.name == "forward"

    def tried(length: int) -> Tiling | Refusal:
        return fit(whole.part(*((begin, begin + length) if forward else (end - length, end))))

    best, found = end - begin, tried(end - begin)
    if not isinstance(found, Refusal) or best <= 1:
        return best, found
    best, found, too_many = 1, tried(1), best
    while not isinstance(found, Refusal) and too_many - best > 1:
        length = (best + too_many) // 2
        tiling = tried(length)
        if isinstance(tiling, Refusal):
            too_many = length
        else:
            best, found = length, tiling
    return best, found


def segments(kernel: Kernel, fit: Fit) -> Plan:
    """Cut a `segment` of all gates into those that are launched, from the last on, of two entries where two fit."""
    launches: list[Launch] = []
    end = kernel.last
    while end > kernel.first:
        for begin in range(max(kernel.first, end - SEGMENT), end):
            part = kernel.part(begin, end)
            found = fit(part)
            if isinstance(found, Tiling):
                break
        if isinstance(found, Refusal):
            return found
        launches.append(Launch(part, found))
        end = begin
    return tuple(launches)
