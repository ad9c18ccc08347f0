"""From how many gates on a circuit is connected, against the zeros of its operator and of its leading gates' ones."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from connectivity import connectivity
from drawn_circuits import circuit_of, pair
from drawn_kinds import KINDS, STORED
from numpy.typing import NDArray
from plain_oracle import plain_operator
from plain_patterns import written_out
from random_circuits import file_of, kinds_of, random_file

from quanta_compiler import load_spec
from quanta_compiler.ir import reach
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit
from quanta_compiler.ir.graph import contraction_graph
from quanta_compiler.ir.parameters import all_stored
from quanta_compiler.ir.reach import fewest_reached, gates_to_full
from quanta_compiler.spec.short_notation import preset_document

WIDTH = 90
SMALLEST = 1e-14


def slicing_file(seed: int) -> dict[str, Any]:
    """Return a circuit file full of slices of any radixes, and of constants with zeros, on few axes."""
    draw = random.Random(seed)
    present = {name: draw.choice((1, 2, 3, 4, 6)) for name in "abc"[: draw.randint(1, 3)]}
    layout, gates = dict(present), list[dict[str, Any]]()
    for number in range(draw.randint(1, 9)):
        axes = draw.sample(list(present), min(len(present), draw.choice((1, 1, 2, 3))))
        others = [name for name in present if name not in axes]
        columns = math.prod(present[name] for name in axes)
        kind = draw.choice(("slice", "slice", "slice", "dense", "dense", "diagonal", "constant"))
        gate = pair(*axes, kind=kind)
        if others and kind in ("dense", "diagonal") and draw.random() < 0.4:
            gate["per"] = draw.sample(others, 1)
        if kind in ("slice", "constant") and draw.random() < 0.8:
            to = _sizes(draw, columns, number)
            if math.prod([*to.values(), *(present[name] for name in others)]) <= WIDTH:
                gate["to"] = to
                present = {name: present[name] for name in others} | to
        if kind == "constant":
            rows = math.prod(gate.get("to", {"": columns}).values())
            gate["value"] = [[draw.choice((0, 1, 2)) for _ in range(columns)] for _ in range(rows)]
        gates.append(gate)
    file = file_of(layout, gates)
    draw.shuffle(order := list(present))
    file["output"] = order
    for key, sizes in (("in_features", layout), ("out_features", present)):
        if draw.random() < 0.5:
            width = math.prod(sizes.values())
            file[key] = max(1, width - draw.choice((-1, 0, 1, 2, 3, width // 2, width - 1, width - 2)))
    return file


def _sizes(draw: random.Random, columns: int, number: int) -> dict[str, int]:
    """Return one to three new axes, most often with as many indices."""
    sizes = [draw.choice((1, 2, 3, 4, 5, 6)) for _ in range(draw.randint(1, 3))]
    if draw.random() < 0.6:
        left = columns
        for place in range(len(sizes)):
            divisors = [d for d in range(1, left + 1) if left % d == 0]
            sizes[place] = draw.choice(divisors) if place + 1 < len(sizes) else left
            left //= sizes[place]
        draw.shuffle(sizes)
    return {f"n{number}{'xyz'[place]}": size for place, size in enumerate(sizes)}


def drawn(circuit: Circuit) -> dict[str, NDArray[np.float64]]:
    """Return positive numbers for every gate, angles in general position."""
    generator = np.random.default_rng(0)
    tensors: dict[str, NDArray[np.float64]] = {}
    for one in all_stored(circuit):
        tensors[f"gates.{one.key}"] = generator.uniform(0.1, 1, one.shape) / one.shape[-1]
    for gate in circuit.gates:
        name = f"gates.{gate.name}"
        if name in tensors and KINDS[gate.kind].is_computed:
            tensors[name] = generator.uniform(0.4, 1.6, tensors[name].shape)
    return tensors


def plain_count(file: dict[str, Any], circuit: Circuit) -> int | None:
    """Return from how many leading gates on no entry of the operator is zero, every gate being drawn as positive."""
    tensors = drawn(circuit)
    file = written_out(file)
    whole, since = len(file["gates"]), None
    for count in range(whole, -1, -1):
        leading = {key: value for key, value in file.items() if count == whole or key not in ("output", "out_features")}
        entries = np.abs(plain_operator({**leading, "gates": file["gates"][:count]}, tensors))
        # A zero that is computed of angles is a sum of a few rounding errors.
        if not (entries > SMALLEST * entries.max()).all():
            break
        since = count
    return since


def judged(file: dict[str, Any]) -> int | None:
    circuit = build_circuit(load_spec(file))
    count, fewest = gates_to_full(circuit), fewest_reached(circuit)
    assert count == plain_count(file, circuit)
    assert connectivity(contraction_graph(circuit)).is_full == (count is not None)
    if count is not None or circuit.in_features > circuit.in_size or circuit.out_features > circuit.out_size:
        assert fewest is None
        return count
    whole = plain_operator({key: file[key] for key in file if key != "out_features"}, drawn(circuit))
    assert fewest is not None
    assert int(np.count_nonzero(whole, axis=0).min()) <= fewest < circuit.out_size
    return count


@pytest.mark.parametrize("seed", range(150))
def test_slices_are_followed_index_by_index(seed: int) -> None:
    judged(slicing_file(seed))


def is_special(file: dict[str, Any]) -> bool:
    """Say whether rotations may be undone by their transposes, or have wires that stay: test_reach_of_rotations."""
    gates = written_out(file)["gates"]
    is_shared = any("share" in gate for gate in gates) and not kinds_of(file) <= set(STORED)
    return is_shared or any(gate.get("kind") == "pauli" and "rank_parameters" in gate for gate in gates)


@pytest.mark.parametrize("seed", [seed for seed in range(80) if not is_special(random_file(seed))][:40])
def test_circuits_of_all_kinds(seed: int) -> None:
    judged(random_file(seed))


def sliced(*axes: Any, **to: int) -> dict[str, Any]:
    return pair(*axes, kind="slice", to=to)


DENSE_4 = {"a": 2, "b": 2}
CASES: dict[str, tuple[dict[str, Any], int | None]] = {
    "inputs that are not read": (file_of("4x4", ["all_pairs"], in_features=20), None),
    "outputs that are always zero": (file_of("4x4", ["all_pairs"], out_features=17), None),
    "fewer inputs and outputs": (file_of("4x4", ["all_pairs"], in_features=13, out_features=11), 1),
    "an axis that neither side sees": (file_of("4x2", [[1], [1]], in_features=2, out_features=2), 2),
    "an axis that only outputs see": (file_of("4x2", [[1]], in_features=2), None),
    "a slice that drops inputs": (file_of(DENSE_4, [sliced("a", "b", c=3), ["c"]]), None),
    "a slice that drops what is padded": (file_of(DENSE_4, [sliced("a", "b", c=3), ["c"]], in_features=3), 2),
    "a slice after mixing": (file_of(DENSE_4, [["a", "b"], sliced("a", "b", c=3)]), 1),
    "zeros that a slice adds": (file_of(DENSE_4, [["a", "b"], sliced("a", "b", c=5)]), None),
    "zeros that are cut again": (file_of(DENSE_4, [["a", "b"], sliced("a", "b", c=5)], out_features=4), 1),
    "zeros that are mixed again": (file_of(DENSE_4, [["a", "b"], sliced("a", "b", c=5), ["c"]]), 3),
    "a part of an axis": (file_of({"a": 3, "b": 5}, [["b"], sliced("a", "b", c=5, d=3), ["c"]]), 3),
    "too small a part of an axis": (file_of({"a": 3, "b": 2}, [["b"], sliced("a", "b", c=2, d=3), ["c"]]), None),
    "a constant with zeros": (file_of(2, [[0], pair(0, kind="constant", value=[[1, 0], [1, 1]])]), 1),
    "a row of zeros": (file_of(2, [[0], pair(0, kind="constant", value=[[1, 1], [0, 0]])]), None),
    "a column of zeros": (file_of(2, [pair(0, kind="constant", value=[[1, 0], [1, 0]]), [0]]), None),
    "inputs that meet, and others dropped": (
        file_of(
            {"a": 2, "b": 3}, [pair("a", kind="constant", value=[[1, 1], [0, 0]]), sliced("a", "b", c=1)], in_features=4
        ),
        None,
    ),
    "nothing is left": (file_of(2, [pair(0, to={}, kind="dense")]), 1),
    "one number": (file_of(1, [pair(0, kind="diagonal")]), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_by_hand(name: str) -> None:
    file, count = CASES[name]
    assert gates_to_full(build_circuit(load_spec(file))) == count
    if "all_pairs" not in file["gates"]:
        assert judged(file) == count


PRESETS = {
    ("krona:64-64", 5000): None,
    ("krona:64-64", 4096): 2,
    ("krona:64-64", 4000): 2,
    ("quanta:4-4-2", 64): None,
    ("quanta", 4099): 3,
    ("monarch:blocks=3,block_rank=5", 64): 3,
    ("monarch:blocks=6,block_rank=5", 64): None,
    ("monarch:blocks=256,block_rank=255", 65536): None,
    ("monarch:blocks=255,block_rank=256", 65536): 3,
    ("monarch:blocks=1000,block_rank=4096", 65536): 3,
}


@pytest.mark.parametrize(("text", "width"), PRESETS, ids=str)
def test_presets_at_their_widths(text: str, width: int) -> None:
    circuit = build_circuit(load_spec(preset_document(text), in_features=width, out_features=width))
    assert gates_to_full(circuit) == PRESETS[text, width]


def test_many_axes_that_are_split_and_joined_need_no_joint_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_MOST_STEPS", 0)
    draw = random.Random(0)
    layout = present = {f"a{axis}": (2, 4)[axis % 3 == 0] for axis in range(12)}
    gates: list[Any] = []
    for number in range(100):
        sizes = draw.sample(list(present.values()), len(present))
        gates.append(pair(*present, kind="slice", to={f"b{number}{place}": size for place, size in enumerate(sizes)}))
        present = gates[-1]["to"]
        gates.append(draw.sample(list(present), 2))
    count = gates_to_full(circuit_of(layout, gates))
    assert count is not None
    assert count > 2


def test_what_takes_too_long_counts_as_not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = circuit_of({"a": 3, "b": 5}, [["b"], sliced("a", "b", c=5, d=3), ["c"]])
    assert gates_to_full(circuit) == 3
    monkeypatch.setattr(reach, "_MOST_STEPS", 20)
    assert gates_to_full(circuit) is None
