"""How fast circuits are beside opt_einsum and beside what the machine can do: the figures of docs/benchmarks.md.

    python tests/benchmarks/circuits.py [SECTION...] [-o DIR]

Each section can be run by itself; with `-o` its table and its data take their place in DIR/circuits.md and
DIR/circuits.json beside those that are there already. `--quick` runs everything small, to see that it runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from quanta_compiler.bench.agreement import errors, expected_results
from quanta_compiler.bench.contestants import Contestant, Setting, draw_gates
from quanta_compiler.bench.einsums import opt_einsum_contestant
from quanta_compiler.bench.options import ADAPTERS, FORWARD, TRAINING, Options
from quanta_compiler.bench.ours import our_contestant, our_names
from quanta_compiler.bench.result import Bench
from quanta_compiler.bench.roster import batch_of
from quanta_compiler.bench.run import bench
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.oracle.reference import apply_gates
from quanta_compiler.system.machine import describe_machine, is_crowded

LAYOUTS = ("16x8x8x4", "16x16x16", "8x8x8x8", "16x16x4x4", "16x8x8x5", "16x8x8x8", "8x8x4x4x4")
"""Those of the QuanTA paper."""
WIDTHS = ("8x8x8x8", "16x8x8x8", "16x16x8x8", "16x16x16x8", "16x16x16x16")
"""2^12 to 2^16 features on four axes."""
RIVAL = "opt-einsum"


@dataclass(frozen=True)
class Section:
    """A table, the data behind it, and where it was measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str
    data: list[dict[str, Any]]


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    quick: bool

    def some(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return all values, or the first two of them."""
        return values[:2] if self.quick else values

    def tokens(self, count: int) -> int:
        """Return a batch, a small one where it is to be quick."""
        return min(count, 16) if self.quick else count

    def threads(self) -> tuple[int, ...]:
        """Return one thread, and all of them."""
        return tuple(sorted({1, torch.get_num_threads()}))


def circuit(layout: str, tokens: int) -> CompiledCircuit:
    """Compile all_pairs on a layout."""
    file = {"version": 1, "name": f"quanta-{layout}", "layout": layout, "gates": ["all_pairs"]}
    return compile_circuit(file, tokens=tokens)


def measured(layout: str, tokens: int, threads: int, scale: Scale, *modes: str) -> Bench:
    """Measure a circuit beside opt_einsum."""
    print(f"{layout}, {tokens} tokens, {threads} threads", file=sys.stderr)
    found = bench(circuit(layout, tokens), Options(rounds=scale.rounds, threads=threads, only=(RIVAL,), modes=modes))
    doubt(found)
    return found


def doubt(found: Bench) -> None:
    """Tell what makes figures hard to believe; stop where they are of something else."""
    if is_crowded(found.others_cores, found.settings["threads"], found.machine["cores"]):
        print(f"  other programs kept {found.others_cores:.1f} cores busy", file=sys.stderr)
    for name, spread in found.wide_spreads():
        print(f"  wide spread: {name} {100 * spread:.0f}%", file=sys.stderr)
    for name, mode, error in found.wrong:
        sys.exit(f"{found.circuit['name']}: {name} {mode} is wrong by {error:.1e}")


def layouts(scale: Scale) -> Section:
    """Measure the paper's layouts: distance to the matmul limit, speed-up over opt_einsum, memory."""
    columns = (
        *("layout", "tokens", "threads", "forward, x matmul", "forward + backward, x matmul"),
        *("opt_einsum forward, x matmul", "opt_einsum forward + backward, x matmul"),
        *("speed-up forward", "speed-up forward + backward", "saved / input", "opt_einsum saved / input"),
    )
    rows, data = [], []
    for threads in scale.threads():
        for tokens in (scale.tokens(512), scale.tokens(2048)):
            group = []
            for layout in scale.some(LAYOUTS):
                found = measured(layout, tokens, threads, scale, FORWARD, TRAINING)
                data.append(found.to_dict())
                group.append(_against_rival(found))
                rows.append((layout, f"{tokens:,}", str(threads), *_figures(group[-1])))
            medians = [statistics.median(values) for values in zip(*group, strict=True)]
            rows.append(("**median**", f"{tokens:,}", str(threads), *_figures(medians)))
    remark = (
        "x matmul: time over that of the same FLOPs (three times as many for forward + backward) in one large matrix "
        "product. Saved / input: bytes kept for backward over those of the input."
    )
    return Section("The layouts of the paper, float32", columns, tuple(rows), remark, data)


def _against_rival(found: Bench) -> tuple[float, ...]:
    base = found.sections[0].base
    given = 4 * found.settings["tokens"] * found.circuit["in_features"]
    limits = [
        found.contestants[name].modes[mode].matmul_limit_ratio for name in (base, RIVAL) for mode in (FORWARD, TRAINING)
    ]
    ratios = [found.contestants[RIVAL].modes[mode].ratio for mode in (FORWARD, TRAINING)]
    saved = [found.contestants[name].saved_bytes for name in (base, RIVAL)]
    numbers = [*limits, *ratios, *(None if one is None else one / given for one in saved)]
    return tuple(number for number in numbers if number is not None)


def one_token(scale: Scale) -> Section:
    """Measure a forward pass of one token, as in generation."""
    rows, data = [], []
    for threads in scale.threads():
        for layout in scale.some(LAYOUTS):
            found = measured(layout, 1, threads, scale, FORWARD)
            data.append(found.to_dict())
            seconds = [
                found.contestants[name].modes[FORWARD].timing.seconds_median for name in (found.sections[0].base, RIVAL)
            ]
            cells = [f"{1e6 * one:,.0f}" for one in seconds]
            rows.append((layout, str(threads), *cells, f"{seconds[1] / seconds[0]:.2f}"))
    columns = ("layout", "threads", "ours, µs", "opt_einsum, µs", "speed-up")
    return Section("One token, forward, float32", columns, tuple(rows), "", data)


def tokens(scale: Scale) -> Section:
    """Measure the cost of a token in batches of many sizes."""
    rows, data = [], []
    for threads in scale.threads():
        for count in scale.some([256, 512, 1024, 2048, 4096, 8192, 16384]):
            found = measured("16x8x8x4", scale.tokens(count), threads, scale, FORWARD, TRAINING)
            data.append(found.to_dict())
            cells = []
            for mode in (FORWARD, TRAINING):
                figures = found.contestants[found.sections[0].base].modes[mode]
                cells += [f"{1e6 * figures.timing.seconds_median / found.settings['tokens']:.2f}"]
                cells += [f"{figures.matmul_limit_ratio:.2f}"]
            rows.append((f"{found.settings['tokens']:,}", str(threads), *cells))
    columns = ("tokens", "threads", *("forward, µs a token", "x matmul", "forward + backward, µs a token", "x matmul"))
    return Section("The cost of a token, 16x8x8x4, float32", columns, tuple(rows), "", data)


def features(scale: Scale) -> Section:
    """Measure the cost of a FLOP in circuits of many widths."""
    rows, data = [], []
    for threads in scale.threads():
        for layout in scale.some(WIDTHS):
            found = measured(layout, scale.tokens(512), threads, scale, FORWARD, TRAINING)
            data.append(found.to_dict())
            cells = []
            for mode in (FORWARD, TRAINING):
                figures = found.contestants[found.sections[0].base].modes[mode]
                assert figures.flops is not None
                cells += [f"{1e12 * figures.timing.seconds_median / figures.flops:.2f}"]
                cells += [f"{figures.matmul_limit_ratio:.2f}"]
            rows.append((layout, f"{found.circuit['in_features']:,}", str(threads), *cells))
    columns = (
        *("layout", "features", "threads", "forward, ps a FLOP", "x matmul"),
        *("forward + backward, ps a FLOP", "x matmul"),
    )
    return Section("The cost of a FLOP, 512 tokens, float32", columns, tuple(rows), "", data)


def adapters(scale: Scale) -> Section:
    """Measure PEFT methods on a frozen layer of 4096 x 4096."""
    layout, chosen = ("8x4", ADAPTERS[:3]) if scale.quick else ("16x8x8x4", ADAPTERS)
    compiled = circuit(layout, scale.tokens(512))
    rows, data, left_out = [], [], []
    for threads in scale.threads():
        print(f"adapters on {layout}, {threads} threads", file=sys.stderr)
        options = Options(rounds=scale.rounds, threads=threads, adapters=True, only=chosen, modes=(FORWARD, TRAINING))
        found = bench(compiled, options)
        doubt(found)
        data.append(found.to_dict())
        left_out += [f"{one.name}: {one.reason}" for one in found.left_out if one.name in ADAPTERS]
        for one in found.sections[1].contestants:
            cells = []
            for mode in (FORWARD, TRAINING):
                figures = one.modes.get(mode)
                seconds = None if figures is None else figures.timing.seconds_median
                cells += [_milliseconds(seconds), _two(None if figures is None else figures.ratio)]
            saved = "" if one.saved_bytes is None else f"{one.saved_bytes / 2**20:,.1f}"
            rows.append((one.title, str(threads), f"{one.trained_parameters:,}", *cells, saved))
    times = ("forward, ms", "x bare", "forward + backward, ms", "x bare")
    columns = ("method", "threads", "trained parameters", *times, "saved, MiB")
    remark = f"Left out: {'; '.join(dict.fromkeys(left_out))}." if left_out else ""
    width, count = compiled.spec.in_features, compiled.spec.tokens
    title = f"On a frozen layer of {width:,} features, {count:,} tokens, float32"
    return Section(title, columns, tuple(rows), remark, data)


def bfloat16(scale: Scale) -> Section:
    """Compare results in bfloat16 with those in float64 of the same rounded gates and inputs."""
    rows, data = [], []
    for layout in scale.some(LAYOUTS):
        print(f"{layout} in bfloat16", file=sys.stderr)
        compiled = circuit(layout, 64)
        setting = Setting(compiled, torch.bfloat16, draw_gates(compiled, torch.bfloat16))
        x, gradient = batch_of(setting)
        gates = {key: value.double() for key, value in setting.gates.items()}
        exact = apply_gates(compiled.circuit, gates, x)
        rounding = float((exact.to(torch.bfloat16).double() - exact).norm() / exact.norm())
        expected = expected_results(setting, x, gradient)
        first = our_names(compiled, torch.bfloat16)[0]
        contestants: list[Contestant] = [our_contestant(first, setting), opt_einsum_contestant(setting)]
        found = [errors(one, expected, x, (FORWARD, TRAINING)) for one in contestants]
        rows.append((layout, f"{rounding:.1e}", *(f"{one[mode]:.1e}" for mode in (FORWARD, TRAINING) for one in found)))
        data.append({"layout": layout, "ours": first, "one_rounding": rounding, "errors": found})
    columns = (
        "layout",
        "one rounding",
        "output, ours",
        "output, opt_einsum",
        "gradients, ours",
        "gradients, opt_einsum",
    )
    remark = (
        "Norm of the error over that of the exact result; of the gradients the largest. One rounding: the exact result "
        "rounded to bfloat16."
    )
    return Section("Accuracy in bfloat16, 64 tokens", columns, tuple(rows), remark, data)


def _figures(numbers: Iterable[float]) -> list[str]:
    return [_two(number) for number in numbers]


def _two(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:,.3g}"


SECTIONS: dict[str, Callable[[Scale], Section]] = {
    "layouts": layouts,
    "one-token": one_token,
    "tokens": tokens,
    "features": features,
    "adapters": adapters,
    "bfloat16": bfloat16,
}


def markdown(section: dict[str, Any]) -> str:
    """Return a section as a heading, a table and its remarks."""
    width = len(section["columns"])
    lines = [f"## {section['title']}", "", _row(section["columns"]), _row([":--", *["--:"] * (width - 1)])]
    lines += [_row(cells) for cells in section["rows"]]
    machine = section["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores; torch {machine['torch']}, Python {machine['python']}"
    remark = f"{section['remark']} " if section["remark"] else ""
    return "\n".join([*lines, "", f"{remark}{where}; {section['date']}, medians of {section['rounds']} rounds."])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(folder: Path, sections: dict[str, dict[str, Any]]) -> None:
    """Put sections into the folder's files, beside those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "circuits.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    merged = {name: {**known, **sections}[name] for name in SECTIONS if name in known or name in sections}
    path.write_text(json.dumps(merged, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    title = "# Measured circuits\n\nMade by `python tests/benchmarks/circuits.py -o docs/figures`."
    text = "\n\n".join([title, *(markdown(section) for section in merged.values())])
    (folder / "circuits.md").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run the sections that are asked for, print them, and write them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="small batches, two circuits, two rounds: does it run?")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to keep tables and data")
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    scale = Scale(2 if options.quick else options.rounds, options.quick)
    for name in options.sections or SECTIONS:
        section = {
            **asdict(SECTIONS[name](scale)),
            "machine": describe_machine(),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "rounds": scale.rounds,
        }
        print(markdown(section) + "\n", flush=True)
        if options.output is not None:
            # After every section, so that an interruption costs one of them at most.
            write(options.output, {name: section})


if __name__ == "__main__":
    main()
