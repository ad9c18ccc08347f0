"""What a notebook draws for circuits that are not compiled.

A spec stands above everything that can draw it and knows nothing of pictures, so IPython learns it here. Compiled
circuits, reports and comparisons display themselves, in other notebooks too.
"""

import sys
from typing import Any

from quanta_compiler.spec.circuit_spec import CircuitSpec


def draw_circuits() -> None:
    """Let the running IPython session, where there is one, display a CircuitSpec as its diagram."""
    session: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if session is None:
        return
    session.display_formatter.formatters["image/svg+xml"].for_type(CircuitSpec, _drawing)


def _drawing(spec: CircuitSpec) -> str:
    from quanta_compiler.ir.build import build_circuit
    from quanta_compiler.report.svg import render_svg

    return render_svg(build_circuit(spec))
