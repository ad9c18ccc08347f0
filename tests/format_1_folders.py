"""The folders of tests/saved_format_1: made by the package of commit 5076028, the last that saved T and S (format 1).

    git worktree add /tmp/then 5076028 && PYTHONPATH=/tmp/then python tests/format_1_folders.py

`expected.safetensors` of each folder holds the update of every layer on three inputs, computed by that commit.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from quanta_compiler.peft import QuantaConfig

HERE = Path(__file__).parent / "saved_format_1"
WIDTHS = {"a": (768, 768), "b": (2048, 2048), "c": (11008, 16)}


def net(names: str) -> nn.Module:
    """Return linear layers whose output is that of their adapters alone."""
    layers = nn.ModuleDict({name: nn.Linear(*WIDTHS[name], bias=False) for name in names})
    for parameter in layers.parameters():
        nn.init.zeros_(parameter)
    return layers


def inputs(width: int) -> torch.Tensor:
    """Return three rows that need no generator."""
    return torch.sin(torch.arange(3 * width, dtype=torch.float64).view(3, width)).float()


def updates(model: Any, names: str) -> dict[str, torch.Tensor]:
    """Return what the adapters of the layers give."""
    with torch.no_grad():
        return {name: model.base_model.model[name](inputs(WIDTHS[name][0])) for name in names}


def make(folder: str, names: str, **keys: Any) -> None:
    """Save an adapter whose gates have moved."""
    model = get_peft_model(net(names), QuantaConfig(target_modules=list(names), **keys))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    model.eval()
    model.save_pretrained(str(HERE / folder))
    save_file(updates(model, names), str(HERE / folder / "expected.safetensors"))


def make_imported() -> None:
    """Save an adapter of the paper's code, imported."""
    state, generator, layout = {}, torch.Generator().manual_seed(2), (16, 8, 6)
    for a, b in itertools.combinations((-1, -2, -3), 2):
        shape = (layout[b], layout[a], layout[b], layout[a])
        start = torch.randn(shape, generator=generator) / (layout[a] * layout[b]) ** 0.5
        state[f"a.quanta_weights2.{a} {b}"] = start
        state[f"a.quanta_weights.{a} {b}"] = start + 0.02 * torch.randn(shape, generator=generator)
    with tempfile.TemporaryDirectory() as work:
        save_file(state, f"{work}/state.safetensors")
        code = "from quanta_compiler.cli import main; main()"
        command = [sys.executable, "-c", code, "import", f"{work}/state.safetensors"]
        subprocess.run([*command, "-o", str(HERE / "imported")], check=True)
    model = PeftModel.from_pretrained(net("a"), str(HERE / "imported"))
    save_file(updates(model, "a"), str(HERE / "imported" / "expected.safetensors"))


def main() -> None:
    """Make all folders."""
    each = {"version": 1, "name": "each", "layout": {"auto": 4}, "gates": ["each"]}
    gates = [{"pattern": "chain", "kind": "orthogonal"}]
    orthogonal = {"version": 1, "name": "turned", "layout": {"auto": 3}, "gates": gates}
    make("copied", "a")
    make("templates", "bc", circuit=each)
    make("folded", "a", residual="folded", circuit=orthogonal, scale=0.5)
    make("none", "a", preset="lora:2")
    make_imported()


if __name__ == "__main__":
    main()
