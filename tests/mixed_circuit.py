"""A circuit with something of everything."""

from __future__ import annotations

from random_circuits import file_of

MIXED = file_of(
    {"a": 4, "b": 3, "c": 2},
    [
        {"axes": ["a", "b"], "kind": "lowrank", "rank": 2, "name": "low"},
        {"axes": ["b", "c"], "name": "dense"},
        {"axes": ["c"], "kind": "diagonal", "per": ["a"], "name": "phase", "frozen": True},
        {"axes": ["a"], "kind": "constant", "value": [[1, 0.5, 0, 0], [0, 1, 0, 0]], "to": {"a": 2}, "name": "fixed"},
        {"axes": ["a", "c"], "share": "shared_later", "name": "again"},
        {"axes": ["c", "b"], "kind": "slice", "to": {"d": 5}},
        {"axes": ["a"], "kind": "lowrank", "rank": 1, "per": ["d"], "name": "factors"},
    ],
    in_features=20,
    out_features=9,
)
MIXED["gates"].insert(4, {"axes": ["c", "a"], "name": "shared_later"})
