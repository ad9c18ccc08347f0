"""Circuits whose operator is built slice by slice however small they are, by any slicing that there is."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache

from compiled_circuits import compiled

from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.emit.source import circuit_json, emit_source
from quanta_compiler.lowering.accounting import program_cost
from quanta_compiler.lowering.lower import lower_sliced
from quanta_compiler.lowering.slicing import Slicing, slicings
from quanta_compiler.lowering.straight import lower_straight
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
    plan = plan_operator(circuit.circuit, circuit.spec.optimizer)
    program, _ = lower_sliced(slicing, circuit.circuit, lower_straight(plan, circuit.circuit))
    cost = program_cost(program)
    text = circuit_json(to_dict(circuit.spec))
    return replace(
        circuit,
        operator=program,
        report=build_report(circuit.circuit, circuit.apply, program, program_cost(circuit.apply), cost),
        source=emit_source(circuit.circuit, circuit.apply, program, text, cost.peak_bytes),
    )


@lru_cache(maxsize=256)
def sliced(seed: int) -> tuple[CompiledCircuit, ...]:
    """Return the random circuit of a seed under some of its slicings; nothing where it has none."""
    found = all_slicings(compiled(seed))
    chosen = random.Random(seed).sample(found, min(TRIED, len(found)))
    return tuple(in_slices(compiled(seed), slicing) for slicing in chosen)
