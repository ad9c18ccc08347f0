"""The configuration of a circuit adapter, as `adapter_config.json` holds it."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

from peft.config import PeftConfig

from quanta_compiler import __version__
from quanta_compiler.models import targets
from quanta_compiler.peft.card import write_card
from quanta_compiler.peft.errors import AdapterError
from quanta_compiler.peft.keywords import refusing_others
from quanta_compiler.peft.registration import peft_type
from quanta_compiler.peft.resolved import FORMAT, auto_rule, checked_entries, checked_format
from quanta_compiler.peft.rounding import MOST_BITS, Rounding
from quanta_compiler.peft.saved import check_files
from quanta_compiler.presets import DEFAULT
from quanta_compiler.presets.table import PRESETS
from quanta_compiler.runtime.backends import check_backend

RESIDUALS = ("auto", "frozen_copy", "folded", "identity", "none")
PLACEMENTS = ("parallel", "input", "output")
_BOTH = (
    "`circuit` and `preset` are both given, and only one can be taken\n"
    "hint: leave one out (None); in a mapping a circuit may be a preset's file: circuit={'q_proj': {'version': 1, "
    f"'name': 'a', 'preset': {DEFAULT!r}}}, ...}}"
)


@refusing_others
@dataclass
class QuantaConfig(PeftConfig):
    """The configuration of circuit adapters.

    Args:
        circuit: a circuit, or several: the path of a circuit file, a dict of the same form (it has the key `version`),
            or a mapping from target to either. Targets are matched as PEFT matches those of `rank_pattern`: a regular
            expression for the end of the module's name; of several that match, the longest counts. The circuit itself
            is stored here and saved with the adapter, never its path. A layout `{auto: N}` without `in_features` is
            made for the larger of each target's `in_features` and `out_features`, a preset for both; any other layout
            is used as it is written, the input padded with zeros or truncated, and so the output.
        preset: the family taken in place of a circuit, by name or with its options: `lora:8`, `krona`,
            `quantum_peft:rank=4,layers=2`, `tt:rank=4,layout=16-16-16`. Without either it is `quanta`: `{auto: 4}` with
            `all_pairs`. The options are a part of this text, no arguments of their own; or `circuit` is a dict of the
            preset's file: `{"version": 1, "name": "a", "preset": "quantum_peft", "rank": 4}`. Beside `circuit` it is
            refused; `dataclasses.replace(config, preset=...)` takes the new preset.
        residual: what the update W' - W of a layer is. `frozen_copy`: T - S, S being the frozen initial copy of the
            circuit T; both are applied, and the adapted model begins as the base model bit for bit. `folded`: the same
            with W - S kept beside W, one more weight matrix in memory and one circuit less to apply; exact up to the
            rounding of the weight's dtype. `identity`: T - 1, for square circuits that begin as the identity; one
            circuit, and nothing kept beside it. `none`: the update is T. `auto`: `none` where T is zero at the start (a
            gate with `init: zeros`), `identity` where T begins as the identity, else `frozen_copy`.
        placement: where the circuit sits. `parallel`: beside the layer, y = W x + update. `input`: before it,
            y = W (x + scale (T x - x)). `output`: behind it, y = W x + scale (T W x - W x), the bias added after. The
            last two are for circuits that begin as the identity, have one circuit of the layer's `in_features` or
            `out_features`, and are merged as a product. OFT and BOFT sit before the layer.
        dora: train a magnitude for every output feature beside the circuits: the rows of W + update are scaled to it,
            y = magnitude / norm(W + update) (W x + update) + b, the norms constant in backward. It begins as the norms,
            so that the start is exact; every training step makes the update's matrix for them. For the parallel
            placement.
        scale: multiplies the update.
        bits: 1 to 8: what trains is rounded to that many bits in every forward pass, the gradient goes straight
            through, and the saved adapter holds packed codes. None: nothing is rounded.
        group_size: how many numbers have a scale and a zero together, where `bits` is given.
        dropout: the probability that a number of the adapter's input is dropped; one mask for T and S. Refused with
            `folded`, where S has no input of its own.
        init_weights: True: the adapter begins as the circuit's file says; with the default `residual` as the identity.
            False: the trained circuit is drawn apart from S, by torch's global generator, so that the adapter begins
            as some update (for tests).
        init_seed: the seed of the circuits' parameters. Each layer draws from a generator of its own, seeded by this
            and its name; torch's global generator is neither read nor moved.
        target_modules: names of the modules to adapt, as a list (matched at the end), a regular expression, or
            `all-linear`. By default the keys of `circuit` where it is a mapping, else what PEFT's LoRA takes.
        exclude_modules: names of modules to leave alone, as a list or a regular expression.
        layers_to_transform: indices of the layers to adapt; needs a list as `target_modules`.
        layers_pattern: the name of the module list that `layers_to_transform` counts.
        modules_to_save: other modules to train and to save with the adapter, a classifier, say.
        backend: how the circuits are computed: `torch` by the emitted forward pass, `fused` by the project's kernel on
            the CPU, `auto` by what is expected to be faster. The numbers differ by rounding alone.
        recompute: keep only the input for backward on the `torch` backend too, and compute the rest again.
        target_parameters: tensors of experts to adapt, `[experts, rows, columns]`, as a list of names, matched at the
            end: one circuit per expert. Those that `target_modules` means are added here.
        circuit_hash: the SHA-256 of `circuit`, filled in here. A saved config whose circuit was changed is refused.
        resolved: filled in as layers are adapted: for each shape that was met, and each key of a mapping, the circuit
            with its layout and gates written out, and its residual. Layers of such a shape get that circuit.
        format: the format of the saved adapter, filled in here. A newer one than this version knows is refused.
        package_version: the version of quanta-compiler that the configuration was made with, filled in here.

    Raises:
        SpecError: a circuit is wrong; every problem is listed with its place.
        TypeError: there is no such argument; those of PEFT's LoRA, OFT, BOFT and VeRA are told with what stands for
            them here.
        AdapterError: the circuits were changed since they were saved, or saved by a newer version.
        ValueError: another field is wrong.

    """

    circuit: Any = None
    preset: str | None = None
    residual: str = "auto"
    placement: str = "parallel"
    dora: bool = False
    scale: float = 1.0
    bits: int | None = None
    group_size: int = 128
    dropout: float = 0.0
    init_weights: bool = True
    init_seed: int = 0
    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    backend: str = "auto"
    recompute: bool = False
    target_parameters: list[str] | None = None
    circuit_hash: str | None = None
    resolved: Any = None
    format: int | None = None
    package_version: str | None = None

    def __post_init__(self) -> None:
        # Every saved file has the first, and `dataclasses.replace` passes on all of them.
        is_saved = any(value is not None for value in (self.peft_version, self.circuit_hash, self.format))
        super().__post_init__()
        self.peft_type = peft_type()
        self.was_saved = is_saved
        self.format = checked_format(self.format, is_saved=is_saved)
        self._check_values()
        self._choose_circuit(is_saved=is_saved)
        self.package_version = self.package_version or __version__
        self._choose_targets()
        if not is_saved and self.placement == "parallel":
            self._warn_of_placement()
        if self.bits is None and self.group_size != type(self).group_size:
            warnings.warn(
                f"`group_size={self.group_size}` rounds nothing without `bits`\n"
                f"hint: QuantaConfig(bits=4, group_size={self.group_size}, ...), or leave `group_size` out",
                stacklevel=4,
            )

    def _choose_circuit(self, *, is_saved: bool) -> None:
        """Take the circuit that is given, or that of the preset; refuse what is not what was saved."""
        if self.circuit is not None:
            if self.preset is not None and not is_saved:
                raise ValueError(_BOTH)
            self.circuit = targets.checked_circuit(self.circuit, auto_rule(self.format))
            self._settle_preset()
        if self.circuit is None:
            self.preset = DEFAULT if self.preset is None else self.preset
            self.circuit, self.circuit_hash = targets.circuit_of_preset(self.preset), None
        digest = targets.circuit_digest(self.circuit)
        if self.circuit_hash not in (None, digest):
            raise AdapterError(
                f"`circuit` is not what was saved: its SHA-256 is {digest[:16]}…, "
                f"`circuit_hash` says {str(self.circuit_hash)[:16]}…\n"
                "hint: restore adapter_config.json, or set `circuit_hash` to null (None) if the change is meant"
            )
        self.resolved = checked_entries(self.resolved, digest, is_meant=self.circuit_hash is None)
        self.circuit_hash = digest

    def _settle_preset(self) -> None:
        """Where both are there: `circuit` was made from the preset, or from the one that stood in its place before."""
        if self.preset is None or targets.is_of_preset(self.circuit, self.preset):
            return
        if self.format == 1 and self.package_version is None:
            # The first format wrote a preset, most often the default, beside every circuit.
            self.preset = None
        elif self.circuit_hash == targets.circuit_digest(self.circuit):
            # dataclasses.replace(config, preset=...): the preset is new, the circuit that of the old configuration.
            self.circuit, self.format = None, FORMAT
        elif self.circuit_hash is None:
            raise ValueError(_BOTH)

    def _choose_targets(self) -> None:
        """Take the keys of `circuit` as targets where none are given; names in any order are the same."""
        from_circuit = self.target_modules is None and targets.is_mapping(self.circuit)
        if from_circuit:
            self.target_modules = targets.plain_targets(self.circuit)
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                setattr(self, name, set(value))
        if self.target_parameters is not None:
            self.target_parameters = sorted(set(self.target_parameters))
        for name in ("layers_to_transform", "layers_pattern"):
            if not isinstance(self.target_modules, str) or getattr(self, name) is None:
                continue
            if from_circuit:
                patterns = ", ".join(repr(target) for target in self.circuit if not targets.is_name(target))
                raise ValueError(
                    f"`{name}` needs the targets as a list of names, and of the keys of `circuit` some are regular "
                    f"expressions: {patterns}\nhint: give the names, target_modules=['q_proj', ...], or leave out "
                    rf"`{name}` and write the indices into the keys, such as 'layers\.(?:0|1)\..*q_proj'"
                )
            raise ValueError(f"`{name}` cannot be used when `target_modules` is a str.")

    def _warn_of_placement(self) -> None:
        """Warn of families that sit before the layer, where nothing says where the circuit is to sit."""
        documents = self.circuit.values() if targets.is_mapping(self.circuit) else [self.circuit]
        names = {document["preset"] for document in documents if "preset" in document and isinstance(document, dict)}
        for name in sorted(name for name in names if PRESETS[name].placement == "input"):
            warnings.warn(
                f"preset {name!r} is beside the layer here, y = W x + (T x - x), and {name.upper()} turns what "
                "the layer reads, y = W T x\nhint: QuantaConfig(placement='input', ...)",
                stacklevel=4,
            )

    @property
    def rounding(self) -> Rounding | None:
        """Return how what trains is rounded; None where it is not."""
        return None if self.bits is None else Rounding(self.bits, self.group_size)

    def check_unchanged(self) -> None:
        """Raise AdapterError where a circuit or preset was assigned to past `__post_init__`, which nothing reads."""
        self._check_values()
        if self.circuit_hash != targets.circuit_digest(self.circuit):
            changed = "circuit"
        elif self.preset is not None and not targets.is_of_preset(self.circuit, self.preset):
            changed = "preset"
        else:
            return
        raise AdapterError(
            f"`{changed}` was assigned to after the configuration was made\n"
            f"hint: pass it: QuantaConfig({changed}=...), which reads and checks it"
        )

    def _check_values(self) -> None:
        if self.residual not in RESIDUALS:
            raise ValueError(f"`residual` is one of {', '.join(RESIDUALS)}, got {self.residual!r}")
        if self.placement not in PLACEMENTS:
            raise ValueError(f"`placement` is one of {', '.join(PLACEMENTS)}, got {self.placement!r}")
        if self.placement != "parallel" and self.residual not in ("auto", "identity"):
            raise ValueError(
                f"`placement={self.placement!r}` turns what the layer reads or gives, which has no residual "
                f"{self.residual!r}\nhint: leave `residual` out"
            )
        if not isinstance(self.dora, bool):
            raise ValueError(f"`dora` is True or False, got {self.dora!r}")
        if self.dora and self.placement != "parallel":
            raise ValueError(
                f"`dora` is a magnitude over W + update, and `placement={self.placement!r}` adds nothing to W\n"
                "hint: leave one of the two out"
            )
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` is a number from 0 up to but not including 1, got {self.dropout!r}")
        if self.dropout and self.residual == "folded":
            hint = "take `frozen_copy`, where one mask feeds T and S"
            raise ValueError(f"`dropout` cannot be used with `residual='folded'`: S has no input of its own; {hint}")
        if not _is_number(self.scale) or not abs(self.scale) < float("inf"):
            raise ValueError(f"`scale` is a finite number, got {self.scale!r}")
        if self.bits is not None and not (_is_integer(self.bits) and 1 <= self.bits <= MOST_BITS):
            raise ValueError(f"`bits` is an integer from 1 to {MOST_BITS}, or None to round nothing, got {self.bits!r}")
        if not (_is_integer(self.group_size) and self.group_size >= 1):
            raise ValueError(f"`group_size` is an integer from 1 on, such as 128, got {self.group_size!r}")
        check_backend(self.backend)
        if not isinstance(self.recompute, bool):
            raise ValueError(f"`recompute` is True or False, got {self.recompute!r}")
        if not _is_integer(self.init_seed):
            raise ValueError(f"`init_seed` is an integer, got {self.init_seed!r}")
        names = self.target_parameters or ()
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                "`target_parameters` is a list of names, such as ['experts.gate_up_proj', 'experts.down_proj'], got "
                f"{self.target_parameters!r}"
            )

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write adapter_config.json, and the circuits into the model card."""
        super().save_pretrained(save_directory, **kwargs)
        write_card(save_directory, self)

    @classmethod
    def from_json_file(cls, path_json_file: str, **kwargs: Any) -> dict[str, Any]:
        """Read adapter_config.json; the circuits are in it, and no path that it names is opened."""
        try:
            data: dict[str, Any] = super().from_json_file(path_json_file, **kwargs)
        except ValueError as error:
            raise AdapterError(f"{path_json_file}: it is no JSON: {error}\nhint: restore the saved file") from None
        if data.get("peft_type") == peft_type():
            # PEFT drops fields that it does not know, with a warning; a newer format is refused first.
            data["format"] = checked_format(data.get("format"), is_saved=True)
        circuit: Any = data.get("circuit")
        documents = list(circuit.values()) if targets.is_mapping(circuit) else [circuit]
        if any(isinstance(document, str) and not document.startswith("{") for document in documents):
            raise AdapterError(
                f"{path_json_file}: `circuit` names a file, a saved adapter holds the circuit itself\n"
                "hint: make the configuration with QuantaConfig(circuit=path), and save it"
            )
        return data

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> QuantaConfig:
        """Load a saved configuration; refuse a folder whose weights are damaged before any model is touched."""
        config: QuantaConfig = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        check_files(os.path.join(pretrained_model_name_or_path, subfolder or ""))
        return config


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
