"""The whole pipeline on one screen: a spec goes through every stage and comes out as a CompiledCircuit."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_compiler.emit.files import stem_of, write_files
from quanta_compiler.emit.source import circuit_json, emit_source
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.kinds import limits
from quanta_compiler.lowering.accounting import program_cost
from quanta_compiler.lowering.lower import lower
from quanta_compiler.lowering.program import Program
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.planner.planner import plan_apply, plan_operator
from quanta_compiler.predict.engines import MODELS
from quanta_compiler.report.build import build_report
from quanta_compiler.report.report import Report
from quanta_compiler.report.svg import render_svg
from quanta_compiler.report.terminal import title
from quanta_compiler.spec import load_spec, to_dict
from quanta_compiler.spec.circuit_spec import CircuitSpec

if TYPE_CHECKING:
    import networkx
    import torch


@dataclass(frozen=True)
class CompiledCircuit:
    """A circuit with its plans, programs, source and report."""

    spec: CircuitSpec
    circuit: Circuit
    apply: Program
    operator: Program
    report: Report
    source: str
    """The emitted module, `[..., in_features] -> [..., out_features]`; it imports torch alone."""

    def __repr__(self) -> str:
        return f"CompiledCircuit({title(self.report)})"

    @cached_property
    def graph(self) -> networkx.MultiDiGraph[str]:
        """The contraction graph: nodes `input`, `output`, `gate:<name>`; edges carry `axis` and `size`."""
        from quanta_compiler.ir.graph import contraction_graph

        return contraction_graph(self.circuit)

    @property
    def stem(self) -> str:
        """The name of the files that `write` makes, without their endings."""
        return stem_of(self.spec.name)

    def files(self) -> dict[str, tuple[str, str]]:
        """Return what `write` writes: kind -> (file name, text)."""
        return {
            "py": (f"{self.stem}.py", self.source),
            "json": (f"{self.stem}.report.json", self.report.to_json()),
            "html": (f"{self.stem}.report.html", self.page()),
            "svg": (f"{self.stem}.svg", render_svg(self.circuit)),
        }

    def page(self) -> str:
        """Return the report to look at: one HTML file that needs no network."""
        from quanta_compiler.compare.beside import beside_reference
        from quanta_compiler.pages.page import report_page

        return report_page(self.spec, self.circuit, self.report, beside_reference(self))

    def _repr_svg_(self) -> str:
        return render_svg(self.circuit)

    def _repr_html_(self) -> str:
        from quanta_compiler.pages.fragments import circuit_fragment

        return circuit_fragment(self.circuit, self.report)

    def write(self, folder: str | os.PathLike[str], force: bool = False) -> dict[str, Path]:
        """Write the module, its report and its picture into `folder`; return the paths by kind.

        Raises:
            OutputError: a module that was edited by hand stands there and `force` is false, or a file cannot be
                written. Then every file is as it was.

        """
        return write_files(Path(folder), self.files(), force=force)

    def module(
        self,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        backend: str = "auto",
        recompute: bool = False,
    ) -> torch.nn.Module:
        """Return an instance of the emitted class.

        Parameters are drawn in float32 on the CPU, in the order of the file, from a generator seeded with `seed`, then
        cast to `dtype` (default: torch's) on `device`. `backend`: `torch` is the emitted source; `fused` runs the same
        parameters in one pass by an engine, on the CPU the project's kernel; `auto` takes what is expected to be
        faster. With `recompute` the `torch` backend too keeps only the input for backward and computes the rest again,
        as `fused` always does.

        Raises:
            ValueError: there is no such backend.

        """
        from quanta_compiler.runtime.loading import make_module

        return make_module(self.source, seed=seed, dtype=dtype, device=device, backend=backend, recompute=recompute)


def compile_circuit(
    source: CircuitSpec | str | os.PathLike[str] | dict[str, Any], tokens: int | None = None
) -> CompiledCircuit:
    """Compile a circuit, planned for batches of `tokens` vectors (default: what the file says).

    Raises:
        SpecError: `source` is no spec yet, and something is wrong with it.
        ValueError: `tokens` is not a positive number.

    """
    spec = source if isinstance(source, CircuitSpec) else load_spec(source)
    if tokens is not None:
        if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= limits.TOKENS:
            raise ValueError(f"tokens must be an integer from 1 to {limits.TOKENS}, got {tokens!r}")
        spec = replace(spec, tokens=tokens)
    circuit = build_circuit(spec)
    apply = lower(plan_apply(circuit, spec.tokens, spec.optimizer), circuit)
    operator = lower(plan_operator(circuit, spec.optimizer), circuit)
    apply_cost, operator_cost = program_cost(apply), program_cost(operator)
    table = lower_table(circuit)
    default = "fused" if MODELS["cpu"].prefers(table, spec.tokens) else "torch"
    return CompiledCircuit(
        spec=spec,
        circuit=circuit,
        apply=apply,
        operator=operator,
        report=build_report(circuit, apply, operator, apply_cost, operator_cost, table, default),
        source=emit_source(circuit, apply, operator, circuit_json(to_dict(spec)), operator_cost.peak_bytes),
    )
