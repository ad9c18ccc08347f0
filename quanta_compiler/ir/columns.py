"""Which gates can act at once, and which a leg visits: the columns and the lines of pictures, read off the legs."""

from collections.abc import Sequence

from quanta_compiler.ir.circuit import Circuit, Gate

INPUT, OUTPUT = "input", "output"
"""The nodes at the ends of a circuit's graph."""


def gate_node(gate: Gate) -> str:
    """Return the name of a gate's node."""
    return f"gate:{gate.name}"


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
        earliest = [made_before[leg] for leg in passing + contracted] + [read_before[leg] for leg in contracted]
        column = max(earliest, default=0)
        columns.append(column)
        for leg in passing:
            read_before[leg] = max(read_before[leg], column + 1)
        for leg in gate.rows:
            if leg not in passing:
                made_before[leg] = column + 1
    return tuple(columns)


def in_columns(circuit: Circuit) -> tuple[list[tuple[int, Gate]], int]:
    """Return the gates with their columns, column by column, then in the order of the file, and how many there are."""
    pairs = sorted(zip(gate_columns(circuit), circuit.gates, strict=True), key=lambda pair: (pair[0], pair[1].position))
    return pairs, max((column for column, _ in pairs), default=-1) + 1


def leg_ways(circuit: Circuit, gates: Sequence[Gate]) -> list[list[tuple[str, str]]]:
    """Return for each leg the nodes that it visits in order, each with what the leg is to it."""
    ways: list[list[tuple[str, str]]] = [[] for _ in circuit.legs]
    for leg in circuit.inputs:
        ways[leg].append((INPUT, "made"))
    for gate in gates:
        node, passing = gate_node(gate), passing_legs(gate)
        for leg in passing:
            ways[leg].append((node, "per" if leg in gate.per else "diagonal"))
        for legs, role in ((gate.columns, "contracted"), (gate.rows, "made")):
            for leg in legs:
                if leg not in passing:
                    ways[leg].append((node, role))
    for leg in circuit.outputs:
        ways[leg].append((OUTPUT, "output"))
    return ways
