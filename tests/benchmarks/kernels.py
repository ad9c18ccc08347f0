"""What the paper's layouts need of a GPU, compiled without one: the table of docs/gpu.md.

    python tests/benchmarks/kernels.py [--arch sm_80,sm_90] [-o DIR]

Nothing is measured: registers, shared memory and what is launched are read from what Triton compiles. With `-o` the
table is DIR/kernels.md, and what `quanta kernel --json` prints of every layout is in DIR/kernels.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from circuits import LAYOUTS

from quanta_compiler.kernels.engines.triton.architectures import DTYPES
from quanta_compiler.kernels.engines.triton.needs import Needs, Pass, kernel_needs
from quanta_compiler.kernels.engines.triton.plans import Refusal
from quanta_compiler.spec import load_spec
from quanta_compiler.text.console import Progress

PASSES = ("forward", "segment", "states", "flow")


def needs_of(layout: str, arches: list[str]) -> Needs:
    """Compile the kernels of all pairs of a layout, in bfloat16."""
    spec = load_spec({"version": 1, "name": f"quanta-{layout}", "layout": layout, "gates": ["all_pairs"]})
    return kernel_needs(spec, arches, DTYPES[0], DTYPES[0], Progress())


def table(found: dict[str, Needs]) -> str:
    """Return the table in Markdown: for every launch its tokens, registers and shared memory."""
    lines = [f"| layout | GPU | {' | '.join(PASSES)} |", "|---|---|---|---|---|---|"]
    for layout, needs in found.items():
        for arch in dict.fromkeys(one.arch for one in needs.passes):
            passes = {one.title: "<br>".join(_cells(one)) for one in needs.passes if one.arch == arch}
            cells = [passes.get(name, "") for name in PASSES]
            lines.append(f"| {layout} | sm_{arch} | {' | '.join(cells)} |")
    version = next(iter(found.values())).triton
    title = f"Compiled by Triton {version} in bfloat16, not measured: tokens of a program, registers, shared memory."
    return f"{title}\n\n" + "\n".join(lines) + "\n"


def _cells(one: Pass) -> Iterator[str]:
    if isinstance(one.plan, Refusal):
        yield f"{'stored' if one.title == 'segment' else 'torch'}: {one.plan.reason}"
        return
    for launch in one.plan:
        trial = next(trial for trial in one.trials if (trial.kernel, trial.tiling) == launch)
        assert not isinstance(trial.needs, str)
        yield f"{launch.tiling.tokens}, {trial.needs.registers}, {trial.needs.shared / 1024:.0f}K"


def main() -> None:
    """Compile, and write or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="sm_80,sm_86,sm_90,sm_100")
    parser.add_argument("-o", type=Path, metavar="DIR")
    given = parser.parse_args()
    found = {}
    for layout in LAYOUTS:
        print(layout, file=sys.stderr)
        found[layout] = needs_of(layout, given.arch.split(","))
    text = table(found)
    if given.o is None:
        print(text, end="")
        return
    (given.o / "kernels.md").write_text(f"# Kernels\n\n{text}", encoding="utf-8")
    data = {layout: needs.to_dict() for layout, needs in found.items()}
    (given.o / "kernels.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
