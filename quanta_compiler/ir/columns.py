"""Which gates can act at once: the columns of the circuit diagram, read off the legs."""

from __future__ import annotations

from quanta_compiler.ir.circuit import Circuit, Gate


def passing_legs(gate: Gate) -> tuple[int, ...]:
    """Return the legs that go through a gate unchanged: those of `per`, and all of a diagonal gate."""
    diagonal = tuple(leg for leg in gate.columns if leg in gate.rows and leg not in gate.per)
    return gate.per + diagonal


def gate_columns(circuit: Circuit) -> tuple[int, ...]:
    """Return the column of each gate of `circuit.gates`: as early as the gates that it does not commute with allow.

    A gate acts after the gates that made its legs, and after those that only read a leg which it contracts. Gates that
    share a leg without changing it (`per` or diagonal) commute and may stand in one column. The columns are the
    longest-path layers of that order, so they are the same in whatever order commuting gates are written.
    """
    made_before = [0] * len(circuit.legs)  # the first column in which a leg is there to be used
    read_before = [0] * len(circuit.legs)  # the first column after all gates that read the leg
    columns: list[int] = []
    for gate in circuit.gates:
        passing = passing_legs(gate)
        contracted = tuple(leg for leg in gate.columns if leg not in passing)
        column = max(
            *(made_before[leg] for leg in passing + contracted),
            *(read_before[leg] for leg in contracted),
            0,
            0,  # max() of one number is an error, and a gate may have no legs left
        )
        columns.append(column)
        for leg in passing:
            read_before[leg] = max(read_before[leg], column + 1)
        for leg in gate.rows:
            if leg not in passing:
                made_before[leg] = column + 1
    return tuple(columns)
