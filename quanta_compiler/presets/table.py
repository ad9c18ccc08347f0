"""The table of families."""

from quanta_compiler.kinds.options import Integer
from quanta_compiler.presets.btt import BlockTensorTrain
from quanta_compiler.presets.butterfly import Butterfly
from quanta_compiler.presets.family import Family
from quanta_compiler.presets.krona import Krona
from quanta_compiler.presets.lora import Lora
from quanta_compiler.presets.loretta import Loretta
from quanta_compiler.presets.lotr import Lotr
from quanta_compiler.presets.monarch import Monarch
from quanta_compiler.presets.oft import Boft, Gsoft, Oft
from quanta_compiler.presets.quanta import Quanta
from quanta_compiler.presets.quantum_peft import QuantumPeft
from quanta_compiler.presets.quantum_peft_full import QuantumPeftFull
from quanta_compiler.presets.tt import TensorTrain
from quanta_compiler.presets.vera import Vera

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
        Oft,
        Boft,
        Gsoft,
        Lotr,
        Vera,
    )
}
"""By name, in the order of the documentation."""


def flags() -> dict[str, str]:
    """Return the options that are numbers, each with the families that take it and what it is to them."""
    takers: dict[str, dict[str, list[str]]] = {}
    for name, family in PRESETS.items():
        for option, key in family.options().items():
            if isinstance(key.type, Integer):
                takers.setdefault(option, {}).setdefault(key.meaning, []).append(name)
    return {
        option: " ".join(f"Of {_listed(names)}: {text[0].lower()}{text[1:]}" for text, names in meanings.items())
        for option, meanings in takers.items()
    }


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0]
