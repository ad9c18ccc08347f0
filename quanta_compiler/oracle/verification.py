"""`quanta verify`: the compiled module in float32 against the float64 reference, on gates that keep their scale.

Default gates shrink the output by 3^-0.5 each, so a deep circuit would compare zeros with zeros; gates are drawn anew
here, close to orthogonal. Both modes are compared by what they make of the same random vectors: the norm of a matrix's
error on them is that of the matrix itself, up to chance, and the reference need not be applied to every unit vector.
torch is imported where it is needed, so that a circuit that is too large is refused at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import Stored, all_stored, matrix_shape
from quanta_compiler.system.machine import LimitError, free_bytes
from quanta_compiler.text.quantities import figure_text
from quanta_compiler.text.tables import FIGURES, Table

if TYPE_CHECKING:
    import torch

    from quanta_compiler.driver import CompiledCircuit

TOLERANCE = 1e-5
"""Of the norm, in float32."""
VECTORS = 32
"""How many random inputs both modes are compared on."""
_ROWS = 1024
"""How many rows of the matrix are brought to float64 at a time."""
_ORTHOGONAL_SIDE = 512
"""Larger matrices are drawn from a normal distribution: they keep the scale by their size, and QR would take long."""
_SQUARES = {"exp": 17, "cayley": 9, "taylor": 9, "neumann": 10, "householder": 6, "givens": 60}
"""How many squares of numbers an `orthogonal` gate's matrix takes, by its map, as measured."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Errors of a module against the reference, relative to the reference's norm; NaN where something overflowed."""

    circuit: Circuit
    seed: int
    forward_error: float
    operator_error: float

    @property
    def passed(self) -> bool:
        """Return whether both errors are within the tolerance."""
        return self.forward_error <= TOLERANCE and self.operator_error <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`; an error that is no number is None."""
        errors = {"forward": self.forward_error, "operator": self.operator_error}
        return {
            "name": self.circuit.name,
            "passed": self.passed,
            "tolerance": TOLERANCE,
            "seed": self.seed,
            "vectors": VECTORS,
            "errors": {mode: error if math.isfinite(error) else None for mode, error in errors.items()},
        }


def verify(compiled: CompiledCircuit, *, seed: int = 0, max_bytes: int | None = None) -> Verification:
    """Compare the module's `forward` and `operator()` with the reference.

    Raises:
        LimitError: the matrices would need more than `max_bytes` (default: half of the free memory). Nothing of that
            size has been allocated then.

    """
    circuit = compiled.circuit
    needed = required_bytes(circuit, compiled.report.operator.peak_bytes)
    limit = max_bytes if max_bytes is not None else free_bytes() // 2
    if needed > limit:
        reason = "--max-bytes" if max_bytes is not None else "half of the free memory; see --max-bytes"
        raise LimitError(f"verifying this circuit needs {needed:,} bytes, but may take {limit:,} ({reason})")

    import torch

    from quanta_compiler.oracle.reference import apply_gates

    module: Any = compiled.module(seed=seed, dtype=torch.float32, device="cpu", backend="torch")
    generator = torch.Generator("cpu").manual_seed(seed)
    tensors = draw_gates(module, circuit, generator)
    inputs = torch.randn(VECTORS, circuit.in_features, generator=generator)
    with torch.no_grad():
        expected = apply_gates(circuit, tensors, inputs)
        forward_error = _relative_error(module(inputs), expected)
        operator_error = _relative_error(_multiply(module.operator(), inputs), expected)
    return Verification(circuit, seed, forward_error, operator_error)


def verification_table(result: Verification) -> Table:
    """Return how far the module is from the reference."""
    forward, operator = figure_text(result.forward_error), figure_text(result.operator_error)
    verdict = "agrees with" if result.passed else "DIFFERS FROM"
    features = f"{result.circuit.in_features} -> {result.circuit.out_features}"
    return Table(
        f"{result.circuit.name}: the module {verdict} the float64 reference (float32, tolerance {TOLERANCE:g})",
        FIGURES,
        (
            ("forward", forward, f"of the norm, on {VECTORS} random vectors"),
            ("operator()", operator, f"of the norm, the matrix {features} on the same vectors"),
        ),
    )


def required_bytes(circuit: Circuit, operator_peak_bytes: int) -> int:
    """Return about how much memory `verify` takes beside what torch itself does.

    The module's matrix and what it is made from, or the reference: it writes every gate out in full in float64, a
    diagonal too, and keeps up to five states at a time.
    """
    matrices = max(_reference_numbers(circuit, gate) for gate in circuit.gates)
    numbers = [tensor.numbers for tensor in all_stored(circuit)]
    drawing = 12 * max(numbers, default=0)
    reference = 8 * (5 * VECTORS * greatest_width(circuit) + matrices)
    operator = operator_peak_bytes + 8 * circuit.in_features * min(_ROWS, circuit.out_features)
    return 4 * sum(numbers) + max(drawing, reference, operator)


def _reference_numbers(circuit: Circuit, gate: Gate) -> int:
    """Return how many numbers the reference holds at once to make a gate's matrices: twice these, and what they take.

    Exponentials, quotients and circuits of angles are computed block by block; the factors are measured ones.
    """
    *blocks, rows, columns = matrix_shape(circuit, gate)
    written = 2 * math.prod(blocks) * rows * columns
    size = max(rows, columns)
    if gate.kind == "orthogonal":
        return written + _SQUARES[gate.matrix.data()["map"]] * size * size
    if gate.kind == "pauli":
        return written + 12 * size * (rows if gate.transpose else columns)
    return written


def greatest_width(circuit: Circuit) -> int:
    """Return the most numbers that the state of one token has at any time."""
    width = widest = circuit.in_size
    for gate in circuit.gates:
        width = width // circuit.size(gate.columns) * circuit.size(gate.rows)
        widest = max(widest, width)
    return max(widest, circuit.in_features, circuit.out_features)


def draw_gates(module: Any, circuit: Circuit, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Draw every stored tensor anew; return them by their names in the circuit."""
    import torch

    state: dict[str, torch.Tensor] = module.state_dict()
    with torch.no_grad():
        for stored in all_stored(circuit):
            state[f"gates.{stored.key}"].copy_(_well_scaled(stored, generator))
    return {key.removeprefix("gates."): value for key, value in state.items()}


def _well_scaled(stored: Stored, generator: torch.Generator) -> torch.Tensor:
    """Return matrices that keep the size of a vector on average, but are no rotations: a transpose is no inverse."""
    import torch

    def near_one(*shape: int) -> torch.Tensor:
        return torch.empty(shape).uniform_(0.9, 1.1, generator=generator)

    if stored.gate.matrix.stores_angles:
        # These keep the size of a vector whatever they store; a Lie algebra's entries are drawn for angles up to 1.
        std = 0.5 / math.sqrt(max(stored.part.fan_out, stored.part.fan_in)) if stored.gate.kind == "orthogonal" else 1.0
        return torch.randn(stored.shape, generator=generator) * std
    if stored.gate.kind == "diagonal":
        signs = 2 * torch.randint(2, stored.shape, generator=generator) - 1
        return near_one(*stored.shape) * signs
    rows, columns = stored.part.fan_out, stored.part.fan_in
    matrices = torch.randn(stored.numbers // (rows * columns), rows, columns, generator=generator)
    if max(rows, columns) > _ORTHOGONAL_SIDE:
        return (matrices / math.sqrt(columns)).view(stored.shape)
    if rows < columns:
        turned: torch.Tensor = torch.linalg.qr(matrices.mT)[0].mT
    else:
        # Orthonormal columns spread a vector over more rows: the mean square of its entries is to stay.
        turned = torch.linalg.qr(matrices)[0] * math.sqrt(rows / columns)
    return (turned * near_one(columns)).reshape(stored.shape)


def _multiply(operator: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return `[tokens, in_features] -> [tokens, out_features]` in float64."""
    import torch

    wide = inputs.to(torch.float64)
    return torch.cat([wide @ rows.to(torch.float64).T for rows in torch.split(operator, _ROWS)], dim=1)


def _relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    if result.shape != expected.shape:
        return math.inf
    norm = float(expected.norm())
    difference = float((result.double() - expected).norm())
    return difference / norm if norm else difference
