"""Experts that are one tensor for all of them, `[experts, rows, columns]`, and which of them targets mean."""

import warnings
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists
from torch import nn
from torch.nn.parameter import UninitializedParameter

from quanta_compiler.diagnostics import offered
from quanta_compiler.peft.errors import Problem, raise_problems
from quanta_compiler.peft.registration import METHOD
from quanta_compiler.text.words import listed

_WRAPPED = ".base_layer"
_CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)
"""Layers of torch whose weight has three axes, none of which is of experts."""
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "gate_up_proj": (("gate_up_proj",), ("gate_proj", "up_proj"), ("w1", "w3")),
    "up_proj": (("up_proj",), ("w1",), ("w3",)),
    "down_proj": (("down_proj",), ("w2",)),
}
"""What stands for such a tensor: its own name, or all the names of the linear layers that it holds in other models."""


class ExpertTensor(NamedTuple):
    """A parameter with a matrix for every expert."""

    name: str
    """In the model as it was before adapters."""
    module: nn.Module
    """What holds it."""
    shape: tuple[int, ...]
    """`[experts, out_features, in_features]`, or with the last two exchanged."""
    is_transposed: bool
    """Whether it is stored `[experts, in_features, out_features]`."""

    @property
    def path(self) -> str:
        """Return the name of the module that holds it."""
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        """Return what the module calls it."""
        return self.name.rpartition(".")[2]

    @property
    def end(self) -> str:
        """Return the last two parts of its name, by which users know it."""
        return ".".join(self.name.split(".")[-2:])

    @property
    def features(self) -> tuple[int, int]:
        """Return `in_features` and `out_features` of an expert."""
        _, rows, columns = self.shape
        return (rows, columns) if self.is_transposed else (columns, rows)

    @property
    def is_of_experts(self) -> bool:
        """Say whether it is one of a mixture's, by the names and numbers of its module."""
        counted = any(isinstance(getattr(self.module, key, None), int) for key in ("num_experts", "num_local_experts"))
        return self.shape[0] > 1 and (counted or names_expert(self.path, self.module))

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"


def names_expert(name: str, module: nn.Module) -> bool:
    """Say whether a module is called an expert, or its class is."""
    return "expert" in f"{name} {type(module).__name__}".lower()


def expert_tensors(model: nn.Module) -> list[ExpertTensor]:
    """Return the parameters of a model with three axes, in its order; a mixture has no others."""
    found = []
    for name, module in model.named_modules():
        if f"{METHOD}_" in name or isinstance(module, _CONVOLUTIONS):
            continue
        for key, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, UninitializedParameter):
                continue
            shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
            if len(shape) == 3:
                whole = f"{name}.{key}".replace(_WRAPPED, "").lstrip(".")
                found.append(ExpertTensor(whole, module, shape, _is_transposed(module)))
    return found


def _is_transposed(module: nn.Module) -> bool:
    """Say whether a module stores the matrices of experts as `[in_features, out_features]`, as gpt-oss does."""
    known = getattr(module, "is_transposed", None)
    if isinstance(known, bool):
        return known
    # Llama 4 says nothing: there the sizes do. What goes in of the first comes out of the second.
    shapes = [tuple(getattr(getattr(module, key, None), "shape", ()))[1:] for key in ("gate_up_proj", "down_proj")]
    (rows, columns), (inner, outer) = (shape if len(shape) == 2 else (0, 0) for shape in shapes)
    return rows > 0 and (rows, columns) == (outer, 2 * inner)


def asked_tensors(model: nn.Module, config: Any) -> list[ExpertTensor]:
    """Return the tensors that `target_parameters` names, in the model's order."""
    names = set(config.target_parameters or ())
    return [tensor for tensor in expert_tensors(model) if names and _stands(config, names, tensor, tensor.name)]


def choose_experts(model: nn.Module, config: Any) -> None:
    """Add the tensors of experts that `target_modules` means to `target_parameters`, and warn of those it misses.

    Names of linear layers mean what the tensors hold of such layers, and `all-linear` all of it, as PEFT's LoRA has it:
    where each expert's matrix is stored as a linear layer's weight is. Elsewhere, as in gpt-oss, experts never were
    linear layers, and `target_parameters` names them.

    Raises:
        AdapterError: a name of `target_parameters` is no such tensor of the model; all of these are told.

    """
    tensors, asked = expert_tensors(model), set(config.target_parameters or ())
    raise_problems("experts that the model does not have:", list(_unknown(model, tensors, asked)))
    fact, ends = missed_experts(model, config)
    if fact and not asked:
        warnings.warn(
            f"`target_modules` means {fact}\nhint: QuantaConfig(target_parameters={ends}) puts circuits on them; "
            "exclude_modules=['experts'], or how the module is called, says that they are left out on purpose",
            stacklevel=2,
        )
    reached = [tensor for tensor in tensors if meant_experts(config, tensor)[1]]
    left_out = {tensor.end for tensor in tensors if tensor not in reached and _stands(config, {tensor.end}, tensor)}
    new = {tensor.name if tensor.end in left_out else tensor.end for tensor in reached}
    if new:
        config.target_parameters = sorted(asked | new)


def meant_experts(config: Any, tensor: ExpertTensor) -> tuple[bool, bool]:
    """Say whether `target_modules` means some of what a tensor of experts holds, and whether it reaches the tensor.

    It does where it means linear layers in the place of all that the tensor holds, which is stored as theirs are.
    """
    targets, excluded = config.target_modules, (tensor.path, tensor.name)
    if not tensor.is_of_experts or targets is None:
        return False, False
    if any(isinstance(_found(config, targets, name), _ExcludedModule) for name in excluded):
        return False, False
    if isinstance(targets, str) and targets.lower() == "all-linear":
        return True, not tensor.is_transposed
    ways = [
        [any(_stands(config, targets, tensor, f"{tensor.path}.{end}") for end in (name, f"0.{name}")) for name in way]
        for way in _NAMES.get(tensor.key, ((tensor.key,),))
    ]
    return any(map(any, ways)), any(map(all, ways)) and not tensor.is_transposed


def missed_experts(model: nn.Module, config: Any) -> tuple[str, list[str]]:
    """Say which tensors of experts the targets mean and do not reach, and what their names end in; nothing of none."""
    missed = [tensor for tensor in expert_tensors(model) if meant_experts(config, tensor) == (True, False)]
    if not missed:
        return "", []
    reason = "one tensor holds what several names stand for, and not all of them are given"
    if missed[0].is_transposed:
        reason = "their matrices are not stored as those of linear layers"
    fact = f"experts that get no circuit, because {reason}: {listed(list(map(str, missed)), 2)}"
    return fact, list(dict.fromkeys(tensor.end for tensor in missed))


def _stands(config: Any, targets: Any, tensor: ExpertTensor, name: str | None = None) -> bool:
    """Say whether targets match a name in the place of a tensor, and nothing excludes what holds it."""
    if isinstance(_found(config, targets, tensor.path), _ExcludedModule):
        return False
    found = _found(config, targets, name or tensor.name)
    return bool(found) and not isinstance(found, _ExcludedModule)


def _found(config: Any, targets: Any, name: str) -> Any:
    kept = ("exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern")
    asked: Any = SimpleNamespace(**{key: getattr(config, key) for key in kept})
    asked.target_modules, asked.target_parameters = targets, None
    return check_target_module_exists(asked, name)


def _unknown(model: nn.Module, tensors: Sequence[ExpertTensor], asked: set[str]) -> Iterator[Problem]:
    """Yield the names that are no tensor of experts, with what there is."""
    ends = list(dict.fromkeys(tensor.end for tensor in tensors))
    there = f"there is {listed(ends, 6)}" if ends else _NONE
    for name in sorted(asked):
        if any(_ends(tensor.name, name) for tensor in tensors):
            continue
        other = next((one for key, one in model.named_parameters() if _ends(key.replace(_WRAPPED, ""), name)), None)
        if other is None:
            yield Problem(f"`target_parameters`: the model has no {name!r}", offered(name, ends, there, mark="'"))
            continue
        text = f"`target_parameters`: {name!r} is {list(other.shape)}, and experts are [experts, rows, columns]"
        yield Problem(text, f"name linear layers in `target_modules`; of experts {there}" if ends else there)


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


_NONE = (
    "the model holds no tensor of experts: leave `target_parameters` out, and name linear layers in `target_modules`, "
    "which each expert is made of where it is a module of its own"
)
