"""The generator of random circuits: it draws all that the file format has."""

from __future__ import annotations

from collections import Counter

import pytest
from drawn_kinds import KINDS
from plain_patterns import RULES, written_out
from random_circuits import kinds_of, random_file

from quanta_compiler import kinds
from quanta_compiler.spec.patterns import PATTERNS

FILES = [random_file(seed) for seed in range(160)]


def test_every_kind_has_its_row() -> None:
    assert set(KINDS) == set(kinds.KINDS)
    assert {name for name, kind in KINDS.items() if kind.in_patterns} == {
        name for name, kind in kinds.KINDS.items() if kind.in_patterns
    }
    assert {*RULES, "two_design"} == set(PATTERNS)


def test_every_kind_and_every_key_is_drawn() -> None:
    gates = [gate for file in FILES for gate in written_out(file)["gates"]]
    keys = Counter((gate.get("kind", "dense"), key) for gate in gates if "share" not in gate for key in gate)
    for name, kind in KINDS.items():
        wanted = ["axes", *["per", "init", "frozen"] * bool(kind.inits), *["to"] * bool(kind.resized)]
        assert all(keys[name, key] > 2 for key in wanted), name
    for key in ("rank", "map", "layers", "rank_parameters", "pairs", "value"):
        assert any(count > 2 for (_, drawn), count in keys.items() if drawn == key), key
    patterns = Counter(
        item if isinstance(item, str) else item.get("pattern")
        for file in FILES
        for item in file["gates"]
        if not isinstance(item, list)
    )
    assert all(patterns[rule] > 2 for rule in (*RULES, "two_design"))
    assert {"share", "transpose"} <= {key for gate in gates for key in gate}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_can_be_drawn_alone(kind: str) -> None:
    """Where it finds no place there is one dense gate."""
    drawn = [kinds_of(random_file(seed, kinds=[kind])) for seed in range(12)]
    assert {kind} in drawn
    assert all(kinds in ({kind}, {"dense"}) for kinds in drawn)
