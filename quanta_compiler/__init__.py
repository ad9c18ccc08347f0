"""A configuration-driven compiler from circuit layouts to PyTorch modules.

    import quanta_compiler as qc
    module = qc.compile_circuit("circuit.yaml").module()

Names are loaded when they are first used, so that `import quanta_compiler` is quick and takes torch only where it must.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quanta_compiler.diagnostics import SpecError as SpecError
    from quanta_compiler.driver import CompiledCircuit as CompiledCircuit
    from quanta_compiler.driver import compile_circuit as compile_circuit
    from quanta_compiler.oracle.reference import reference_operator as reference_operator
    from quanta_compiler.runtime.accelerating import accelerate as accelerate
    from quanta_compiler.spec import load_spec as load_spec
    from quanta_compiler.spec.circuit_spec import CircuitSpec as CircuitSpec
    from quanta_compiler.system.files import OutputError as OutputError

__version__ = "0.1.0"
_HOMES = {
    "CircuitSpec": "quanta_compiler.spec.circuit_spec",
    "CompiledCircuit": "quanta_compiler.driver",
    "OutputError": "quanta_compiler.system.files",
    "SpecError": "quanta_compiler.diagnostics",
    "accelerate": "quanta_compiler.runtime.accelerating",
    "compile_circuit": "quanta_compiler.driver",
    "load_spec": "quanta_compiler.spec",
    "reference_operator": "quanta_compiler.oracle.reference",
}
__all__ = list(_HOMES)
__all__.append("__version__")


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if "IPython" in sys.modules:
    from quanta_compiler.notebook import draw_circuits

    draw_circuits()
