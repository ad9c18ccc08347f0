"""The figures that follow from a circuit's shapes alone: rank bounds, gain at initialization, cost gate by gate."""

import math
from collections.abc import Iterator

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import all_stored, drawing, matrix_shape, stored_tensors
from quanta_compiler.kinds.initialisers import INITIALISERS
from quanta_compiler.report.report import GateReport, ParameterReport, RankReport

LARGEST_EXPONENT = 709.0
"""The gain is cut off where a float ends, so that a report is always valid JSON."""


def gate_reports(circuit: Circuit) -> tuple[GateReport, ...]:
    """Return one row a gate, in the order of the file."""
    return tuple(
        GateReport(
            name=gate.name,
            axes=tuple(circuit.legs[leg].axis for leg in gate.columns),
            kind=gate.kind,
            shape=matrix_shape(circuit, gate),
            parameters=sum(stored.numbers for stored in stored_tensors(circuit, gate)),
            flops_per_token=rest * gate.matrix.flops(rows, columns),
        )
        for gate, rows, columns, rest in _sized(circuit)
    )


def _sized(circuit: Circuit) -> Iterator[tuple[Gate, int, int, int]]:
    """Yield every gate with the rows and columns of its matrix, and the product of all other axes."""
    width = circuit.in_size
    for gate in circuit.gates:
        rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
        rest = width // columns
        yield gate, rows, columns, rest
        width = rest * rows


def parameter_report(circuit: Circuit) -> ParameterReport:
    """Return the counts of stored numbers; constants and slices store none."""
    stored = all_stored(circuit)
    frozen = sum(one.numbers for one in stored if one.gate.frozen)
    trainable = sum(one.numbers for one in stored) - frozen
    dense = circuit.in_features * circuit.out_features
    return ParameterReport(trainable, frozen, dense, 100 * trainable / dense)


def rank_bounds(circuit: Circuit) -> RankReport:
    """Bound the operator's rank by the shapes of its gates (QuanTA, theorem 6.2 and eq. (10), for square gates).

    A gate counts as rank min(rows, columns), or its `rank`, times the product of all other axes; padding and truncation
    count as gates. The upper bound is the smallest; the lower one is Sylvester's over the chain: the sum of the ranks
    less the inner dimension of each product.
    """
    ranks: list[int] = []
    inner: list[int] = []
    if circuit.in_features != circuit.in_size:
        ranks.append(min(circuit.in_features, circuit.in_size))
        inner.append(circuit.in_size)
    for gate, rows, columns, rest in _sized(circuit):
        ranks.append(gate.matrix.largest_rank(rows, columns) * rest)
        inner.append(rest * rows)
    if circuit.out_features != circuit.out_size:
        ranks.append(min(circuit.out_features, circuit.out_size))
    else:
        inner.pop()
    return RankReport(max(0, sum(ranks) - sum(inner)), min(ranks))


def init_gain(circuit: Circuit) -> float:
    """Return the standard deviation of the output over that of the input at initialization.

    By the variance formula for independent entries: a gate multiplies the mean square of its input by columns times the
    mean square of its entries; orthogonal, fixed and padded ones by what they keep of it.
    """
    gains = [min(1.0, circuit.in_features / circuit.in_size)]
    drawn = {gate.name: _gate_gain(circuit, gate) for gate in circuit.gates if gate.parameter == gate.name}
    for gate in circuit.gates:
        rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
        shared = drawn[gate.parameter]
        # The transpose has the same entries, but contracts its rows: as many times more or fewer of them.
        gains.append(shared * columns / rows if gate.transpose else shared)
    gains.append(min(1.0, circuit.out_size / circuit.out_features))
    if min(gains) == 0:
        return 0.0
    # By logarithms: large constants in a row would overflow long before the gates behind them shrink the output.
    return math.exp(min(math.fsum(math.log(gain) for gain in gains) / 2, LARGEST_EXPONENT))


def _gate_gain(circuit: Circuit, gate: Gate) -> float:
    rows, columns = circuit.size(gate.rows), circuit.size(gate.columns)
    drawings = [drawing(stored) for stored in stored_tensors(circuit, gate)]
    deviation = max((drawn.std for scheme, drawn in drawings if scheme == "normal"), default=0.0)
    fixed = gate.matrix.gain(rows, columns, deviation)
    if fixed is not None:
        return fixed
    return math.prod(INITIALISERS[scheme].gain(drawn) for scheme, drawn in drawings)
