"""What a compiled circuit asks of a machine: the steps that its module runs, forward and backward, one by one.

On the `torch` backend that is the program, as predict/steps.py counts it. On the `fused` backend it is one walk over
the gate table, after the products that make its matrices.
"""

from collections.abc import Iterator

from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.ir.parameters import inner_size
from quanta_compiler.lowering.table import GateTable, lower_table
from quanta_compiler.predict.rotations import product_work, table_rotations
from quanta_compiler.predict.steps import program_work
from quanta_compiler.predict.work import FusedPass, Product, Work, is_trained, joined
from quanta_compiler.runtime.backends import RUNNING


def circuit_work(compiled: CompiledCircuit, backend: str = "torch") -> Work:
    """Return the work of a batch of the size that the circuit was planned for, its input requiring a gradient.

    Raises:
        ValueError: there is no such backend.

    """
    if backend not in RUNNING:
        raise ValueError(f"{backend!r} is no backend that works by itself: choose one of {', '.join(RUNNING)}")
    tokens = compiled.spec.tokens
    if backend == "torch":
        return program_work(compiled.apply)
    table = lower_table(compiled.circuit)
    walk = Work((FusedPass(table, tokens),), (FusedPass(table, tokens, backward=True),))
    return joined([*_composed(table), table_rotations(table.entries), walk])


def _composed(table: GateTable) -> Iterator[Work]:
    """Yield the products that make low-rank matrices for the kernel, and those that take their gradients apart."""
    for entry in table.entries:
        if entry.matrix is None or entry.matrix.factor:
            continue
        gate = entry.matrix.gate
        inner = inner_size(gate, entry.rows, entry.columns)
        if inner is not None:
            rows, columns = (entry.columns, entry.rows) if gate.transpose else (entry.rows, entry.columns)
            trains = is_trained(entry)
            yield product_work(Product(rows, inner, columns, entry.blocks), trains, trains)
