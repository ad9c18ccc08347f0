"""Who takes part: contestants made one after the other, those left out that cannot be made or have no room."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from quanta_compiler.bench.adapters import adapted_layer, bare_layer, frozen_weight
from quanta_compiler.bench.contestants import Contestant, LeftOutError, Setting
from quanta_compiler.bench.einsums import einsum_contestant, gate_by_gate_contestant, opt_einsum_contestant
from quanta_compiler.bench.layers import dense_layer, lora_layer
from quanta_compiler.bench.limits import copy_bytes, matmul_bytes
from quanta_compiler.bench.options import ADAPTERS, LAYERS, OPERATOR, RIVALS, Options
from quanta_compiler.bench.ours import our_contestant, our_names
from quanta_compiler.bench.result import LeftOut
from quanta_compiler.system.machine import LimitError, free_bytes
from quanta_compiler.text.words import bytes_text, plural

_MAKERS: Mapping[str, Callable[[Setting], Contestant]] = {
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
    peak_bytes: dict[str, int] = field(default_factory=dict)
    saved_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Entries that are compared with the first of them."""

    name: str
    ratio_key: str
    entries: list[Entry]


class Roster:
    """Takes contestants in while there is room for them."""

    def __init__(self, setting: Setting, options: Options) -> None:
        self.setting = setting
        self.options = options
        self.left_out: list[LeftOut] = []
        self._limit = options.max_bytes if options.max_bytes is not None else free_bytes() // 2
        # The batch, the gradient of the output, and what the limits work on.
        self._held = 2.0 * copy_bytes(setting.tokens, setting.features, setting.dtype) + matmul_bytes(setting.dtype)

    def circuit_group(self) -> Group:
        """Return everything that stands where the circuit stands: ours first, the others, and other layers."""
        group = Group("circuit", "ratio_to_ours", [])
        first, *others = our_names(self.setting.compiled, self.setting.dtype)
        for name in (first, *others):
            if name == first or self.options.wants(name):
                self._add(group, name, partial(our_contestant, name, self.setting))
        for name in (*RIVALS, *LAYERS):
            if self.options.wants(name):
                self._add(group, name, partial(_MAKERS[name], self.setting))
        return group

    def adapter_group(self) -> Group:
        """Return adapters on a frozen layer, the bare layer first."""
        group = Group("adapters", "ratio_to_bare_layer", [])
        names = [name for name in ADAPTERS if self.options.wants(name)]
        if not self._has_room_for_weights(2):
            for name in names:
                self._leave_out(name, None, self._no_room(2 * self._weight_bytes))
            return group
        weight = frozen_weight(self.setting)
        self._held += self._weight_bytes
        self._add(group, "bare", partial(bare_layer, self.setting, weight))
        for name in names:
            self._add(group, name, partial(adapted_layer, name, self.setting, weight))
        return group

    def _add(self, group: Group, name: str, make: Callable[[], Contestant]) -> None:
        if name == "dense" and not self._has_room_for_weights(2):
            return self._leave_out(name, None, self._no_room(2 * self._weight_bytes))
        try:
            contestant = make()
        except LeftOutError as error:
            return self._leave_out(name, None, str(error))
        own = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in contestant.own}
        self._held += sum(own.values())
        if not group.entries and group.name == "circuit":
            self._refuse_too_large(contestant)
        modes = [mode for mode in self.options.modes if mode in contestant.costs]
        fitting = [mode for mode in modes if self._held + contestant.costs[mode].bytes <= self._limit]
        for mode in modes:
            if mode not in fitting:
                self._leave_out(name, mode, self._no_room(contestant.costs[mode].bytes))
        if fitting:
            group.entries.append(Entry(contestant, fitting))
        return None

    @property
    def _weight_bytes(self) -> int:
        inputs, outputs = self.setting.features
        return inputs * outputs * self.setting.dtype.itemsize

    def _has_room_for_weights(self, count: int) -> bool:
        return self._held + count * self._weight_bytes <= self._limit

    def _leave_out(self, name: str, mode: str | None, reason: str) -> None:
        self.left_out.append(LeftOut(name, mode, reason))

    def _no_room(self, needed: float) -> str:
        return f"it needs about {bytes_text(needed + self._held)}, but may take {self._room()}"

    def _room(self) -> str:
        reason = "--max-bytes" if self.options.max_bytes is not None else "half of the free memory; see --max-bytes"
        return f"{bytes_text(self._limit)} ({reason})"

    def _refuse_too_large(self, contestant: Contestant) -> None:
        """Raise LimitError where the circuit itself has no room for the batch."""
        wanted = [mode for mode in self.options.modes if mode != OPERATOR] or [OPERATOR]
        needed = self._held + max(contestant.costs[mode].bytes for mode in wanted)
        if needed > self._limit:
            batch = plural(self.setting.tokens, "token")
            remedy = ", or measure fewer --tokens" if self.setting.tokens > 1 else ""
            raise LimitError(
                f"measuring this circuit on {batch} needs about {bytes_text(needed)}, but may take "
                f"{self._room()}{remedy}"
            )


def batch_of(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the input, `[tokens, in_features]`, and the output's gradient, `[tokens, out_features]`."""
    generator = torch.Generator("cpu").manual_seed(1)
    x, gradient = (torch.randn(setting.tokens, width, generator=generator) for width in setting.features)
    return x.to(setting.dtype), gradient.to(setting.dtype)
