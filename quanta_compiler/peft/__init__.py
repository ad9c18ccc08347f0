"""Circuits as a PEFT method: importing this package registers `QUANTA_CIRCUIT` with PEFT.

    from peft import get_peft_model
    from quanta_compiler.peft import QuantaConfig

    model = get_peft_model(model, QuantaConfig(circuit="circuit.yaml", target_modules=["q_proj", "v_proj"]))

PEFT has no entry points for methods of other packages: a program that only loads a saved adapter
(`PeftModel.from_pretrained`) must import this package as well, before it does.
"""

from quanta_compiler.system.extras import PEFT, require

require("quanta_compiler.peft", *PEFT)

from peft.utils import register_peft_method

from quanta_compiler.peft.config import QuantaConfig
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.peft.experts import QuantaCircuitExperts
from quanta_compiler.peft.layer import QuantaCircuitLayer
from quanta_compiler.peft.linear import QuantaCircuitLinear
from quanta_compiler.peft.model import QuantaCircuitModel
from quanta_compiler.peft.registration import METHOD, peft_type
from quanta_compiler.peft.saved import saved_bytes

__all__ = [
    "AdapterError",
    "QuantaCircuitExperts",
    "QuantaCircuitLayer",
    "QuantaCircuitLinear",
    "QuantaCircuitModel",
    "QuantaConfig",
    "saved_bytes",
]

peft_type()
register_peft_method(name=METHOD, config_cls=QuantaConfig, model_cls=QuantaCircuitModel)
