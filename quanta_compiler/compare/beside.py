"""A circuit beside the reference, for its own page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from quanta_compiler.compare.figures import Conditions, circuit_row
from quanta_compiler.driver import compile_circuit
from quanta_compiler.predict.calibration import typical_calibration
from quanta_compiler.presets import REFERENCE
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.short_notation import preset_document

if TYPE_CHECKING:
    from quanta_compiler.driver import CompiledCircuit


def beside_reference(compiled: CompiledCircuit) -> dict[str, Any]:
    """Return the figures of a circuit, and those of the reference for the same widths, as rows of a comparison.

    The times are those of a typical machine, so that the same circuit has the same page everywhere.
    """
    spec = compiled.spec
    calibration = typical_calibration()
    conditions = Conditions(compiled.report.apply.planned_tokens, "auto", calibration)
    document = preset_document(REFERENCE)
    reference = load_spec(document, in_features=spec.in_features, out_features=spec.out_features)
    other = compile_circuit(reference, conditions.tokens)
    return {
        "name": REFERENCE,
        "machine": calibration.name,
        "own": asdict(circuit_row("", compiled, conditions)),
        "reference": asdict(circuit_row(REFERENCE, other, conditions)),
    }
