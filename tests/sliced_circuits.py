"""Circuits whose operator is built slice by slice however small they are, by any slicing that there is."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache

from compiled_circuits import compiled

from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.emit.source import circuit_json, emit_source
from quanta_compiler.lowering.accounting import program_cost
from quanta_compiler.lowering.lower import lower_sliced, lower_straight
from quanta_compiler.lowering.program import Program
from quanta_compiler.lowering.slicing import Slicing, slicings
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.planner.planner import plan_operator
from quanta_compiler.report.build import build_report
from quanta_compiler.spec import to_dict

TRIED = 4
"""Slicings of one circuit that are looked at."""


def all_slicings(circuit: CompiledCircuit) -> list[Slicing]:
    """Return every slicing of a circuit's operator."""
    return slicings(plan_operator(circuit.circuit, circuit.spec.optimizer), circuit.circuit)


def in_slices(circuit: CompiledCircuit, slicing: Slicing) -> CompiledCircuit:
    """Return a compiled circuit with another program for its operator."""
    return _with_operator(circuit, slicing, _at_once(circuit))


def _at_once(circuit: CompiledCircuit) -> Program:
    return lower_straight(plan_operator(circuit.circuit, circuit.spec.optimizer), circuit.circuit)


def _with_operator(circuit: CompiledCircuit, slicing: Slicing, at_once: Program) -> CompiledCircuit:
    program, _ = lower_sliced(slicing, circuit.circuit, at_once)
    cost = program_cost(program)
    text = circuit_json(to_dict(circuit.spec))
    backends = lower_table(circuit.circuit), circuit.report.backends[0].name
    return replace(
        circuit,
        operator=program,
        report=build_report(circuit.circuit, circuit.apply, program, program_cost(circuit.apply), cost, *backends),
        source=emit_source(circuit.circuit, circuit.apply, program, text, cost.peak_bytes),
    )


@lru_cache(maxsize=256)
def sliced(seed: int) -> tuple[CompiledCircuit, ...]:
    """Return the random circuit of a seed under some of its slicings; nothing where it has none."""
    circuit = compiled(seed)
    found = all_slicings(circuit)
    chosen = random.Random(seed).sample(found, min(TRIED, len(found)))
    # The planner and the lowering take longer than a slicing does: once for all of them.
    at_once = _at_once(circuit) if chosen else circuit.operator
    return tuple(_with_operator(circuit, slicing, at_once) for slicing in chosen)
