"""Names that would run, break out of an element, or change a page, were they ever taken for markup."""

from __future__ import annotations

from dataclasses import replace

from quanta_compiler.driver import CompiledCircuit
from quanta_compiler.kinds.kind import Form, Kind
from quanta_compiler.report.report import StepReport

NAMES = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=2>",
    "javascript:window.hacked=3",
    "<!--<script>",
    "--></style></title><script>window.hacked=4</script>",
    "'\"><svg onload=window.hacked=5>",
    "{{data}} {{scripts}} \\1 $& ${window.hacked=6}",
    "&lt;script&gt; &#60; \u2028 \u202e$x$\x00",
)


def hostile_kind(name: str) -> Kind:
    """Return a kind of gate that is called so; a class makes it, as for every kind."""
    kind: Kind = type("Hostile", (Kind,), {"name": name, "meaning": name, "form": Form.MATRIX})()
    return kind


def hostile(compiled: CompiledCircuit) -> CompiledCircuit:
    """Return a compiled circuit in which every name is hostile; no file could hold them, so it is put together here."""

    def name(place: int) -> str:
        return f"{NAMES[place % len(NAMES)]}{place}"

    circuit, report = compiled.circuit, compiled.report
    gates = tuple(
        replace(gate, name=name(place), parameter=name(place), matrix=hostile_kind(NAMES[0]))
        for place, gate in enumerate(circuit.gates)
    )
    legs = tuple(replace(leg, axis=name(place)) for place, leg in enumerate(circuit.legs))
    steps = tuple(StepReport(NAMES[1], NAMES, (2, 3), 5) for _ in range(3))
    return replace(
        compiled,
        spec=replace(compiled.spec, name=NAMES[0]),
        circuit=replace(circuit, name=NAMES[0], legs=legs, gates=gates),
        report=replace(
            report,
            name=NAMES[0],
            layout={name(place): 4 for place in range(8)},
            gates=tuple(
                replace(gate, name=name(place), axes=NAMES, kind=NAMES[0]) for place, gate in enumerate(report.gates)
            ),
            apply=replace(report.apply, steps=steps, operands=NAMES, einsum=NAMES[4], optimizer=NAMES[1]),
            operator=replace(report.operator, steps=steps, operands=NAMES, einsum=NAMES[4]),
        ),
    )
