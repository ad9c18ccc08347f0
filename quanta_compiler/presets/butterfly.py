"""`butterfly`: sparse factors of 2 x 2 blocks."""

from dataclasses import dataclass

from quanta_compiler.presets.family import Expansion, Family


@dataclass(frozen=True, slots=True)
class Butterfly(Family):
    """Butterfly (Dao et al. 2019), without a permutation."""

    name = "butterfly"
    meaning = "Butterfly: log2(n) sparse factors of 2 x 2 blocks"
    operator = "T = B_w ... B_4 B_2"
    parameters = "2 w log2(w), w the power of two from max(n, m) on"
    widths = "power of two"

    def circuit(self, in_features: int, out_features: int) -> Expansion:
        """Return T = B_n ... B_4 B_2 for the next power of two.

        Factor B_(2s) mixes numbers s apart by 2 x 2 blocks, a block of its own for every pair: over a layout of 2s
        that is a gate on one axis, the last axis first.
        """
        axes = max(1, (max(in_features, out_features) - 1).bit_length())
        gates = [{"axes": [axis], "per": "rest"} for axis in reversed(range(axes))]
        return Expansion({"layout": [2] * axes, "init": "orthogonal", "gates": gates}, chosen_width=1 << axes)
