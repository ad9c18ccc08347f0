"""The report: every figure of a compiled circuit in one record, with the keys of STEM.report.json."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from quanta_compiler.kinds.plugins import find_kind


@dataclass(frozen=True, slots=True)
class GateReport:
    """One gate: its matrix's shape `[*per, rows, columns]`, the numbers that it stores, and its cost by itself."""

    name: str
    axes: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops_per_token: int


@dataclass(frozen=True, slots=True)
class ParameterReport:
    """How many numbers the circuit holds; `dense` is `in_features * out_features`."""

    trainable: int
    frozen: int
    dense: int
    percent_of_dense: float


@dataclass(frozen=True, slots=True)
class RankReport:
    """Bounds on the operator's rank from the shapes of the gates (QuanTA, theorem 6.2, for square gates)."""

    lower: int
    upper: int


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of a plan: `op` is `matmul`, `elementwise` or `copy`; FLOPs of the whole step, a multiply-add 2.

    Operands are `input`, a gate (`g0`, `g0.B`), or `%n`, the result of step n counted from 1. The shape is that of the
    result; of a step that is run once for every slice of an operator, with the number of slices in front.
    """

    op: str
    operands: tuple[str, ...]
    shape: tuple[int, ...]
    flops: int


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The network of a mode as opt_einsum takes it, and in which order it is contracted."""

    operands: tuple[str, ...]
    einsum: str
    path: tuple[tuple[int, ...], ...]
    optimizer: str


@dataclass(frozen=True, slots=True)
class ApplyReport(PlanReport):
    """The circuit on a batch of `planned_tokens` vectors; bytes of 4-byte elements."""

    planned_tokens: int
    flops_per_token: float
    sequential_flops_per_token: int
    peak_bytes_per_token: float
    saved_bytes_per_token: float
    steps: tuple[StepReport, ...]


@dataclass(frozen=True, slots=True)
class BackendReport:
    """What a batch takes on one backend, per token; bytes of 4-byte elements.

    Those of `torch` are the figures of `apply`. `fused` keeps the input, at once it holds input and output, and beside
    them the low-rank matrices that it multiplies out. Its tiles, and what makes the matrices of rotations, are left
    out: neither grows with the tokens.
    """

    name: str
    flops_per_token: float
    peak_bytes_per_token: float
    saved_bytes_per_token: float


@dataclass(frozen=True, slots=True)
class OperatorReport(PlanReport):
    """The circuit's matrix; bytes of 4-byte elements."""

    flops: int
    sequential_flops: int
    peak_bytes: int
    slices: int
    """In how many slices the matrix is built, each written to its place; 1: at once."""
    steps: tuple[StepReport, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of a compiled circuit."""

    name: str
    in_features: int
    out_features: int
    layout: dict[str, int]
    gates: tuple[GateReport, ...]
    parameters: ParameterReport
    rank: RankReport
    init_gain: float
    apply: ApplyReport
    operator: OperatorReport
    breakeven_tokens: int | None
    """The smallest batch from which on building the matrix costs no more than one application; None: never."""
    backends: tuple[BackendReport, ...]
    """The one that `backend="auto"` takes for such batches on the CPU, then the other."""

    @property
    def stores_angles(self) -> bool:
        """Return whether matrices are made of angles, or of what else is no entry of them."""
        kinds = (find_kind(gate.kind) for gate in self.gates)
        return any(kind is not None and kind.stores_angles for kind in kinds)

    def backend(self, name: str) -> BackendReport:
        """Return the figures of a backend."""
        return next(one for one in self.backends if one.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data, keys in a fixed order."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return data

    def to_json(self) -> str:
        """Return the bytes of STEM.report.json as text: one line a step and a gate, the rest indented."""
        return _pretty(self.to_dict()) + "\n"

    def _repr_html_(self) -> str:
        """Return the tables of the report, for a notebook."""
        from quanta_compiler.report.fragment import report_fragment

        return report_fragment(self)


def breakeven(operator_flops: int, apply_flops: int, tokens: int) -> int | None:
    """Return the smallest n >= 1 with `operator_flops <= n * apply_flops / tokens`, in whole numbers."""
    if operator_flops == 0:
        return 1
    if apply_flops == 0:
        return None
    return max(1, -(-operator_flops * tokens // apply_flops))


def _pretty(value: object, indent: str = "") -> str:
    """Return JSON that a person can read: containers of containers are broken into lines, others stay on one."""
    inner = indent + "  "
    if isinstance(value, dict) and (not indent or any(isinstance(item, dict | list) for item in value.values())):
        if "op" in value or "shape" in value:
            return json.dumps(value)
        items = [f"{inner}{json.dumps(key)}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = [f"{inner}{_pretty(item, inner)}" for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    return json.dumps(value)
