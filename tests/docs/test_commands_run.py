"""Every `quanta` command that a block of the documentation shows runs; what is printed below `$ quanta` is its output.

A comment beside a command says what it needs that a test has not: `# asks the Hub`, `# needs a GPU`, `# takes minutes`.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
from commands import quanta
from test_docs import FENCE, PAGES, ROOT

UNRUN = re.compile(r"# (asks the Hub|needs a GPU|needs a cluster|takes minutes)\b")
FILES = {
    "circuit.yaml": "version: 1\nname: circuit\nlayout: 8x4x4\ngates: [all_pairs]\n",
    "quanta.yaml": "version: 1\nname: quanta\nlayout: {auto: 4}\ngates: [all_pairs]\n",
    "square.yaml": (ROOT / "examples" / "llama2-70b-16-8-8-8.yaml").read_text(encoding="utf-8"),
    "rectangular.yaml": (ROOT / "examples" / "llama2-70b-v-proj-rectangular.yaml").read_text(encoding="utf-8"),
}
"""What a reader has, by the names that the pages give it."""
SLOW = {"docs/benchmarks.md", "docs/choosing.md", "docs/searching.md"}


def lines(block: str) -> list[str]:
    """Return the commands of a block: of one that shows an output the first line, else all that run `quanta`."""
    if block.startswith("$ quanta "):
        return [block.partition("\n")[0].removeprefix("$ ")]
    return [line for line in block.replace("\\\n", " ").splitlines() if re.match(r"(echo .*\| )?quanta [a-z]", line)]


BLOCKS = [
    (str(page.relative_to(ROOT)), number, block)
    for page in PAGES
    for number, (language, block) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
    if language == "" and lines(block)
]


def run(line: str) -> str:
    """Run a command in this process: `quanta ...`, `quanta ... > FILE`, or `echo TEXT | quanta ...`."""
    echo, _, command = line.rpartition(" | ")
    command, _, file = command.partition(" > ")
    result = quanta(*shlex.split(command, comments=True)[1:], stdin=shlex.split(echo)[1] if echo else None)
    assert result.exit_code == 0, f"{line}\n{result.stderr}"
    if file:
        Path(file).write_text(result.stdout, encoding="utf-8")
    return result.stdout


def save_adapter() -> None:
    """Save what a reader has trained as the folder `adapter`: its update is of rank 2."""
    import torch
    from peft import get_peft_model

    from quanta_compiler.peft import QuantaConfig

    base = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(16, 16)})
    model = get_peft_model(base, QuantaConfig(preset="lora:8", init_weights=False, target_modules=["q_proj"]))
    for parameter in model.parameters():
        if parameter.shape == (16, 8):
            parameter.data[:, 2:] = 0
    model.save_pretrained("adapter")


@pytest.mark.usefixtures("householder")
@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, marks=pytest.mark.slow if page in SLOW else (), id=f"{page}-{number}")
        for page, number, block in BLOCKS
        if not all(UNRUN.search(line) for line in lines(block))
    ],
)
def test_the_commands_run_and_print_what_the_page_says(
    page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("QUANTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", "examples", ignore=shutil.ignore_patterns("finetune", "__pycache__"))
    for name, text in FILES.items():
        Path(name).write_text(text, encoding="utf-8")
    if "quanta analyze adapter" in block:
        save_adapter()
    output = [run(line) for line in lines(block) if not UNRUN.search(line)]
    if block.startswith("$ "):
        command, _, told = block.partition("\n")
        paragraphs = output[0].rstrip().split("\n\n")[: len(told.rstrip().split("\n\n"))]
        printed = "\n\n".join(paragraphs) + "\n"
        if request.config.getoption("--update-golden"):
            text = (ROOT / page).read_text(encoding="utf-8")
            (ROOT / page).write_text(text.replace(block, f"{command}\n{printed}"), encoding="utf-8")
        else:
            assert told == printed, "pytest --update-golden puts the output into the page"


def test_what_is_not_run_is_counted() -> None:
    unrun = Counter(found[1] for _, _, block in BLOCKS for line in lines(block) for found in UNRUN.finditer(line))
    assert unrun == {"asks the Hub": 2, "needs a GPU": 2, "needs a cluster": 1, "takes minutes": 4}
