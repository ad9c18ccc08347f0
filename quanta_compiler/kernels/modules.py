"""Emitted classes with another way to run their forward pass; parameters, state dict and `operator()` are theirs."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from quanta_compiler.kernels.engine import ENGINES, engine_name, is_measured
from quanta_compiler.kernels.executable import executable
from quanta_compiler.kernels.measured import Ways, is_faster, outcomes
from quanta_compiler.kernels.operator import apply_circuit
from quanta_compiler.kernels.precision import is_autocast
from quanta_compiler.text.words import plural

Forward = Callable[[Any, torch.Tensor], torch.Tensor]
Difference = Callable[[Any, Any, torch.Tensor], torch.Tensor]


def variant(base: Any, backend: str, recompute: bool) -> Any:
    """Return an emitted class that runs on `backend`; `base` itself where that is what it does.

    With `recompute` nothing but the input is kept for backward on the `torch` backend too, which then computes the
    forward pass again.
    """
    plain: Forward = _recomputing(base.forward) if recompute else base.forward
    if backend == "fused":
        return _subclass(base, _fused(base), extra_repr=_engines_of(base))
    if backend == "auto":
        found = executable(base.circuit)
        choices = {engine.name: engine.prefers(found.table, found.tokens) for engine in ENGINES}
        if any(choice is not False for choice in choices.values()):
            return _subclass(base, _automatic(base, plain, choices, _form(recompute)), extra_repr=_engines_of(base))
    return _subclass(base, plain) if recompute else base


def _subclass(base: Any, forward: Forward, **others: Any) -> Any:
    members = {"__module__": base.__module__, "__doc__": base.__doc__, "forward": forward, **others}
    forward.__doc__ = base.forward.__doc__
    return type("Circuit", (base,), members)


def _engines_of(base: Any) -> Callable[[Any], str]:
    def extra_repr(self: Any) -> str:
        """Return which engines have run the circuit in this process, and what `auto` has measured."""
        told, faster = executable(base.circuit).in_words(), outcomes(base)
        measured = f"; faster than torch in {sum(faster)} of {plural(len(faster), 'kind')} of call" if faster else ""
        return f"engine: {told or 'chosen at the first call'}{measured}"

    return extra_repr


def _recomputing(plain: Forward) -> Forward:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            return plain(self, x)  # torch.func knows no checkpoints
        result: torch.Tensor = checkpoint(plain, self, x, use_reentrant=False, preserve_rng_state=False)
        return result

    return forward


def _form(recompute: bool) -> str:
    return "recomputed" if recompute else "kept"


def _automatic(base: Any, plain: Forward, choices: dict[str, bool | None], form: str) -> Forward:
    fused = _fused(base)

    def by_engine(module: Any, _: Any, x: torch.Tensor) -> torch.Tensor:
        return fused(module, x)

    def by_torch(module: Any, _: Any, x: torch.Tensor) -> torch.Tensor:
        return plain(module, x)

    ways = Ways(form, by_engine, by_torch)

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        choice = choices.get(engine_name(x.device.type, x.dtype), False)
        if choice is None:
            choice = is_faster(base, _tensors(self.gates), x, ways)
        return fused(self, x) if choice else plain(self, x)

    return forward


def _tensors(gates: Any) -> list[torch.Tensor]:
    """Return the tensors of the gates, of a module or of what stands for one."""
    if not isinstance(gates, dict):
        return list(gates.parameters())
    return [tensor for one in gates.values() for tensor in (one.values() if isinstance(one, dict) else (one,))]


def _fused(base: Any) -> Forward:
    # Looked up once: torch.compile would follow the cache into everything that makes a table.
    circuit, found = base.circuit, executable(base.circuit)
    matrices, first = found.matrices, found.first_stored

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        stored = _stored(self)
        if first is not None and not is_autocast(x.device):
            dtype = stored(*first).dtype
            if dtype != x.dtype:
                raise ValueError(f"the input is {x.dtype}, the gates are {dtype}: convert one of them")
        return apply_circuit(circuit, x, matrices(stored, x))

    return forward


def _stored(owner: Any) -> Callable[[str, str], torch.Tensor]:
    """Return the lookup of a tensor by its gate and part, in a module or in what stands for one."""
    gates = owner.gates
    # Past the lookup of modules, which takes as long as a small gate.
    direct = gates if isinstance(gates, dict) else gates._parameters

    def stored(gate: str, part: str) -> torch.Tensor:
        if part == "value":
            return getattr(owner, f"constant_{gate}")  # type: ignore[no-any-return]
        if part:
            return gates[gate][part]  # type: ignore[no-any-return]
        # What parametrizes, prunes or shards a gate leaves it elsewhere.
        return direct[gate] if gate in direct else gates[gate]  # type: ignore[no-any-return]

    return stored


def difference(base: Any, backend: str, recompute: bool, forward: Forward) -> Difference:
    """Return what makes T x - S x of an emitted class, of T, S and `x`, in the dtype of `x` or a more precise one.

    An engine of a GPU reads `x` as it is and makes both in one pass; otherwise `forward`, that of the backend, makes
    one after the other from `x` in the dtype of the gates, with `recompute` without keeping more than it.
    """
    circuit, found = base.circuit, executable(base.circuit)

    def plain(own: Any, minus: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.to(next(iter(_tensors(own.gates))).dtype)
        return forward(own, x) - forward(minus, x)

    def fused(own: Any, minus: Any, x: torch.Tensor) -> torch.Tensor:
        return apply_circuit(circuit, x, [*found.matrices(_stored(own), x), *found.matrices(_stored(minus), x)])

    ways = Ways(f"difference, {_form(recompute)}", fused, plain)

    def choose(own: Any, minus: Any, x: torch.Tensor) -> torch.Tensor:
        if backend == "torch" or not is_measured(x.device.type, x.dtype):
            return plain(own, minus, x)
        if backend == "fused" or is_faster(base, _tensors(own.gates), x, ways):
            return fused(own, minus, x)
        return plain(own, minus, x)

    return choose
