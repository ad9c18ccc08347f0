"""Emitted files that are imported by training code, with the project's engines: `quanta_compiler.accelerate`."""

import json
import linecache
from functools import lru_cache
from types import FunctionType
from typing import Any, TypeVar

import torch

from quanta_compiler.diagnostics import SpecError
from quanta_compiler.driver import compile_circuit
from quanta_compiler.emit.seal import is_unedited
from quanta_compiler.runtime.backends import check_backend
from quanta_compiler.runtime.loading import base_of, class_on
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.files import SEAL

Module = TypeVar("Module", bound=torch.nn.Module)


def accelerate(module: Module, backend: str = "auto", recompute: bool = False) -> Module:
    """Let an instance of an emitted class compute with the engines of `fused`; return the same instance.

    The module is changed in place: it gets a subclass of its class with another forward pass, and everything else
    stays as it is, so that optimizers, hooks and modules around it go on. Parameters, buffers, state dict and
    `operator()` are not touched. Either all of that happens or, with an error, nothing. `backend` and `recompute` are
    those of `CompiledCircuit.module`; `backend="torch"` takes the module back to what was emitted. A module that
    computes so already is returned as it is.

    Raises:
        ValueError: there is no such backend; or it is no instance of an emitted class; or the file of the class was
            edited by hand or written by another version; or torch.compile or something else has taken hold of the
            forward pass before.

    """
    check_backend(backend)
    _check_instance(module)
    circuit_class = accelerated_class(base_of(type(module)), backend, recompute)
    if type(module) is not circuit_class:
        module.__class__ = circuit_class
    return module


def accelerated_class(base: type, backend: str, recompute: bool) -> Any:
    """Return an emitted class on a backend, once it is certain that this version knows what the class computes."""
    _check_class(base)
    return class_on(base, backend, recompute)


def _check_instance(module: Any) -> None:
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"expected an instance of an emitted class, got {type(module).__name__}")
    if "_orig_mod" in module._modules or module._compiled_call_impl is not None or torch.compiler.is_compiling():
        raise ValueError(
            "the module is compiled by torch.compile, which has read its forward pass already: accelerate it first, as "
            "in torch.compile(accelerate(module))"
        )
    if "forward" in vars(module):
        raise ValueError("something has replaced the forward pass of this instance: accelerate it before that")


@lru_cache(maxsize=512)
def _check_class(circuit_class: type) -> None:
    """Raise ValueError where engines, which go by the circuit, might compute something else than the class does."""
    place, source = _file_of(circuit_class)
    if not source.startswith(SEAL):
        raise ValueError(
            f"{circuit_class.__module__}.{circuit_class.__qualname__} is no emitted class: give an instance of "
            "`Circuit` of a file that `quanta compile` has written, before anything subclasses or wraps it"
        )
    if not is_unedited(source):
        raise ValueError(
            f"{place} was edited by hand, and the engines, which go by its circuit, would not compute what was "
            "changed: compile the circuit again, or leave the module as it is"
        )
    try:
        written = compile_circuit(load_spec(json.loads(circuit_class.circuit))).source  # type: ignore[attr-defined]
    except SpecError as error:
        raise ValueError(f"{place} holds a circuit that cannot be read here:\n{error}") from error
    if written != source:
        raise ValueError(
            f"{place} is not what this version of quanta-compiler writes for its circuit: compile the circuit again "
            "with `quanta compile`, and import the new file; state dicts stay as they are"
        )


def _file_of(circuit_class: type) -> tuple[str, str]:
    """Return the name and the text of the file that a class's own forward pass stands in; "" where it has none."""
    # By its code, because a file may be loaded without a place in sys.modules.
    forward = vars(circuit_class).get("forward")
    if not isinstance(forward, FunctionType) or forward.__qualname__ != "Circuit.forward":
        return "", ""
    name = forward.__code__.co_filename
    linecache.checkcache(name)
    return name, "".join(linecache.getlines(name, forward.__globals__))
