"""The options of `quanta bench`; no torch here, so that wrong usage is refused at once."""

from dataclasses import dataclass

FORWARD, TRAINING, OPERATOR = "forward", "forward_backward", "operator"
MODES = (FORWARD, TRAINING, OPERATOR)
DTYPES = ("float32", "bfloat16", "float16", "float64")

OURS = ("fused", "torch", "torch-recomputed")
"""Our own ways to apply a circuit. What `backend="auto"` takes is always measured: others are compared with it."""
COMPILED = "torch-compiled"
"""Our module by torch.compile, which takes a minute for itself: on GPUs, elsewhere where it is asked for."""
RIVALS = ("einsum", "gate-by-gate", "opt-einsum")
"""Other ways to compute the same circuit."""
LAYERS = ("dense", "lora-8", "lora-64")
"""Other layers of the same shape."""
BARE = "bare"
ADAPTERS = (
    *("quanta-folded", "quanta-frozen-copy", "peft-lora-8", "peft-lora-64"),
    *("peft-lokr", "peft-boft", "peft-oft", "peft-c3a"),
)
"""PEFT methods on a frozen layer; `bare` is that layer alone."""
NAMES = (*OURS, COMPILED, *RIVALS, *LAYERS, *ADAPTERS)

ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Options:
    """How a circuit is measured; its batch is the one that it was planned for."""

    device: str = "cpu"
    """`cpu`, or a GPU: `cuda`, `cuda:1`."""
    dtype: str = "float32"
    rounds: int = ROUNDS
    threads: int | None = None
    """None: as many as torch takes by itself."""
    adapters: bool = False
    only: tuple[str, ...] | None = None
    """Contestants beside our own, or None for all of them."""
    modes: tuple[str, ...] = MODES
    max_bytes: int | None = None
    """None: half of the free memory."""

    def wants(self, name: str) -> bool:
        """Say whether a contestant is asked for."""
        return self.only is None or name in self.only
