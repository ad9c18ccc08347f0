"""Every block of Python in the documentation runs as it stands, and prints what the page says."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from commands import quanta
from test_docs import PAGES, ROOT, blocks

LLAMA = """
import copy
import torch
from transformers import LlamaConfig, LlamaForCausalLM
sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)).eval()
base_model, fresh, x = copy.deepcopy(model), copy.deepcopy(model), torch.arange(5)[None]
"""
SAVED = """
from pathlib import Path
from peft import get_peft_model
from quanta_compiler.peft import QuantaConfig
for name, layout in {"circuit": "4x3x2", "quanta": "{auto: 3}", "larger": "{auto: 2}"}.items():
    Path(f"{name}.yaml").write_text(f"version: 1\\nname: {name}\\nlayout: {layout}\\ngates: [all_pairs]\\n")
trained = get_peft_model(copy.deepcopy(model), QuantaConfig(circuit="circuit.yaml", target_modules=["q_proj"]))
for parameter in trained.parameters():
    if parameter.requires_grad:
        torch.nn.init.normal_(parameter)
trained.save_pretrained("the/saved/folder")
"""
BEGINS_AS_THE_BASE = "assert torch.equal(model(x).logits, base_model(x).logits)"
BEFORE = {"README.md": LLAMA, "docs/index.md": LLAMA, "docs/adapters.md": LLAMA + SAVED}
"""What a reader has before the first block."""
ADAPTS = """
assert torch.equal(model(x).logits, trained(x).logits)
for each in (config, identity, oft, lotr, dora, four_bits):
    assert torch.equal(get_peft_model(copy.deepcopy(fresh), each).eval()(x).logits, fresh(x).logits)
import transformers
if int(transformers.__version__.split(".")[0]) >= 5:  # before, experts are linear layers
    from transformers import MixtralConfig, MixtralForCausalLM
    of_experts = {"num_key_value_heads": 2, "num_local_experts": 3, "vocab_size": 32}
    mixture = MixtralForCausalLM(MixtralConfig(**sizes, **of_experts)).eval()
    expected = mixture(x).logits
    assert torch.equal(get_peft_model(mixture, experts).eval()(x).logits, expected)
"""
AFTER = {
    "README.md": BEGINS_AS_THE_BASE,
    "docs/index.md": BEGINS_AS_THE_BASE,
    "docs/adapters.md": ADAPTS,
    "docs/how-it-works.md": "assert torch.allclose(y, weight(x), atol=1e-5)\nassert delta.abs().max() == 0",
}
"""What a reader would look at after the last block."""
NEEDS = {"docs/exporting.md": ("onnxscript", "onnxruntime")}
SCRIPTS = {str(page.relative_to(ROOT)): script for page in PAGES if (script := "\n".join(blocks(page, "python")))}
SLOW = {"docs/start.md"}


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in sorted(SCRIPTS)]
)
def test_the_python_runs_and_prints_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, in one namespace; slow pages in a process of their own, since they bring trainers that keep a state."""
    for module in NEEDS.get(page, ()):
        pytest.importorskip(module)
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("finetune", "__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    script = "\n".join([BEFORE.get(page, ""), SCRIPTS[page], AFTER.get(page, "")])
    if page in SLOW:
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        output = result.stdout
    else:
        with redirect_stdout(io.StringIO()) as stdout, torch.random.fork_rng():
            exec(compile(script, page, "exec"), {"__name__": "page"})
        output = stdout.getvalue()
    printed = iter(output.splitlines())
    for value in re.findall(r"^ *print\(.*\)  # (\S+?):?(?: .*)?$", SCRIPTS[page], re.MULTILINE):
        assert value in printed, f"{value} was not printed after what stands before it:\n{output}"


def test_the_mistakes_shown_are_those_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, told = blocks(ROOT / "docs" / "start.md", "")[-2:]
    monkeypatch.chdir(tmp_path)
    Path("circuit.yaml").write_text(file, encoding="utf-8")
    result = quanta("check", "circuit.yaml")
    assert result.exit_code == 1
    assert result.stderr == told
