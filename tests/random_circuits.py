"""Random circuit files by seed, as dicts, that use everything the file format has; and gates worth comparing with."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Collection
from typing import Any

import torch
from drawn_kinds import INITS, KINDS, STORED, Kind
from plain_patterns import RULES, Axes, Ref, pattern_gates, written_out

OPTIMIZERS = ("auto", "auto", "auto", "dp", "greedy", "branch-1", "branch-2")
TOKENS = (1, 7, 2048)
WIDTH = 400
"""Most numbers in a state: the oracles are slow."""
GATES_OF_A_PATTERN = 8


def file_of(layout: Any, gates: list[Any], **keys: Any) -> dict[str, Any]:
    """Return a circuit file with this layout and these gates."""
    return {"version": 1, "name": "test", "layout": layout, "gates": gates, **keys}


class _Drawer:
    """The axes that are present, and the entries of `gates` drawn so far."""

    def __init__(self, draw: random.Random, layout: Any, kinds: Collection[str], frozen: float) -> None:
        self.draw = draw
        self.kinds = {kind: KINDS[kind] for kind in kinds}
        self.frozen = frozen
        self.axes = Axes(layout)
        self.positional = not isinstance(layout, dict)
        self.original = list(self.axes.names)
        """Axes of the layout that no gate has removed."""
        self.removed: list[str] = []
        self.items: list[Any] = []
        self.count = 0
        """How many gates the entries stand for."""
        self.matrices: list[tuple[str, tuple[int, ...], bool]] = []
        """Gates that can be shared, with the shapes of their matrices, and whether these are diagonal."""

    def ref(self, axis: str, *, key: bool = False) -> Ref:
        """Return an axis as a file may write it; positions also from the end. `key`: as a key of `to`."""
        if axis not in self.original or not (self.positional or (not key and self.draw.random() < 0.1)):
            return axis
        position = self.axes.names.index(axis)
        return position if self.draw.random() < 0.6 else position - len(self.axes.names)

    def add(self) -> None:
        """Draw one entry; nothing where what is drawn finds no place."""
        chance = self.draw.random()
        if chance < 0.1:
            self._pattern()
        elif chance < 0.25:
            self._share()
        else:
            weights = [kind.weight for kind in self.kinds.values()]
            self._gate(*self.draw.choices(list(self.kinds.items()), weights)[0])

    def _start(self, axes: list[str], has_per: bool) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Return a gate on some axes with its name and `per`, and how many blocks its matrix has along each."""
        gate: dict[str, Any] = {"axes": [self.ref(axis) for axis in axes]}
        if self.draw.random() < 0.3:
            gate["name"] = f"own_{self.count}"
        others = [axis for axis in self.axes.present if axis not in axes]
        if not (has_per and others and self.draw.random() < 0.25):
            return gate, ()
        per = others if self.draw.random() < 0.3 else self.draw.sample(others, 1)
        gate["per"] = "rest" if per == others and self.draw.random() < 0.7 else [self.ref(axis) for axis in per]
        return gate, tuple(self.axes.present[axis] for axis in per)

    def _gate(self, name: str, kind: Kind) -> None:
        possible = [axis for axis, size in self.axes.present.items() if kind.size in (None, size)]
        count = self.draw.choice(kind.counts)
        if count > len(possible):
            return
        axes = self.draw.sample(possible, count)
        gate, blocks = self._start(axes, bool(kind.inits))
        if name != "dense" or self.draw.random() < 0.5:
            gate["kind"] = name
        if self.draw.random() < kind.resized:
            to = self._target(axes, kind)
            if to is not None:
                gate["to"] = to
        columns, rows = self.axes.size(axes), math.prod(self.axes.target(gate, axes).values())
        if max(rows, columns) > kind.most:
            return
        gate |= kind.options(self.draw, rows, columns) | self._drawn(kind)
        if kind.inits:
            self.matrices.append((gate.get("name", f"g{self.count}"), (*blocks, rows, columns), kind.is_diagonal))
        self._apply(gate, axes)

    def _drawn(self, kind: Kind) -> dict[str, Any]:
        """Draw how a gate's numbers begin, and whether they train."""
        keys: dict[str, Any] = {}
        if kind.inits and self.draw.random() < 0.3:
            keys["init"] = copy.deepcopy(self.draw.choice(kind.inits))
        if kind.inits and self.draw.random() < 0.3 + self.frozen:
            keys["frozen"] = self.draw.random() < self.frozen / (0.3 + self.frozen)
        return keys

    def _target(self, axes: list[str], kind: Kind) -> list[int] | dict[Ref, int] | None:
        """Return a `to`: a list of sizes, or a mapping that may drop, keep, make and make again axes."""
        columns = self.axes.size(axes)
        rest = self.axes.size(list(self.axes.present)) // columns
        keep_size = self.draw.random() < kind.reshaped
        for _ in range(20):
            if self.draw.random() < 0.3 and not keep_size:
                drawn = {axis: self.draw.choice((1, 2, 3, 4, self.axes.present[axis])) for axis in axes}
                is_list = True
            else:
                drawn, is_list = self._renamed(axes), False
                drawn = self._factors(columns, list(drawn)) if keep_size else drawn
            signs = {(size > old) - (size < old) for axis, size in drawn.items() if (old := self._old(axis, axes))}
            rows = math.prod(drawn.values())
            if rows * rest > WIDTH or (keep_size and rows != columns) or (kind.one_way and {-1, 1} <= signs):
                continue
            return list(drawn.values()) if is_list else {self.ref(name, key=True): drawn[name] for name in drawn}
        return None

    def _old(self, axis: str, axes: list[str]) -> int:
        return self.axes.present[axis] if axis in axes else 0

    def _renamed(self, axes: list[str]) -> dict[str, int]:
        """Return axes in place of others: some of them, new ones, and one that was removed before."""
        kept = [axis for axis in axes if self.draw.random() < 0.6]
        new = [f"n{self.draw.randrange(1000)}" for _ in range(self.draw.choice((0, 0, 1, 1, 2)))]
        if self.removed and self.draw.random() < 0.5:
            new.append(self.draw.choice(self.removed))
        names = list(dict.fromkeys(name for name in kept + new if name in kept or name not in self.axes.present))
        self.draw.shuffle(names)
        return {name: self.draw.choice((1, 2, 3, 4)) for name in names}

    def _factors(self, number: int, names: list[str]) -> dict[str, int]:
        sizes = dict.fromkeys(names, 1)
        for name in names[:-1]:
            sizes[name] = self.draw.choice([d for d in range(1, number + 1) if number % d == 0])
            number //= sizes[name]
        if names:
            sizes[names[-1]] = number
        return sizes

    def _share(self) -> None:
        """Share a parameter whose matrix fits, or is made to fit by axes of other sizes."""
        if not self.axes.present:
            return
        axes = self.draw.sample(list(self.axes.present), min(len(self.axes.present), self.draw.choice((1, 1, 2, 2, 3))))
        gate, blocks = self._start(axes, True)
        columns, width = self.axes.size(axes), self.axes.size(list(self.axes.present))
        choices: list[tuple[str, bool, int, bool]] = []
        for name, shape, is_diagonal in self.matrices:
            for transpose in (False, True):
                rows, needed = (shape[-1], shape[-2]) if transpose else shape[-2:]
                if shape[:-2] == blocks and needed == columns and rows * (width // columns) <= WIDTH:
                    choices.append((name, transpose, rows, is_diagonal))
        if not choices:
            return
        gate["share"], transpose, rows, is_diagonal = self.draw.choice(choices)
        if transpose or self.draw.random() < 0.3:
            gate["transpose"] = transpose
        if not is_diagonal and (rows != columns or self.draw.random() < 0.3):
            sizes = self._factors(rows, [*axes[:-1], f"n{self.draw.randrange(1000)}"])
            if any(axis in self.axes.present and axis not in axes for axis in sizes):
                return
            gate["to"] = {self.ref(axis, key=True): size for axis, size in sizes.items()}
        self.matrices.append((gate.get("name", f"g{self.count}"), (*blocks, rows, columns), is_diagonal))
        self._apply(gate, axes)

    def _pattern(self) -> None:
        """Draw a pattern over axes of the layout, of a kind whose gates fit on them."""
        rule = self.draw.choice((*RULES, "two_design"))
        per_gate = 1 if rule in ("each", "two_design") else 2
        names = [name for name, kind in self.kinds.items() if per_gate in kind.counts and kind.in_patterns]
        if rule == "two_design":
            names = ["orthogonal"] if {"orthogonal", "ry", "cz"} <= set(self.kinds) else []
        if not names:
            return
        name = self.draw.choice(names)
        kind = self.kinds[name]
        possible = [axis for axis in self.original if kind.size in (None, self.axes.present[axis])]
        everywhere = self.draw.random() < 0.4
        over = possible if everywhere else self.draw.sample(possible, self.draw.randint(0, min(4, len(possible))))
        item: dict[str, Any] = {"pattern": rule}
        if over != self.axes.names or self.draw.random() < 0.3:
            item["axes"] = [self.ref(axis) for axis in over]
        largest = math.prod(sorted((self.axes.present[axis] for axis in over), reverse=True)[:per_gate])
        if rule == "two_design":
            item |= {"layers": self.draw.randint(0, 2)} if self.draw.random() < 0.6 else {}
        else:
            # What fits the largest gate need not fit the smallest: options for a matrix of the smallest sizes.
            smallest = math.prod(sorted(self.axes.present[axis] for axis in over)[:per_gate])
            item |= {"kind": name} if name != "dense" or self.draw.random() < 0.5 else {}
            item |= kind.options(self.draw, smallest, smallest)
            item |= {"per": "rest"} if kind.inits and self.draw.random() < 0.2 else {}
        item |= self._drawn(kind) | ({"repeat": 2} if self.draw.random() < 0.2 else {})
        can_resize = kind.resized and kind.reshaped < 1 and over and rule != "two_design"
        if can_resize and self.draw.random() < 0.2 and not item.get("rank_parameters"):
            axis = self.draw.choice(over)
            size = self.draw.randint(1, 4)
            width = self.axes.size(list(self.axes.present)) // self.axes.present[axis] * size
            largest = max(largest, largest // self.axes.present[axis] * size) if width <= WIDTH else WIDTH + 1
            item["to"] = {self.ref(axis, key=True): size}
        gates = pattern_gates(item, self.axes)
        if not 0 < len(gates) <= GATES_OF_A_PATTERN or largest > kind.most:
            return
        self.items.append(rule if item == {"pattern": rule} else item)
        self.count += len(gates)
        for gate in gates:
            self.axes.apply(gate)

    def _apply(self, gate: dict[str, Any], axes: list[str]) -> None:
        self.items.append(gate["axes"] if list(gate) == ["axes"] else gate)
        self.count += 1
        to = self.axes.target(gate, axes)
        for axis in axes:
            if axis not in to:
                self.removed += [] if axis.isdigit() else [axis]
                if axis in self.original:
                    self.original.remove(axis)
        self.axes.replace(axes, to)


def _layout(draw: random.Random) -> list[int]:
    if draw.random() < 0.12:
        return [2] * draw.randint(7, 8)
    while True:
        sizes = [draw.choice((1, 2, 2, 3, 3, 4, 5, 8, 16)) for _ in range(draw.choice((1, 2, 3, 3, 4, 4, 5, 6)))]
        if math.prod(sizes) <= WIDTH:
            return sizes


def random_file(
    seed: int, *, gates: int | None = None, frozen: float = 0.15, kinds: Collection[str] = tuple(KINDS)
) -> dict[str, Any]:
    """Return a valid circuit file of up to 12 entries, every sixth one of up to 40, with gates of some kinds."""
    draw = random.Random(seed)
    if draw.random() < 0.3:
        # Every figure of these is exact.
        kinds = [kind for kind in kinds if kind in STORED] or kinds
    sizes = _layout(draw)
    layout: Any = {f"{'abcdefgh'[place]}{place}": size for place, size in enumerate(sizes)}
    if draw.random() < 0.5:
        layout = draw.choice((sizes, "x".join(map(str, sizes)), "-".join(map(str, sizes))))
        layout = sizes[0] if len(sizes) == 1 and draw.random() < 0.5 else layout
    drawer = _Drawer(draw, layout, kinds, frozen)
    wanted = gates if gates is not None else draw.randint(1, 40 if draw.random() < 0.17 else 12)
    for _ in range(100 * wanted):
        if len(drawer.items) < wanted:
            drawer.add()
    file = file_of(layout, drawer.items or [[0]], name=f"random-{seed}")
    present = drawer.axes.present
    if draw.random() < 0.4 and present:
        order = draw.sample(list(present), len(present))
        file["output"] = [drawer.ref(axis) for axis in order]
    product, final = math.prod(sizes), math.prod(present.values())
    if draw.random() < 0.3:
        file["in_features"] = max(1, product + draw.randint(-product // 2, product // 2))
    if draw.random() < 0.3:
        file["out_features"] = max(1, final + draw.randint(-final // 2, final // 2))
    if draw.random() < 0.2:
        file["init"] = copy.deepcopy(draw.choice(INITS))
    file["plan"] = {"tokens": draw.choice(TOKENS), "optimizer": draw.choice(OPTIMIZERS)}
    return file


def kinds_of(file: dict[str, Any]) -> set[str]:
    """Return the kinds of a file's gates; those of shares are their owners'."""
    return {gate.get("kind", "dense") for gate in written_out(file)["gates"] if "share" not in gate}


def commuting_file(draw: random.Random) -> dict[str, Any]:
    """Return a circuit file whose gates are named and touch few of the axes, so that many commute."""
    axes = "abcdef"
    gates: list[dict[str, Any]] = []
    for number in range(10):
        touched = draw.sample(axes, draw.choice((1, 2, 2)))
        gate: dict[str, Any] = {"axes": touched, "name": f"own_{number}"}
        if draw.random() < 0.2:
            gate |= {"kind": "lowrank", "rank": 2}
        elif len(touched) == 2 and draw.random() < 0.2:
            gate |= {"axes": touched[:1], "per": touched[1:]}
        gates.append(gate)
    return file_of({axis: draw.choice((2, 3, 4)) for axis in axes}, gates)


def shuffled(file: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Exchange neighbours that touch no axis in common, many times."""
    gates = list(file["gates"])
    for _ in range(200):
        place = draw.randrange(len(gates) - 1)
        left, right = (set(gate["axes"]) | set(gate.get("per", ())) for gate in gates[place : place + 2])
        if left.isdisjoint(right):
            gates[place : place + 2] = gates[place + 1], gates[place]
    return {**file, "gates": gates}


@torch.no_grad()
def scale_gates(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Draw every parameter from a normal distribution that suits its kind; return the module.

    Default gates shrink the output by 3^-0.5 each, so a deep circuit would compare zeros with zeros.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = gate_kinds(module)
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(drawn * KINDS[kinds[name.split(".")[1]]].deviation(parameter.shape[-1]))
    return module


def gate_kinds(module: torch.nn.Module) -> dict[str, str]:
    """Return the kind of every gate that a module's circuit text lists, shares left out."""
    listed = json.loads(str(module.circuit))["gates"]
    return {gate["name"]: gate["kind"] for gate in listed if "kind" in gate}


def error(actual: torch.Tensor, expected: torch.Tensor, floor: float = 0.0) -> float:
    """Return the distance over the norm of what is expected, `floor` at least; absolute where that is zero."""
    assert actual.shape == expected.shape
    difference = float((actual.detach().double() - expected.detach().double()).norm())
    norm = max(floor, float(expected.detach().double().norm()))
    return difference / norm if norm > 0 else difference
