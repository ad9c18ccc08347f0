"""The gate table as text: `quanta expand --stage table`."""

from collections.abc import Iterator

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.lowering.table import GateTable, TableEntry, Walk, lower_table
from quanta_compiler.report.wording import resized
from quanta_compiler.spec.circuit_spec import CircuitSpec

_HOW_TO_READ = (
    "loops size*stride, the outermost first (16*256 8*4: 256 i + 4 j), "
    "over blocks and rest | rows, or columns of a gradient"
)


def table_text(spec: CircuitSpec) -> str:
    """Return the gate table: what every entry reads, and where it writes forward and backward."""
    table = lower_table(build_circuit(spec))
    figures = f"{table.in_features} -> {table.out_features} features, {table.flops_per_token} FLOPs per token"
    return "\n".join([f"table {spec.name}: {figures}", _HOW_TO_READ, *_lines(table)]) + "\n"


def _lines(table: GateTable) -> Iterator[str]:
    yield f"input {_boundary(table.in_features, table.in_size)}"
    yield f"  write {_loops(table.read)}"
    for entry in table.entries:
        parts = entry.matrix.gate.parts if entry.matrix is not None else ()
        name = f"block of {len(parts)} gates" if parts else entry.name
        yield f"{name}: {_matrix(entry)}; rest {entry.rest}; {entry.flops_per_token} FLOPs"
        if parts:
            yield f"  gates {' '.join(part.name for part in parts)}"
        yield f"  write {_loops(entry.write_rest)} | {_loops(entry.write_row)}"
        yield f"  gradient {_loops(entry.grad_rest)} | {_loops(entry.grad_column)}"
    yield f"output {_boundary(table.out_size, table.out_features)}"
    yield f"  gradient {_loops(table.read_grad)}"


def _boundary(before: int, after: int) -> str:
    return f"{before} {resized(before, after)}".rstrip()


def _matrix(entry: TableEntry) -> str:
    """Return an entry's matrices: what they are, their shape, and whose numbers they hold if not the gate's own."""
    shape = f"[{entry.blocks}, {entry.rows}, {entry.columns}]"
    if entry.matrix is None:
        return f"slice {shape}"
    gate = entry.matrix.gate
    if gate.parts:
        return shape
    parts = [f"factor {entry.matrix.factor} {shape}" if entry.matrix.factor else f"{gate.matrix.in_words()} {shape}"]
    if gate.parameter != gate.name:
        what = f"shares {gate.parameter}" if gate.angle is None else f"angle {gate.angle} of {gate.parameter}"
        parts.append(what + (" transposed" if gate.transpose else ""))
    return "; ".join([*parts, "frozen"] if gate.frozen else parts)


def _loops(walk: Walk) -> str:
    return " ".join(f"{size}*{stride}" for size, stride in walk) or "0"
