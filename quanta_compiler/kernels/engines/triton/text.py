"""The kernels of a circuit as a text for readers: `quanta expand --stage kernel`. It needs no Triton and no torch."""

import textwrap

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.kernels.engines.triton.diary import HOW_TO_READ
from quanta_compiler.kernels.engines.triton.source import HEAD, flow_source, forward_source
from quanta_compiler.lowering.table import GateTable, lower_table
from quanta_compiler.spec.circuit_spec import CircuitSpec


def kernel_text(spec: CircuitSpec) -> str:
    """Return the kernels as if each fits: forward, and of the backward that trains all gates the states, then flow."""
    table = lower_table(build_circuit(spec))
    title = f"Triton kernels of the circuit {spec.name}: {table.in_features} -> {table.out_features} features"
    notes = textwrap.indent(f"{title}\n\n{HOW_TO_READ}", "# ", lambda _: True)
    return "\n\n".join(["\n".join(line.rstrip() for line in notes.splitlines()) + f"\n\n{HEAD}", *_kernels(table)])


def _kernels(table: GateTable) -> list[str]:
    count = len(table.entries)
    trained = [number for number, entry in enumerate(table.entries) if entry.matrix is not None]
    flow = flow_source(table, 0, count, trained)
    if not trained:
        return [forward_source(table, 0, count), flow]
    return [forward_source(table, 0, count), forward_source(table, 0, trained[-1] + 1, trained, result=False), flow]
