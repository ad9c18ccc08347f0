"""PEFT methods on a frozen layer: ours, and those nearest in kind."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quanta_compiler.bench.contestants import Contestant, Cost, LeftOutError, Setting
from quanta_compiler.bench.options import BARE, FORWARD, TRAINING
from quanta_compiler.spec import to_dict

_C3A_BLOCK = 128


@dataclass(frozen=True, slots=True)
class _Method:
    """A PEFT method: its configuration for a setting, from the module `peft`."""

    title: str
    config: Callable[[Any, Setting], Any]
    weights: int = 0
    """About how many matrices of the weight's size it makes beside the weight."""


def _ours(setting: Setting, residual: str) -> Any:
    from quanta_compiler.peft import QuantaConfig

    return QuantaConfig(circuit=to_dict(setting.compiled.spec), residual=residual, target_modules=["proj"])


def _c3a(peft: Any, setting: Setting) -> Any:
    if any(size % _C3A_BLOCK for size in setting.features):
        raise LeftOutError(f"its blocks of {_C3A_BLOCK} do not divide the layer")
    return peft.C3AConfig(block_size=_C3A_BLOCK, target_modules=["proj"])


_METHODS = {
    "quanta-folded": _Method("ours, S folded into the weight", lambda _, setting: _ours(setting, "folded"), 2),
    "quanta-frozen-copy": _Method("ours, S applied as well", lambda _, setting: _ours(setting, "frozen_copy")),
    "peft-lora-8": _Method("PEFT's LoRA, r = 8", lambda peft, _: peft.LoraConfig(r=8, target_modules=["proj"])),
    "peft-lora-64": _Method("PEFT's LoRA, r = 64", lambda peft, _: peft.LoraConfig(r=64, target_modules=["proj"])),
    "peft-lokr": _Method("PEFT's LoKr, r = 8", lambda peft, _: peft.LoKrConfig(r=8, target_modules=["proj"]), 4),
    "peft-boft": _Method(
        "PEFT's BOFT, blocks of 4, one factor",
        lambda peft, _: peft.BOFTConfig(boft_block_size=4, target_modules=["proj"]),
        weights=6,
    ),
    "peft-oft": _Method(
        "PEFT's OFT, blocks of 32",
        lambda peft, _: peft.OFTConfig(oft_block_size=32, target_modules=["proj"]),
        weights=4,
    ),
    "peft-c3a": _Method("PEFT's C3A, blocks of 128", _c3a, 4),
}


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
    return torch.randn(outputs, inputs, generator=generator).mul_(0.02).to(setting.device, setting.dtype)


def adapted_layer(name: str, setting: Setting, weight: torch.Tensor) -> Contestant:
    """Return one of `options.ADAPTERS` on a layer of this weight, or for `bare` that layer alone.

    Raises:
        LeftOutError: this method cannot adapt such a layer.

    """
    if name == BARE:
        return _contestant(name, "the frozen layer alone", Layer(weight), setting)
    import peft

    method = _METHODS[name]
    try:
        config = method.config(peft, setting)
    except AttributeError:
        raise LeftOutError(f"peft {peft.__version__} does not have it") from None
    # PEFT adapts the layer in place, and with a seed of torch's own.
    with torch.random.fork_rng([setting.device] if setting.device.type == "cuda" else []), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            model: Any = peft.get_peft_model(Layer(weight), config)
        except (ValueError, RuntimeError, NotImplementedError, ImportError, OSError) as error:
            raise LeftOutError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    made = float(method.weights * weight.nbytes)
    if name.startswith("quanta"):
        report = setting.compiled.report.apply
        made += 2 * setting.tokens * (report.peak_bytes_per_token + report.saved_bytes_per_token)
    return _contestant(name, method.title, model, setting, made)


def _contestant(name: str, title: str, module: nn.Module, setting: Setting, made: float = 0.0) -> Contestant:
    """Return a layer as a contestant; `made` are the bytes that its method takes beside the batch."""
    inputs, outputs = setting.features
    batch = setting.dtype.itemsize * setting.tokens * (inputs + outputs)
    flops = 2.0 * setting.tokens * inputs * outputs
    return Contestant(
        name=name,
        title=title,
        forward=module,
        parameters=tuple(parameter for parameter in module.parameters() if parameter.requires_grad),
        own=(*module.parameters(), *module.buffers()),
        costs={FORWARD: Cost(flops, batch + made), TRAINING: Cost(2 * flops, 2 * (batch + made))},
    )
