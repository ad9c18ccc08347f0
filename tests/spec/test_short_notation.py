"""Presets in short notation, as the command line and comparisons take them, and what is said of wrong ones."""

from __future__ import annotations

import re
from typing import Any

import pytest

from quanta_compiler import load_spec
from quanta_compiler.spec.short_notation import preset_document

SHORT: dict[str, dict[str, Any]] = {
    "lora:8": {"name": "lora-8", "preset": "lora", "rank": 8},
    "lora": {"name": "lora", "preset": "lora", "rank": 8},
    "krona:64-64": {"name": "krona-64-64", "preset": "krona", "layout": "64-64"},
    "quanta:16x8x8x4": {"name": "quanta-16x8x8x4", "preset": "quanta", "layout": "16x8x8x4"},
    "quanta:auto=3": {"name": "quanta-auto-3", "preset": "quanta", "layout": {"auto": 3}},
    "tt:4": {"name": "tt-4", "preset": "tt", "layout": {"auto": 4}, "rank": 4},
    "tt:rank=4,layout=16-16-16": {
        "name": "tt-rank-4-layout-16-16-16", "preset": "tt", "layout": "16-16-16", "rank": 4,
    },
    "monarch:8": {"name": "monarch-8", "preset": "monarch", "blocks": 8, "block_rank": 4},
    "butterfly": {"name": "butterfly", "preset": "butterfly"},
    "quantum_peft:4": {"name": "quantum-peft-4", "preset": "quantum_peft", "rank": 4, "layers": 1},
    "quantum_peft_full:2": {"name": "quantum-peft-full-2", "preset": "quantum_peft_full", "layers": 2},
    "lotr:4": {"name": "lotr-4", "preset": "lotr", "rank": 4},
    "vera": {"name": "vera", "preset": "vera", "rank": 256},
}  # fmt: skip


@pytest.mark.parametrize("text", SHORT)
def test_short_notation(text: str) -> None:
    document = preset_document(text)
    assert document == {"version": 1, **SHORT[text]}
    load_spec(document, in_features=4096, out_features=4096)


WRONG_SHORT: dict[str, str] = {
    "lra:8": "unknown preset 'lra': did you mean 'lora'? there is quanta, lora, krona, tt, loretta, monarch, "
    "btt, butterfly, quantum_peft, quantum_peft_full, oft, boft, gsoft, lotr, vera",
    "xyz": "unknown preset 'xyz': there is quanta, lora, krona, tt, loretta, monarch, btt, butterfly, "
    "quantum_peft, quantum_peft_full, oft, boft, gsoft, lotr, vera",
    "": "unknown preset '': there is quanta, lora, krona, tt, loretta, monarch, btt, butterfly, "
    "quantum_peft, quantum_peft_full, oft, boft, gsoft, lotr, vera",
    "lora:0": "'lora:0': `rank` must be at least 1, got 0",
    "lora:": "'lora:': `rank` must be an integer, got the text ''",
    "lora:99999999999999999999": "'lora:99999999999999999999': `rank` must be an integer, got the text "
    "'99999999999999999999'",
    "krona:64x": "'krona:64x': '64x' is not a layout (write sizes with x or - between them, such as `16x8x8x4`)",
    "krona:auto=x": "'krona:auto=x': `auto` (the number of axes) must be an integer, got the text 'x'",
    "butterfly:3": "preset 'butterfly' has no options, got '3'",
    "tt:rnk=3": "preset 'tt' has no option 'rnk': its options are layout, rank",
    "quantum_peft_full:rank=8": "preset 'quantum_peft_full' has no option 'rank': its options are layers",
    "lora:auto=3": "preset 'lora' has no option 'auto': its options are rank",
    "tt:rank=2,rank=3": "`rank` is given twice in 'tt:rank=2,rank=3'",
}


@pytest.mark.parametrize("text", WRONG_SHORT)
def test_wrong_short_notation(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(WRONG_SHORT[text]) + r"\Z"):
        preset_document(text)
