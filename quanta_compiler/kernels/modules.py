"""Emitted classes with another way to run their forward pass; parameters, state dict and `operator()` are theirs."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from quanta_compiler.kernels.engine import ENGINES, engine_name, is_left_to_kernel, is_measured
from quanta_compiler.kernels.executable import executable
from quanta_compiler.kernels.measured import Ways, is_faster, outcomes
from quanta_compiler.kernels.operator import apply_circuit
from quanta_compiler.kernels.precision import is_autocast, without_autocast
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
        return _subclass(base, _fused(base), extra_repr=_engines_of(base), operator=_operator(base))
    if backend == "auto":
        found = executable(base.circuit)
        choices = {engine.name: engine.prefers(found.table, found.tokens) for engine in ENGINES}
        if any(choice is not False for choice in choices.values()):
            forward = _automatic(base, plain, choices, _form(recompute))
            return _subclass(base, forward, extra_repr=_engines_of(base), operator=_operator(base))
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


def _operator(base: Any) -> Callable[..., torch.Tensor]:
    """Return `operator` as the kernel for CPUs makes it, without gradient; elsewhere as it was emitted."""
    found = executable(base.circuit)
    shape = found.out_features, found.in_features

    def operator(self: Any, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        stored = _tensors(self.gates)
        given = stored if add_to is None else [*stored, add_to]
        if add_to is None:
            is_right = not (torch.is_grad_enabled() and any(one.requires_grad for one in stored))
        else:
            is_right = add_to.shape == shape
        if not is_right or not is_left_to_kernel(given) or found.rows is None:
            result: torch.Tensor = base.operator(self, add_to=add_to, scale=scale)
            return result
        lookup, dtype, device = stored_in(self), stored[0].dtype, stored[0].device
        with torch.no_grad(), without_autocast(device):
            if add_to is None:
                return found.rows.whole(lookup, dtype, device)
            for rows, block in found.rows.blocks(lookup, dtype, device):
                add_to[rows].add_(block, alpha=scale)
        return add_to

    operator.__doc__ = base.operator.__doc__
    return operator


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
        stored = stored_in(self)
        if first is not None and not is_autocast(x.device):
            dtype = stored(*first).dtype
            if dtype != x.dtype:
                raise ValueError(f"the input is {x.dtype}, the gates are {dtype}: convert one of them")
        return apply_circuit(circuit, x, matrices(stored, x))

    return forward


def stored_in(owner: Any) -> Callable[[str, str], torch.Tensor]:
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
        return apply_circuit(circuit, x, [*found.matrices(stored_in(own), x), *found.matrices(stored_in(minus), x)])

    ways = Ways(f"difference, {_form(recompute)}", fused, plain)

    def choose(own: Any, minus: Any, x: torch.Tensor) -> torch.Tensor:
        if backend == "torch" or not is_measured(x.device.type, x.dtype):
            return plain(own, minus, x)
        if backend == "fused" or is_faster(base, _tensors(own.gates), x, ways):
            return fused(own, minus, x)
        return plain(own, minus, x)

    return choose
