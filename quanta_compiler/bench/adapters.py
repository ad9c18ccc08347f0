"""PEFT methods on a frozen layer: ours, and those nearest in kind."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from quanta_compiler.bench.contestants import Contestant, Cost, LeftOutError, Setting
from quanta_compiler.bench.options import BARE, FORWARD, TRAINING
from quanta_compiler.spec import to_dict

_TITLES = {
    BARE: "the frozen layer alone",
    "quanta-folded": "ours, S folded into the weight",
    "quanta-frozen-copy": "ours, S applied as well",
    "peft-lora-8": "PEFT's LoRA, r = 8",
    "peft-lora-64": "PEFT's LoRA, r = 64",
    "peft-lokr": "PEFT's LoKr, r = 8",
    "peft-boft": "PEFT's BOFT, blocks of 4, one factor",
    "peft-c3a": "PEFT's C3A, blocks of 128",
}
_C3A_BLOCK = 128
_WEIGHTS = {"quanta-folded": 2, "peft-lokr": 4, "peft-boft": 6, "peft-c3a": 4}
"""About how many matrices of the weight's size a method makes beside the weight; others make none."""


class Layer(nn.Module):
    """One frozen projection, as PEFT looks for it by its name."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.proj = nn.Linear(inputs, outputs, bias=False, device="meta")
        self.proj.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it: `[tokens, in_features] -> [tokens, out_features]`."""
        result: torch.Tensor = self.proj(x)
        return result


def frozen_weight(setting: Setting) -> torch.Tensor:
    """Return the weight that all contestants share: `[out_features, in_features]`, of standard deviation 0.02."""
    inputs, outputs = setting.features
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(outputs, inputs, generator=generator).mul_(0.02).to(setting.dtype)


def bare_layer(setting: Setting, weight: torch.Tensor) -> Contestant:
    """Return the frozen layer alone: only the input has a gradient."""
    return _contestant(BARE, Layer(weight), setting, weight)


def adapted_layer(name: str, setting: Setting, weight: torch.Tensor) -> Contestant:
    """Return one of `options.ADAPTERS`, as its configuration makes it, on a layer of this weight.

    Raises:
        LeftOutError: this method cannot adapt such a layer.

    """
    import peft

    config = _config(name, setting)
    # PEFT adapts the layer in place, and with a seed of torch's own.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            model: Any = peft.get_peft_model(Layer(weight), config)
        except (ValueError, RuntimeError, NotImplementedError, ImportError, OSError) as error:
            raise LeftOutError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    return _contestant(name, model, setting, weight)


def _config(name: str, setting: Setting) -> Any:
    import peft

    def ours(residual: str) -> Any:
        from quanta_compiler.peft import QuantaConfig

        return QuantaConfig(circuit=to_dict(setting.compiled.spec), residual=residual, target_modules=["proj"])

    def c3a() -> Any:
        if any(size % _C3A_BLOCK for size in setting.features):
            raise LeftOutError(f"its blocks of {_C3A_BLOCK} do not divide the layer")
        return peft.C3AConfig(block_size=_C3A_BLOCK, target_modules=["proj"])

    makers: Mapping[str, Callable[[], Any]] = {
        "quanta-folded": lambda: ours("folded"),
        "quanta-frozen-copy": lambda: ours("frozen_copy"),
        "peft-lora-8": lambda: peft.LoraConfig(r=8, target_modules=["proj"]),
        "peft-lora-64": lambda: peft.LoraConfig(r=64, target_modules=["proj"]),
        "peft-lokr": lambda: peft.LoKrConfig(r=8, target_modules=["proj"]),
        "peft-boft": lambda: peft.BOFTConfig(boft_block_size=4, target_modules=["proj"]),
        "peft-c3a": c3a,
    }
    try:
        return makers[name]()
    except AttributeError:
        raise LeftOutError(f"peft {peft.__version__} does not have it") from None


def _contestant(name: str, module: nn.Module, setting: Setting, weight: torch.Tensor) -> Contestant:
    inputs, outputs = setting.features
    item = setting.dtype.itemsize
    batch = item * setting.tokens * (inputs + outputs)
    matrices = _WEIGHTS.get(name, 0) * weight.nbytes
    circuits = 0.0
    if name.startswith("quanta"):
        report = setting.compiled.report.apply
        circuits = 2 * setting.tokens * (report.peak_bytes_per_token + report.saved_bytes_per_token)
    # What a layer with an adapter computes beside the layer is a matter of its method: no limit is compared with it.
    flops = 2.0 * setting.tokens * inputs * outputs
    return Contestant(
        name=name,
        title=_TITLES[name],
        forward=module,
        parameters=tuple(parameter for parameter in module.parameters() if parameter.requires_grad),
        own=(*module.parameters(), *module.buffers()),
        costs={
            FORWARD: Cost(flops, batch + matrices + circuits),
            TRAINING: Cost(2 * flops, 2 * (batch + matrices + circuits)),
        },
    )
