"""Emitted sources as live classes: made once for every source, and picklable by it."""

import copyreg
import hashlib
import linecache
import sys
import threading
import types
from typing import Any

import torch

from quanta_compiler.runtime.backends import check_backend

# The module stands in sys.modules before it is complete, as Python's own import has it.
_LOADING = threading.RLock()
_VARIANTS: dict[tuple[Any, str, bool], Any] = {}


def make_module(
    source: str,
    *,
    seed: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    backend: str,
    recompute: bool = False,
) -> torch.nn.Module:
    """Return an instance of an emitted class, its parameters drawn from a generator of their own."""
    circuit_class = load_class(source, backend, recompute)
    # Made on the meta device first, so that torch's global generator is not touched.
    module = circuit_class(device="meta", dtype=dtype)
    module.to_empty(device=device if device is not None else torch.get_default_device())
    module.reset_parameters(torch.Generator("cpu").manual_seed(seed))
    assert isinstance(module, torch.nn.Module)
    return module


def load_class(source: str, backend: str = "torch", recompute: bool = False) -> Any:
    """Return the class `Circuit` of an emitted source on a backend, the same one within a process."""
    check_backend(backend)
    name = "quanta_compiler_emitted_" + hashlib.sha256(source.encode("utf-8")).hexdigest()[:16]
    with _LOADING:
        known = sys.modules.get(name) or _load(name, source)
    return class_on(known.__dict__["Circuit"], backend, recompute)


def class_on(base: Any, backend: str, recompute: bool) -> Any:
    """Return an emitted class on a backend, the same one within a process; `base` itself where that is what it does."""
    if backend == "torch" and not recompute:
        return base
    key = base, backend, recompute
    with _LOADING:
        if key not in _VARIANTS:
            from quanta_compiler.kernels.modules import variant

            made = _VARIANTS[key] = variant(base, backend, recompute)
            if made is not base:
                made.quanta_variant = (backend, recompute)
                copyreg.pickle(made, _reduce)
        return _VARIANTS[key]


def base_of(circuit_class: Any) -> Any:
    """Return the class as it was emitted, of one that `class_on` returns; any other class as it is."""
    return circuit_class.__base__ if "quanta_variant" in vars(circuit_class) else circuit_class


def _load(name: str, source: str) -> types.ModuleType:
    """Execute a source as a module of this name; nobody else may be at it."""
    module = types.ModuleType(name)
    module.__file__ = f"<{name}>"
    # Tracebacks, inspect and torch.compile read the source from here.
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(keepends=True), module.__file__)
    sys.modules[name] = module
    try:
        exec(compile(source, module.__file__, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    module.__dict__["quanta_source"] = source
    copyreg.pickle(module.__dict__["Circuit"], _reduce)
    return module


def _reduce(module: Any) -> tuple[Any, ...]:
    """Pickle an instance as where its class comes from and its state.

    That is the class's source, so that no importable file is needed to load it; where the class was imported from a
    file, it is the class, as for any other of that file.
    """
    base = base_of(type(module))
    source = getattr(sys.modules.get(base.__module__), "quanta_source", None)
    how = getattr(type(module), "quanta_variant", ("torch", False))
    return _blank, (base if source is None else source, *how), module.__dict__


def _blank(origin: Any, backend: str = "torch", recompute: bool = False) -> Any:
    if isinstance(origin, str):
        circuit_class = load_class(origin, backend, recompute)
    else:
        from quanta_compiler.runtime.accelerating import accelerated_class

        circuit_class = accelerated_class(origin, backend, recompute)
    return circuit_class.__new__(circuit_class)
