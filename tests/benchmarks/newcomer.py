"""The path of a newcomer, step by step and timed: install, recommend, train, compare, merge.

    python tests/benchmarks/newcomer.py            # with what is installed
    python tests/benchmarks/newcomer.py --install  # in a fresh virtual environment, from this checkout

The layers have the widths of Llama-3.2-1B (examples/models/llama-3.2-1b); there is one block of them with random
weights and a small vocabulary, so that nothing is downloaded and a few steps take seconds on a CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "models" / "llama-3.2-1b"
TRAIN = """
import sys
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

shape = AutoConfig.from_pretrained({model!r}, num_hidden_layers=1, vocab_size=64, bos_token_id=0, eos_token_id=1)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(shape)
{configuration}
model = get_peft_model(model, config)
model.print_trainable_parameters()
tokens = torch.randint(0, 64, (4, 32))
optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=3e-3)
losses = []
for _ in range(5):
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print("losses", *(f"{{loss:.3f}}" for loss in losses))
assert losses[-1] < losses[0]
model.eval()
with torch.no_grad():
    before = model(tokens).logits
    merged = model.merge_and_unload()
    difference = (merged(tokens).logits - before).abs().max() / before.abs().max()
print(f"merged: {{type(merged).__name__}}, logits differ by {{difference:.1e}} of the largest")
assert difference < 1e-3
"""


def walk(python: str, folder: Path, *, install: bool) -> None:
    """Go the whole way in a folder; raise CalledProcessError where a step fails."""

    def step(name: str, *command: str) -> str:
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        print(f"{time.perf_counter() - begin:7.1f} s  {name}", flush=True)
        return done.stdout

    quanta = (python, "-m", "quanta_compiler")
    if install:
        constraints = ("--constraint", str(ROOT / "constraints.txt"))
        step("install", python, "-m", "pip", "install", "--quiet", *constraints, f"{ROOT}[peft]")
    asked = ("--model", str(MODEL), "--targets", "q_proj,v_proj", "--budget", "0.05%", "-o", "circuits")
    advice = step("recommend for Llama-3.2-1B", *quanta, "recommend", *asked)
    configuration = advice[advice.index("from quanta_compiler.peft") :]
    print(
        step(
            "train 5 steps of one block, merge",
            python,
            "-c",
            TRAIN.format(model=str(MODEL), configuration=configuration),
        )
    )
    files = [str(path) for path in sorted((folder / "circuits").glob("quanta-*.yaml"))[:2]]
    print(step("compare two circuits", *quanta, "compare", *files, "-b", "lora:8", "-o", "compare.html"))


def main() -> None:
    """Walk, in this environment or in a fresh one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--install", action="store_true", help="install this checkout in a fresh virtual environment")
    install = parser.parse_args().install
    with tempfile.TemporaryDirectory() as folder:
        python = sys.executable
        if install:
            venv.create(Path(folder) / "venv", with_pip=True)
            python = str(Path(folder) / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
        walk(python, Path(folder), install=install)


if __name__ == "__main__":
    main()
