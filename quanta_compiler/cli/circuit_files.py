"""Circuit files as the command line takes them: by name or from standard input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quanta_compiler.cli.command import without_numpy
from quanta_compiler.diagnostics import REACH, Diagnostic, SpecError, escape, warning
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.spec.files import STANDARD_INPUT, STANDARD_INPUT_NAME, standard_input
from quanta_compiler.system.files import OutputError, write_file
from quanta_compiler.text.console import tell_diagnostics
from quanta_compiler.text.quantities import times_text
from quanta_compiler.text.words import plural

if TYPE_CHECKING:
    from quanta_compiler.driver import CompiledCircuit

SMALLEST_GAIN = 1e-6
"""Below this the output of a fresh circuit is lost beside what it is added to, and so are the gradients."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What `quanta check` has found about one file."""

    verdict: str | None
    """One line on a file that is not wrong."""
    diagnostics: tuple[Diagnostic, ...]
    omitted: int = 0
    """How many problems were found beyond those in `diagnostics`."""


def display_name(file: str) -> str:
    """Return how messages call a file given on the command line."""
    return STANDARD_INPUT_NAME if file == STANDARD_INPUT else file


def read_circuit(file: str) -> CircuitSpec:
    """Load a circuit file by its path, or from standard input where `file` is `-`; raise SpecError."""
    from quanta_compiler.spec import load_spec

    return load_spec(standard_input() if file == STANDARD_INPUT else Path(file))


def check_file(file: str) -> Checked:
    """Validate a circuit file; collect every problem and warning."""
    from quanta_compiler.ir.build import build_circuit
    from quanta_compiler.report.figures import init_gain
    from quanta_compiler.report.terminal import circuit_title

    try:
        spec = read_circuit(file)
    except SpecError as error:
        return Checked(None, error.diagnostics, error.omitted)
    circuit, source = build_circuit(spec), display_name(file)
    told = [*spec.warnings, *name_warnings(spec, source), *gain_warnings(spec, init_gain(circuit), source)]
    # What is said of axes or of a preset's options says more.
    if not any(one.topic == REACH for one in told):
        told += reach_warnings(circuit, source)
    warnings = f", {plural(len(told), 'warning')}" if told else ""
    return Checked(f"{escape(source)}: ok ({circuit_title(circuit)}){warnings}", tuple(told))


def compile_file(file: str, tokens: int | None) -> CompiledCircuit:
    """Compile a circuit file for batches of `tokens` (default: what it says), and tell what is worth a warning."""
    with without_numpy():
        from quanta_compiler.driver import compile_circuit

    compiled = compile_circuit(read_circuit(file), tokens)
    spec = compiled.spec
    tell_diagnostics((*spec.warnings, *gain_warnings(spec, compiled.report.init_gain, display_name(file))))
    return compiled


def refuse_to_overwrite(file: str, outputs: Sequence[Path]) -> None:
    """Raise OutputError where a result would take the place of the circuit file that it is made from."""
    for path in outputs:
        if file != STANDARD_INPUT and path.exists() and Path(file).exists() and path.samefile(file):
            raise OutputError(f"{path} is the circuit file itself: choose another folder or name with -o")


def write_beside(file: str, output: Path, text: str) -> None:
    """Write a page or a picture; raise OutputError where it would take the place of the circuit file itself."""
    refuse_to_overwrite(file, [output])
    write_file(output, text)


def name_warnings(spec: CircuitSpec, source: str) -> Iterator[Diagnostic]:
    """Warn of a name that no module can have: everything but `quanta compile` works with it."""
    from quanta_compiler.emit.files import stem_of

    try:
        stem_of(spec.name)
    except OutputError as error:
        yield warning(source, f"`quanta compile` will refuse it: {error}", place="name")


def reach_warnings(circuit: Circuit, source: str) -> Iterator[Diagnostic]:
    """Warn where slices, constants or wires that no angle turns keep some inputs from some outputs."""
    from quanta_compiler.ir.reach import fewest_reached

    if not any(gate.matrix.trains and not gate.is_diagonal for gate in circuit.gates):
        return
    reached = fewest_reached(circuit)
    if reached is not None:
        numbers = f"at most {reached:,} of {circuit.out_size:,} numbers" if reached else "no output at all"
        message = f"after the last gate some inputs reach {numbers}: not every output depends on every input"
        hint = "a gate that mixes the axes once more lets every output depend on every input"
        yield warning(source, message, place="gates", hint=hint)


def gain_warnings(spec: CircuitSpec, gain: float, source: str) -> Iterator[Diagnostic]:
    """Warn of a circuit whose output vanishes at initialization; where a gate starts at zero, that was asked for."""
    if gain < SMALLEST_GAIN and not any(gate.starts_at_zero for gate in spec.gates):
        message = f"at initialization the output is {times_text(gain)} as large as the input: it will hardly train"
        hint = "`init: orthogonal` keeps the scale; every `kaiming_uniform` gate shrinks it by 0.58"
        yield warning(source, message, place="gates", hint=hint)
