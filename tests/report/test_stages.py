"""`quanta expand --stage`: what the compiler holds of rotations, and of an operator that is built slice by slice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drawn_circuits import NAMED
from random_circuits import file_of

from quanta_compiler.report.stages import STAGES
from quanta_compiler.spec import load_spec

SLICED = load_spec(file_of("8x8x8", ["all_pairs"]))
ADDED_IN_SLICES = load_spec(file_of(512, [{"axes": [0], "kind": "lowrank", "rank": 4}]))


@pytest.mark.parametrize("stage", ["plan", "program"])
def test_the_loop_is_shown(stage: str, golden: Callable[[str, str], None]) -> None:
    golden(f"stages/sliced-{stage}.txt", STAGES[stage](SLICED))


def test_what_is_added_slice_by_slice_is_shown_too(golden: Callable[[str, str], None]) -> None:
    golden("stages/added-program.txt", STAGES["program"](ADDED_IN_SLICES))


@pytest.mark.parametrize("stage", ["circuit", "table"])
def test_rotations_are_shown_with_their_options(stage: str, golden: Callable[[str, str], None]) -> None:
    spec = load_spec({"version": 1, "name": "rotations", **NAMED["rotations"]})
    golden(f"stages/rotations-{stage}.txt", STAGES[stage](spec))
