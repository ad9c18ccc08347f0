"""`vera`: a random product that all layers have together, scaled by two diagonals a layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from quanta_compiler.presets.family import Expansion, Family, number


@dataclass(frozen=True, slots=True)
class Vera(Family):
    """VeRA (Kopiczko et al. 2024, eq. 2)."""

    rank: int = number("The rank of the random product B A.", 256)

    name = "vera"
    meaning = "VeRA: a frozen random product that all layers share, and two trained diagonals a layer"
    operator = "T = diag(b) B diag(d) A, A and B random, frozen, and those of all layers of the same widths"
    parameters = "m + r, r being `rank`"
    main = "rank"
    grows = "rank"
    theirs: ClassVar[Mapping[str, str]] = {
        "d_initial": "leave `d_initial` out: d begins at 1 in preset='vera:RANK', and `scale` multiplies the update",
        "projection_prng_key": "`projection_prng_key` is `init_seed`, with preset='vera:RANK'",
        "save_projection": "leave `save_projection` out: the projections of preset='vera:RANK' are always saved",
        "vera_dropout": "`vera_dropout` is `dropout`",
    }

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = diag(b) B diag(d) A, A: [r, n] and B: [m, r] frozen and across all layers, b zero at the start."""
        shared = {"frozen": True, "across": "all"}
        gates: list[dict[str, Any]] = [
            {"name": "A", "axes": [0], "to": [self.rank], **shared},
            {"name": "d", "axes": [0], "kind": "diagonal", "init": "identity"},
            {"name": "B", "axes": [0], "to": [out_features], **shared},
            {"name": "b", "axes": [0], "kind": "diagonal", "init": "zeros"},
        ]
        return Expansion({"layout": [in_features], "gates": gates})
