"""Random circuit files by seed, as dicts, that use everything the file format has; and gates worth comparing with."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

import torch

KINDS = ("dense", "dense", "dense", "lowrank", "diagonal", "slice", "constant", "share", "share")
OPTIMIZERS = ("auto", "auto", "auto", "dp", "greedy", "branch-1", "branch-2")
TOKENS = (1, 7, 2048)
WIDTH = 400
"""Most numbers in a state: the oracles are slow."""


def file_of(layout: Any, gates: list[Any], **keys: Any) -> dict[str, Any]:
    """Return a circuit file with this layout and these gates."""
    return {"version": 1, "name": "test", "layout": layout, "gates": gates, **keys}


@dataclass
class _Drawer:
    """The axes that are present, in the order of a flattened state, and the gates drawn so far."""

    draw: random.Random
    positional: bool
    original: dict[str, int | str]
    """Axes of the layout that no gate has removed, and how files refer to them."""
    present: dict[str, int]
    gates: list[dict[str, Any]] = field(default_factory=list)
    matrices: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    """Gates that can be shared, with the shapes of their matrices."""
    removed: list[str] = field(default_factory=list)
    frozen: float = 0.15

    def ref(self, axis: str) -> int | str:
        """Return an axis as a file may write it; positions also from the end."""
        if axis not in self.original or not self.positional:
            return axis
        position = int(self.original[axis])
        return position if self.draw.random() < 0.6 else position - self.layout_length

    @property
    def layout_length(self) -> int:
        return self._length

    def __post_init__(self) -> None:
        self._length = len(self.original)

    def add(self) -> None:
        """Draw one gate; nothing where the drawn kind finds no place."""
        kind = self.draw.choice(KINDS)
        count = min(len(self.present), self.draw.choice((1, 1, 2, 2, 3)))
        if count == 0:
            return
        axes = self.draw.sample(list(self.present), count)
        others = [axis for axis in self.present if axis not in axes]
        gate: dict[str, Any] = {"axes": [self.ref(axis) for axis in axes]}
        if self.draw.random() < 0.3:
            gate["name"] = f"own_{len(self.gates)}"
        per: list[str] = []
        if kind not in ("slice", "constant") and others and self.draw.random() < 0.25:
            per = others if self.draw.random() < 0.3 else self.draw.sample(others, 1)
            gate["per"] = "rest" if per == others and self.draw.random() < 0.7 else [self.ref(axis) for axis in per]
        if kind == "share":
            if not self._share(gate, axes, per):
                return
        elif kind == "diagonal":
            gate["kind"] = "diagonal"
        else:
            self._matrix(kind, gate, axes, per)
        if kind in ("dense", "lowrank", "diagonal"):
            rows, columns = self._last_shape(gate, axes, per)
            gate["frozen"] = self.draw.random() < self.frozen
            self.matrices.append((gate.get("name", f"g{len(self.gates)}"), (*map(self.size, per), rows, columns)))
        self._apply(gate, axes)

    def size(self, axis: str) -> int:
        return self.present[axis]

    def _last_shape(self, gate: dict[str, Any], axes: list[str], per: list[str]) -> tuple[int, int]:
        columns = math.prod(map(self.size, axes))
        to = gate.get("to")
        sizes = to.values() if isinstance(to, dict) else to
        return (columns if sizes is None else math.prod(sizes)), columns

    def _matrix(self, kind: str, gate: dict[str, Any], axes: list[str], per: list[str]) -> None:
        """Fill in a gate that may change its axes."""
        gate["kind"] = kind
        columns = math.prod(map(self.size, axes))
        changed = self.draw.random() < (0.8 if kind == "slice" else 0.4)
        rows = columns
        if changed:
            to = self._target(axes, keep_size=kind == "slice" and self.draw.random() < 0.4)
            if to is not None:
                sizes = list(to.values()) if isinstance(to, dict) else to
                rows = math.prod(sizes)
                gate["to"] = to
        if kind == "lowrank":
            gate["rank"] = self.draw.randint(1, max(1, min(rows, columns)))
        if kind == "constant":
            if rows * columns > 256:
                gate["kind"] = "slice"
            else:
                scale = 1 / math.sqrt(columns)
                gate["value"] = [[round(self.draw.gauss(0, scale), 3) for _ in range(columns)] for _ in range(rows)]

    def _target(self, axes: list[str], *, keep_size: bool) -> list[int] | dict[Any, int] | None:
        """Return a `to`: a list of sizes, or a mapping that may drop, keep, make and make again axes."""
        rest = math.prod(self.present.values()) // math.prod(map(self.size, axes))
        columns = math.prod(map(self.size, axes))
        for _ in range(20):
            if self.draw.random() < 0.3 and not keep_size:
                sizes = [self.draw.choice((1, 2, 3, 4, self.size(axis))) for axis in axes]
                if math.prod(sizes) * rest <= WIDTH:
                    return sizes
                continue
            kept = [axis for axis in axes if self.draw.random() < 0.6]
            new = [f"n{self.draw.randrange(1000)}" for _ in range(self.draw.choice((0, 0, 1, 1, 2)))]
            if self.removed and self.draw.random() < 0.5:
                new.append(self.draw.choice(self.removed))
            names = list(dict.fromkeys(name for name in kept + new if name in kept or name not in self.present))
            self.draw.shuffle(names)
            drawn = {name: self.draw.choice((1, 2, 3, 4)) for name in names}
            if keep_size:
                drawn = self._factors(columns, names)
            if math.prod(drawn.values()) * rest <= WIDTH and (not keep_size or math.prod(drawn.values()) == columns):
                return {self.ref(name): size for name, size in drawn.items()}
        return None

    def _factors(self, number: int, names: list[str]) -> dict[str, int]:
        sizes = dict.fromkeys(names, 1)
        for name in names[:-1]:
            divisors = [d for d in range(1, number + 1) if number % d == 0]
            sizes[name] = self.draw.choice(divisors)
            number //= sizes[name]
        if names:
            sizes[names[-1]] = number
        return sizes

    def _share(self, gate: dict[str, Any], axes: list[str], per: list[str]) -> bool:
        """Share a parameter whose matrix fits, or is made to fit by axes of other sizes."""
        columns = math.prod(map(self.size, axes))
        blocks = tuple(map(self.size, per))
        width = math.prod(self.present.values())
        choices: list[tuple[str, bool, int]] = []
        for name, shape in self.matrices:
            for transpose in (False, True):
                rows, needed = (shape[-1], shape[-2]) if transpose else shape[-2:]
                if shape[:-2] == blocks and needed == columns and rows * (width // columns) <= WIDTH:
                    choices.append((name, transpose, rows))
        if not choices:
            return False
        name, transpose, rows = self.draw.choice(choices)
        gate["share"] = name
        if transpose or self.draw.random() < 0.3:
            gate["transpose"] = transpose
        is_diagonal = any(
            other.get("kind") == "diagonal" and other.get("name", f"g{place}") == self._root(name)
            for place, other in enumerate(self.gates)
        )
        if not is_diagonal and (rows != columns or self.draw.random() < 0.3):
            sizes = self._factors(rows, [*axes[:-1], f"n{self.draw.randrange(1000)}"])
            if any(axis in self.present and axis not in axes for axis in sizes):
                return False
            gate["to"] = {self.ref(axis): size for axis, size in sizes.items()}
        self.matrices.append((gate.get("name", f"g{len(self.gates)}"), (*blocks, rows, columns)))
        return True

    def _root(self, name: str) -> str:
        """Return the owner of a parameter."""
        for place, gate in enumerate(self.gates):
            if gate.get("name", f"g{place}") == name and "share" in gate:
                return self._root(gate["share"])
        return name

    def _apply(self, gate: dict[str, Any], axes: list[str]) -> None:
        self.gates.append(gate)
        to = gate.get("to")
        if to is None:
            return
        if isinstance(to, list):
            self.present.update(zip(axes, to, strict=True))
            return
        names = [self.name_of(ref) for ref in to]
        for axis in axes:
            if axis not in names:
                del self.present[axis]
                self.original.pop(axis, None)
                if not axis.isdigit():
                    self.removed.append(axis)
        for name, size in zip(names, to.values(), strict=True):
            self.present[name] = size

    def name_of(self, ref: int | str) -> str:
        return str(ref % self.layout_length) if isinstance(ref, int) else ref


def _layout(draw: random.Random) -> list[int]:
    if draw.random() < 0.12:
        return [2] * draw.randint(7, 8)
    while True:
        sizes = [draw.choice((1, 2, 2, 3, 3, 4, 5, 8, 16)) for _ in range(draw.choice((1, 2, 3, 3, 4, 4, 5, 6)))]
        if math.prod(sizes) <= WIDTH:
            return sizes


def random_file(seed: int, *, gates: int | None = None, frozen: float = 0.15) -> dict[str, Any]:
    """Return a valid circuit file of up to 12 gates, every sixth one of up to 40."""
    draw = random.Random(seed)
    sizes = _layout(draw)
    positional = draw.random() < 0.5
    names = [str(i) for i in range(len(sizes))] if positional else [f"{'abcdefgh'[i]}{i}" for i in range(len(sizes))]
    layout: Any = dict(zip(names, sizes, strict=True))
    if positional:
        layout = draw.choice((sizes, "x".join(map(str, sizes)), "-".join(map(str, sizes))))
        layout = sizes[0] if len(sizes) == 1 and draw.random() < 0.5 else layout
    drawer = _Drawer(
        draw,
        positional,
        {name: place if positional else name for place, name in enumerate(names)},
        dict(zip(names, sizes, strict=True)),
        frozen=frozen,
    )
    wanted = gates if gates is not None else draw.randint(1, 40 if draw.random() < 0.17 else 12)
    for _ in range(100 * wanted):
        if len(drawer.gates) < wanted:
            drawer.add()
    if not drawer.gates:
        drawer.gates.append({"axes": [names[0]] if not positional else [0]})
    file = file_of(layout, drawer.gates, name=f"random-{seed}")
    if draw.random() < 0.4:
        order = list(drawer.present)
        draw.shuffle(order)
        file["output"] = [drawer.ref(axis) for axis in order]
        if not order:
            del file["output"]
    product, final = math.prod(sizes), math.prod(drawer.present.values())
    if draw.random() < 0.3:
        file["in_features"] = max(1, product + draw.randint(-product // 2, product // 2))
    if draw.random() < 0.3:
        file["out_features"] = max(1, final + draw.randint(-final // 2, final // 2))
    file["plan"] = {"tokens": draw.choice(TOKENS), "optimizer": draw.choice(OPTIMIZERS)}
    return file


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
    """Draw every parameter from a normal distribution of deviation 1/sqrt(columns), angles of 1; return the module.

    Default gates shrink the output by 3^-0.5 each, so a deep circuit would compare zeros with zeros.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = gate_kinds(module)
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(drawn * _deviation(kinds[name.split(".")[1]], parameter.shape[-1]))
    return module


def _deviation(kind: str, length: int) -> float:
    """Return the standard deviation that numbers of a kind are drawn with; `length` is that of the last dimension."""
    if kind in ("diagonal", "ry", "pauli"):
        return 1.0
    if kind == "orthogonal":
        # A square matrix of side n stores about n^2 / 2 numbers: angles come to some pi at most.
        return 1 / math.sqrt(math.sqrt(max(length, 1)))
    return 1 / math.sqrt(length)


def gate_kinds(module: torch.nn.Module) -> dict[str, str]:
    """Return the kind of every gate that a module's circuit text lists, shares left out."""
    import json

    listed = json.loads(str(module.circuit))["gates"]
    return {gate["name"]: gate["kind"] for gate in listed if "kind" in gate}


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the distance over the norm of what is expected; absolute where that is zero."""
    assert actual.shape == expected.shape
    difference = float((actual.detach().double() - expected.detach().double()).norm())
    norm = float(expected.detach().double().norm())
    return difference / norm if norm > 0 else difference
