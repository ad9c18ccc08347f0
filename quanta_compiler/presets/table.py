"""The table of families."""

from __future__ import annotations

from quanta_compiler.presets.btt import BlockTensorTrain
from quanta_compiler.presets.butterfly import Butterfly
from quanta_compiler.presets.family import Family
from quanta_compiler.presets.krona import Krona
from quanta_compiler.presets.lora import Lora
from quanta_compiler.presets.loretta import Loretta
from quanta_compiler.presets.monarch import Monarch
from quanta_compiler.presets.quanta import Quanta
from quanta_compiler.presets.quantum_peft import QuantumPeft
from quanta_compiler.presets.quantum_peft_full import QuantumPeftFull
from quanta_compiler.presets.tt import TensorTrain

PRESETS: dict[str, type[Family]] = {
    family.name: family
    for family in (
        Quanta,
        Lora,
        Krona,
        TensorTrain,
        Loretta,
        Monarch,
        BlockTensorTrain,
        Butterfly,
        QuantumPeft,
        QuantumPeftFull,
    )
}
"""By name, in the order of the documentation."""
