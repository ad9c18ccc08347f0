"""What `quanta recommend` says of twenty popular models, as a table: `python recommended.py -o docs/recommended.md`."""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import fill

from quanta_compiler.cli.model_layers import read_layers
from quanta_compiler.compare.figures import Conditions
from quanta_compiler.predict.calibration import typical_calibration
from quanta_compiler.recommend import recommend
from quanta_compiler.recommend.budget import parse_budget
from quanta_compiler.recommend.run import Recommendation, Recommended
from quanta_compiler.text.quantities import times_text
from quanta_compiler.text.words import DASH

FOLDER = Path(__file__).parent
BUDGET, TOKENS = "0.05%", 2048
TWO, FUSED = "q_proj,v_proj", "qkv_proj"
MODELS = {
    "llama-3.2-1b": TWO,
    "llama-3.2-3b": TWO,
    "llama-3.1-8b": TWO,
    "llama2-7b": TWO,
    "mistral-7b-v0.3": TWO,
    "mixtral-8x7b": TWO,
    "qwen2.5-0.5b": TWO,
    "qwen2.5-1.5b": TWO,
    "qwen2.5-7b": TWO,
    "qwen3-0.6b": TWO,
    "qwen3-8b": TWO,
    "qwen3-30b-a3b": TWO,
    "gemma-2-2b": TWO,
    "gemma-3-1b": TWO,
    "gemma-3-4b": r".*language_model.*\.[qv]_proj",
    "phi-3-mini": FUSED,
    "phi-4": FUSED,
    "smollm2-1.7b": TWO,
    "olmo-2-7b": TWO,
    "granite-3.3-2b": TWO,
}
HEAD = """\
# What to take for popular models

The first choice of `quanta recommend --budget {budget}` for twenty models whose shapes are in
[examples/models](../examples/models/README.md).

{rule}

- *circuits*: the first word is the [family](presets.md), the numbers are the layout (of `btt` the rank); `-to-4` says
  that one axis leaves as 4. `recommend -o DIR` writes them as files.
- *trained*: the numbers that train in the whole model; the budget is {budget} of its parameters.
- *step*: how many times as long as with LoRA r=8 on the same layers a training step of these circuits takes, for
  {tokens:,} tokens, predicted for [a typical machine](predicted.md): one thread of a server's processor. The frozen
  model's own time, the same for both, is not in it. Nothing here was measured, and which circuits learn your task best
  only training tells.
- The targets are those of the attention's queries and values; of Phi, where they are one layer, that layer; of
  Gemma-3-4B those of its language model. In mixtures of experts they are the layers that every token passes.

| model | parameters | targets | circuits | trained | step |
|---|--:|---|---|--:|--:|
"""
FOOT = """
`quanta recommend --model examples/models/llama-3.2-1b --budget {budget}` prints the other families beside it and a
ready `QuantaConfig`. This table is made, in about a minute, by

```
python examples/models/recommended.py -o docs/recommended.md
```
"""


def row(made: Recommendation, first: Recommended) -> str:
    """Return a model's line of the table."""
    targets = ", ".join(f"{group.layers} `{group.name}`" for group in made.groups)
    circuits: dict[str, list[str]] = {}
    for group in made.groups:
        circuits.setdefault(first.circuits[group.shape]["name"], []).append(f"`{group.name}`")
    written = [f"`{name}`" + (f" on {', '.join(on)}" if len(circuits) > 1 else "") for name, on in circuits.items()]
    step = made.slower_than_lora(first)
    cells = (
        made.model.name.rpartition("/")[2],
        f"{made.model.parameters:,}",
        targets,
        "; ".join(written),
        f"{first.row.trainable:,}",
        DASH if step is None else times_text(step),
    )
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    """Return the page."""
    conditions = Conditions(TOKENS, "auto", typical_calibration())
    made = [
        recommend(read_layers(str(FOLDER / name), targets), parse_budget(BUDGET), conditions)
        for name, targets in MODELS.items()
    ]
    rows = "".join(row(one, one.choices[0]) for one in made)
    rule = fill(f"It is, {made[0].rule}.", 120)
    return HEAD.format(budget=BUDGET, rule=rule, tokens=TOKENS) + rows + FOOT.format(budget=BUDGET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="the file to write; by default the table is printed")
    output = parser.parse_args().output
    if output is None:
        print(table(), end="")
    else:
        output.write_text(table(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
