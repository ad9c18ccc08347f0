"""The kernels of a circuit as a text for readers: `quanta expand --stage kernel`. It needs no Triton and no torch."""

import textwrap
from collections.abc import Iterator

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels.engines.triton.diary import HOW_TO_READ
from quanta_compiler.kernels.engines.triton.forms import is_cheaper_in_segments, starts
from quanta_compiler.kernels.engines.triton.source import HEAD, flow_source, forward_source, segment_source
from quanta_compiler.lowering.table import GateTable, lower_table
from quanta_compiler.spec.circuit_spec import CircuitSpec

_IN_SEGMENTS = "# Backward in segments, where each of them fits: the states that they read, then the last one first.\n"
_STORED = "# Backward by stored states and gradients, otherwise.\n"


def kernel_text(spec: CircuitSpec) -> str:
    """Return the kernels as if each fits: forward, and both forms of the backward that trains all gates."""
    table = lower_table(build_circuit(spec))
    title = f"Triton kernels of the circuit {spec.name}: {table.in_features} -> {table.out_features} features"
    notes = textwrap.indent(f"{title}\n\n{HOW_TO_READ}", "# ", lambda _: True)
    return "\n\n".join(["\n".join(line.rstrip() for line in notes.splitlines()) + f"\n\n{HEAD}", *_kernels(table)])


def _kernels(table: GateTable) -> Iterator[str]:
    count = len(table.entries)
    yield forward_source(table, 0, count)
    trained = tuple(number for number, entry in enumerate(table.entries) if entry.matrix is not None)
    if is_cheaper_in_segments(table, trained, minus=False):
        yield _IN_SEGMENTS
        begins = starts(table)
        if begins:
            yield forward_source(table, 0, begins[-1] + 1, begins, result=False)
        for first, last in reversed(list(zip((0, *begins), (*begins, count), strict=True))):
            yield segment_source(table, first, last, [number for number in trained if first <= number < last])
        yield _STORED
    if trained:
        yield forward_source(table, 0, trained[-1] + 1, trained, result=False)
    yield flow_source(table, 0, count, trained)
