"""Who takes part: contestants made one after the other, those left out that cannot be made or have no room."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from quanta_compiler.bench.adapters import adapted_layer, frozen_weight
from quanta_compiler.bench.contestants import Batch, Contestant, LeftOutError, Setting
from quanta_compiler.bench.einsums import einsum_contestant, gate_by_gate_contestant, opt_einsum_contestant
from quanta_compiler.bench.layers import dense_layer, lora_layer
from quanta_compiler.bench.limits import copy_bytes, matmul_bytes
from quanta_compiler.bench.options import ADAPTERS, BARE, OPERATOR, Options
from quanta_compiler.bench.ours import our_contestant, our_names
from quanta_compiler.bench.result import LeftOut
from quanta_compiler.system.machine import LimitError, free_bytes
from quanta_compiler.text.quantities import bytes_text
from quanta_compiler.text.words import plural

Maker = Callable[[Setting], Contestant]
_MAKERS: Mapping[str, Maker] = {
    "einsum": einsum_contestant,
    "gate-by-gate": gate_by_gate_contestant,
    "opt-einsum": opt_einsum_contestant,
    "dense": dense_layer,
    "lora-8": partial(lora_layer, rank=8),
    "lora-64": partial(lora_layer, rank=64),
}


@dataclass(slots=True)
class Entry:
    """A contestant with the modes that it is measured in, and what is found before it is timed."""

    contestant: Contestant
    modes: list[str]
    errors: dict[str, float] = field(default_factory=dict)
    """Relative to the norm, mode by mode; NaN where something is no number."""
    wrong: list[str] = field(default_factory=list)
    """The modes whose results are wrong; they are not timed."""


Group = list[Entry]
"""What is compared with the first of them."""


class Roster:
    """Takes contestants in while there is room for them."""

    def __init__(self, setting: Setting, options: Options) -> None:
        self.setting = setting
        self.options = options
        self.left_out: list[LeftOut] = []
        self._limit = options.max_bytes if options.max_bytes is not None else free_bytes() // 2
        # The batch, the gradient of the output, and what the limits work on.
        self._held = 2.0 * copy_bytes(setting) + matmul_bytes(setting.dtype)
        self._weight_bytes = math.prod(setting.features) * setting.dtype.itemsize

    def circuit_group(self) -> Group:
        """Return everything that stands where the circuit stands: ours first, the others, and other layers."""
        group: Group = []
        first, *others = our_names(self.setting.compiled, self.setting.dtype)
        ours: dict[str, Maker] = {name: partial(our_contestant, name) for name in (first, *others)}
        for name, make in {**ours, **_MAKERS}.items():
            if name == first or self.options.wants(name):
                self._add(group, name, make)
        return group

    def adapter_group(self) -> Group:
        """Return adapters on a frozen layer, the bare layer first."""
        group: Group = []
        names = [name for name in ADAPTERS if self.options.wants(name)]
        if not self._has_room(2 * self._weight_bytes):
            for name in names:
                self._leave_out(name, None, 2 * self._weight_bytes)
            return group
        weight = frozen_weight(self.setting)
        self._held += self._weight_bytes
        for name in (BARE, *names):
            self._add(group, name, partial(adapted_layer, name, weight=weight))
        return group

    def _add(self, group: Group, name: str, make: Maker) -> None:
        if name == "dense" and not self._has_room(2 * self._weight_bytes):
            return self._leave_out(name, None, 2 * self._weight_bytes)
        try:
            contestant = make(self.setting)
        except LeftOutError as error:
            return self.left_out.append(LeftOut(name, None, str(error)))
        storages = [tensor.untyped_storage() for tensor in contestant.own]
        self._held += sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
        if contestant.is_circuit and not group:
            self._refuse_too_large(contestant)
        fitting = []
        for mode in (mode for mode in self.options.modes if mode in contestant.costs):
            if self._has_room(contestant.costs[mode].bytes):
                fitting.append(mode)
            else:
                self._leave_out(name, mode, contestant.costs[mode].bytes)
        if fitting:
            group.append(Entry(contestant, fitting))
        return None

    def _has_room(self, needed: float) -> bool:
        return self._held + needed <= self._limit

    def _leave_out(self, name: str, mode: str | None, needed: float) -> None:
        reason = f"it needs about {bytes_text(needed + self._held)}, but may take {self._room()}"
        self.left_out.append(LeftOut(name, mode, reason))

    def _room(self) -> str:
        reason = "--max-bytes" if self.options.max_bytes is not None else "half of the free memory; see --max-bytes"
        return f"{bytes_text(self._limit)} ({reason})"

    def _refuse_too_large(self, contestant: Contestant) -> None:
        """Raise LimitError where the circuit itself has no room for the batch."""
        wanted = [mode for mode in self.options.modes if mode != OPERATOR] or [OPERATOR]
        needed = max(contestant.costs[mode].bytes for mode in wanted)
        if not self._has_room(needed):
            batch = plural(self.setting.tokens, "token")
            needs = f"measuring this circuit on {batch} needs about {bytes_text(self._held + needed)}"
            remedy = ", or measure fewer --tokens" if self.setting.tokens > 1 else ""
            raise LimitError(f"{needs}, but may take {self._room()}{remedy}")


def batch_of(setting: Setting) -> Batch:
    """Draw the batch that all contestants get."""
    generator = torch.Generator("cpu").manual_seed(1)
    x, gradient = (torch.randn(setting.tokens, width, generator=generator) for width in setting.features)
    return x.to(setting.dtype), gradient.to(setting.dtype)
