"""How long circuits take on a device, beside plain torch, torch.compile, the frozen layer and PEFT's LoRA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from gpu_sections import Deadline, Section

from quanta_compiler.bench.contestants import Setting, draw_gates, runs
from quanta_compiler.bench.devices import clock_for, working_on
from quanta_compiler.bench.layers import dense_layer
from quanta_compiler.bench.options import BARE, COMPILED, FORWARD, MODES, TRAINING, Options
from quanta_compiler.bench.ours import our_contestant
from quanta_compiler.bench.result import Bench
from quanta_compiler.bench.roster import batch_of
from quanta_compiler.bench.run import bench
from quanta_compiler.bench.timing import Job, measure
from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engine import engine_for
from quanta_compiler.kernels.engines.triton import engine as triton
from quanta_compiler.kernels.engines.triton import forms
from quanta_compiler.kernels.engines.triton.run import TritonTable
from quanta_compiler.lowering.table import lower_table
from quanta_compiler.system.extras import MissingExtraError
from quanta_compiler.text.quantities import bytes_text

LAYOUTS = ("16x8x8x4", "16x16x16", "8x8x8x8", "16x16x4x4", "16x8x8x5", "16x8x8x8", "8x8x4x4x4")
FROZEN, LORA = "quanta-frozen-copy", "peft-lora-8"
ONLY = ("fused", "torch", "opt-einsum", "dense", FROZEN, LORA)
_PARTS = 64
_COMPILING = 60.0
"""Seconds that torch.compile may take."""


@dataclass(frozen=True)
class Scale:
    """What is measured, and how often."""

    device: str
    dtype: str
    tokens: tuple[int, ...] = (4096, 1, 16, 128, 1024, 32768)
    """The most important first: the others may have to be left out."""
    layouts: tuple[str, ...] = LAYOUTS
    rounds: int = 9


def quick(device: str) -> Scale:
    """Return a scale at which nothing takes long, and nothing is worth knowing."""
    return Scale(device, "float32", (4, 1), ("4x4x4x4",), rounds=1)


def circuit(layout: str, tokens: int) -> CompiledCircuit:
    """Compile all_pairs on a layout."""
    return compile_circuit(
        {"version": 1, "name": f"quanta-{layout}", "layout": layout, "gates": ["all_pairs"]}, tokens=tokens
    )


def _measured(layout: str, tokens: int, scale: Scale, only: Sequence[str], section: Section) -> Bench | None:
    """Measure a circuit beside others; None, and a line, where that cannot be done."""
    options = Options(scale.device, scale.dtype, scale.rounds, adapters=True, only=tuple(only), modes=MODES[:2])
    what = f"{layout}, {tokens:,} tokens"
    try:
        found = bench(circuit(layout, tokens), options)
    except MissingExtraError:
        section.left_out.append(f"{what}: adapters, for which peft is not installed")
        found = bench(circuit(layout, tokens), replace(options, adapters=False))
    except Exception as error:
        # Whatever a driver or a compiler raises is a line of the report, not its end.
        section.left_out.append(f"{what}: {(str(error) or type(error).__name__).splitlines()[0]}")
        return None
    section.data.append(found.to_dict())
    section.left_out += [f"{what}, {one.name}: {one.reason}" for one in found.left_out]
    section.left_out += [f"{what}, {name} {mode}: wrong by {error:.1e}" for name, mode, error in found.wrong]
    return found


def _row(found: Bench, name: str) -> tuple[str, ...] | None:
    """Return microseconds and ratios to the frozen layer, forward and with backward, and the memory."""
    one = found.contestants.get(name)
    if one is None:
        return None
    cells: list[str] = []
    for mode in (FORWARD, TRAINING):
        figures, seconds = one.modes.get(mode), _seconds(found, BARE, mode)
        if figures is None:
            cells += ["", "", ""]
            continue
        median = figures.timing.seconds_median
        cells += [f"{1e6 * median:,.1f}", f"{100 * figures.timing.spread:.0f}%"]
        cells += [f"{median / seconds:.2f}" if seconds else ""]
    saved = one.saved_bytes
    training = one.modes.get(TRAINING)
    cells += ["" if saved is None else bytes_text(saved), "" if training is None else bytes_text(training.peak_bytes)]
    return name, *cells


def _seconds(found: Bench, name: str, mode: str) -> float | None:
    one = found.contestants.get(name)
    figures = one.modes.get(mode) if one is not None else None
    return None if figures is None else figures.timing.seconds_median


_COLUMNS = (
    *("forward, µs", "spread", "x frozen layer", "with backward, µs", "spread", "x frozen layer"),
    *("saved for backward", "peak"),
)


def by_tokens(scale: Scale, deadline: Deadline) -> Section:
    """Measure one circuit on batches of many sizes; torch.compile on the first of them."""
    layout = scale.layouts[0]
    section = Section(
        "tokens",
        f"{layout} in {scale.dtype}, by tokens",
        "Medians over interleaved rounds; launches one after the other, caches not flushed. Memory is "
        "without weights. bare is the frozen layer alone; adapters are beside it, the others without it.",
        ("tokens", "", *_COLUMNS),
    )
    for place, tokens in enumerate(deadline.within(scale.tokens, section.left_out)):
        with deadline.kept(f"{tokens:,} tokens", section.left_out):
            compiling = place == 0 and scale.device != "cpu" and deadline.left() > _COMPILING
            found = _measured(layout, tokens, scale, (*ONLY, *((COMPILED,) if compiling else ())), section)
            if found is not None:
                rows = (_row(found, name) for name in found.contestants)
                section.rows += [(f"{tokens:,}", *row) for row in rows if row is not None]
    if not any(COMPILED in row for row in section.rows):
        section.left_out.append(f"{COMPILED}: it is measured on a GPU, on the first batch, where there is time")
    return section


def by_layout(scale: Scale, deadline: Deadline) -> Section:
    """Measure the layouts of the paper on one batch."""
    tokens = scale.tokens[0]
    section = Section(
        "layouts",
        f"Layouts in {scale.dtype}, {tokens:,} tokens",
        "bare is the frozen layer alone; adapters are beside it, the others without it.",
        ("layout", "", *_COLUMNS),
    )
    for layout in deadline.within(scale.layouts, section.left_out):
        with deadline.kept(layout, section.left_out):
            found = _measured(layout, tokens, scale, ("fused", "torch", FROZEN, LORA), section)
            if found is not None:
                rows = (_row(found, name) for name in found.contestants)
                section.rows += [(layout, *row) for row in rows if row is not None]
    return section


def goals(tokens: Section) -> Section:
    """Read off what the engine is to reach, from the first batch of `by_tokens`."""
    section = Section(
        "goals",
        "What it is to reach",
        "For 16x8x8x4 beside a frozen 4096 x 4096 layer in bfloat16 on 4,096 tokens of an H100; here on the card named "
        "above, and on the first batch below.",
        ("", "goal", "measured"),
    )
    if not tokens.data:
        section.left_out.append("the first batch was not measured")
        return section
    medians = {
        (one["name"], mode): figures["seconds_median"]
        for part in tokens.data[0]["sections"]
        for one in part["contestants"]
        for mode, figures in one["modes"].items()
    }
    for title, goal, name, mode in (
        ("forward / frozen layer", 0.35, "fused", FORWARD),
        ("forward + backward with frozen copy / frozen layer", 1.6, FROZEN, TRAINING),
        ("the same of PEFT's LoRA, r = 8", None, LORA, TRAINING),
    ):
        if (name, mode) in medians and (BARE, mode) in medians:
            ratio = medians[name, mode] / medians[BARE, mode]
            section.data.append({"what": title, "goal": goal, "ratio": ratio})
            section.rows.append((title, "" if goal is None else f"at most {goal}", f"{ratio:.2f}"))
        else:
            section.left_out.append(f"{title}: {name} or {BARE} was not measured")
    return section


def thin_products(scale: Scale, deadline: Deadline) -> Section:
    """Measure the products that make the gradients of the gates from stored states and gradients."""
    tokens, place = scale.tokens[0], torch.device(scale.device)
    dtype: torch.dtype = getattr(torch, scale.dtype)
    section = Section(
        "products",
        f"The thin products of backward, {tokens:,} tokens, {scale.dtype}",
        "A gate's gradient is the product of two stored tensors: as one product, and in 64 parts that are summed.",
        ("layout", "gate", "rows x lines x columns", "one, µs", "GB/s", "in parts, µs", "GB/s"),
    )
    todo = [
        (layout, entry) for layout in scale.layouts[:2] for entry in lower_table(circuit(layout, 1).circuit).entries
    ]
    for layout, entry in deadline.within(todo, section.left_out):
        with deadline.kept(f"{layout} {entry.name}", section.left_out):
            lines, sides = tokens * entry.rest, (entry.rows, entry.columns)
            left, right = (torch.randn(entry.blocks, lines, side, device=place).to(dtype) for side in sides)
            parts = _PARTS if lines % _PARTS == 0 else 1
            ways: dict[str, Callable[[], object]] = {
                "one": partial(_product, left, right, 1),
                "parts": partial(_product, left, right, parts),
            }
            seconds = _timed(ways, place, scale.rounds)
            rates = {key: (left.nbytes + right.nbytes) / one / 1e9 for key, one in seconds.items()}
            shape = f"{entry.rows} x {lines:,} x {entry.columns}"
            cells = [cell for key in seconds for cell in (f"{1e6 * seconds[key]:,.1f}", f"{rates[key]:,.0f}")]
            section.rows.append((layout, entry.name, shape, *cells))
            section.data.append({"layout": layout, "gate": entry.name, "shape": shape, "seconds": seconds})
    return section


def _product(left: torch.Tensor, right: torch.Tensor, parts: int) -> torch.Tensor:
    """Return the sum over lines of `[blocks, lines, rows]` times `[blocks, lines, columns]`."""
    blocks, lines, rows = left.shape
    left, right = (one.view(blocks * parts, lines // parts, -1) for one in (left, right))
    return torch.bmm(left.mT, right).view(blocks, parts, rows, -1).sum(1)


def backward_forms(scale: Scale, deadline: Deadline) -> Section:
    """Measure the backward pass of the engine by stored states and in segments, whichever it would take."""
    tokens, place = scale.tokens[0], torch.device(scale.device)
    dtype: torch.dtype = getattr(torch, scale.dtype)
    section = Section(
        "backward",
        f"The two forms of backward, {tokens:,} tokens, {scale.dtype}",
        "The gradients of the input and of all gates by the engine triton; the last column is what it takes by itself.",
        ("layout", "stored states, µs", "segments, µs", "taken"),
    )
    engine = engine_for(place.type, dtype)
    if engine is not triton:
        section.left_out.append(f"both: the engine here is {engine.name}")
        return section
    for layout in deadline.within(scale.layouts, section.left_out):
        with deadline.kept(layout, section.left_out):
            table = lower_table(circuit(layout, 1).circuit)
            x, grad = (
                torch.randn(tokens, width, device=place).to(dtype) for width in (table.in_features, table.out_features)
            )
            matrices = [torch.randn(one.blocks, one.rows, one.columns, device=place).to(dtype) for one in table.entries]
            given = (grad, x, matrices, [True] * (1 + len(matrices)))
            runners = {form: TritonTable(table) for form in _MOVED}
            ways: dict[str, Callable[[], object]] = {
                form: partial(_in_form, form, runner, given) for form, runner in runners.items()
            }
            taken = TritonTable(table)
            for run in ways.values():
                run()
            taken.backward(*given)
            said = {form: runner.in_words() for form, runner in runners.items()}
            fitting = {form: way for form, way in ways.items() if said[form].startswith(_SAID[form])}
            section.left_out += [f"{layout}, {form}: {said[form]}" for form in ways if form not in fitting]
            seconds = _timed(fitting, place, scale.rounds) if fitting else {}
            cells = [f"{1e6 * seconds[form]:,.1f}" if form in seconds else "" for form in ways]
            section.rows.append((layout, *cells, taken.in_words()))
            section.data.append({"layout": layout, "seconds": seconds, "taken": taken.in_words()})
    return section


_MOVED = {"stored": 2**60, "segments": 0}
"""What segments are said to move, so that a form is taken."""
_SAID = {"stored": "backward by stored", "segments": "backward in"}


def _in_form(form: str, runner: TritonTable, given: tuple[Any, ...]) -> object:
    with mock.patch.object(forms, "moved_in_segments", return_value=_MOVED[form]):
        return runner.backward(*given)


def launches(scale: Scale, deadline: Deadline) -> Section:
    """Measure what few tokens take: nearly nothing but launches, which a CUDA graph does without."""
    place = torch.device(scale.device)
    dtype: torch.dtype = getattr(torch, scale.dtype)
    section = Section(
        "launches",
        f"Few tokens, forward, {scale.dtype}",
        "As a program calls it, and replayed from a CUDA graph, which is the kernels alone.",
        ("tokens", "", "called, µs", "replayed, µs"),
    )
    for tokens in deadline.within([count for count in (1, 8, 64) if count <= max(scale.tokens)], section.left_out):
        compiled = circuit(scale.layouts[0], tokens)
        setting = Setting(compiled, dtype, draw_gates(compiled, dtype, device=place), place)
        for name in ("fused", "torch", "dense"):
            with deadline.kept(f"{name}, {tokens} tokens", section.left_out):
                _few_tokens(name, setting, scale.rounds, section)
    if place.type != "cuda":
        section.left_out.append("CUDA graphs: there are none on the CPU")
        section.rows = [(*row, "") for row in section.rows]
    return section


def _few_tokens(name: str, setting: Setting, rounds: int, section: Section) -> None:
    try:
        contestant = dense_layer(setting) if name == "dense" else our_contestant(name, setting)
        forward = runs(contestant, *batch_of(setting))[FORWARD]
        ways: dict[str, Callable[[], object]] = {"called": partial(forward, 1)}
        if setting.device.type == "cuda":
            ways["replayed"] = _graph(ways["called"])
        seconds = _timed(ways, setting.device, rounds)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return section.left_out.append(f"{name}, {setting.tokens} tokens: {reason}")
    section.rows.append((str(setting.tokens), name, *(f"{1e6 * seconds[way]:,.1f}" for way in ways)))
    return section.data.append({"tokens": setting.tokens, "name": name, "seconds": seconds})


def _graph(run: Callable[[], object]) -> Callable[[], object]:
    """Return what replays a run."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _timed(ways: dict[str, Callable[[], object]], place: torch.device, rounds: int) -> dict[str, float]:
    """Return the medians of functions, in interleaved rounds, by the device's clock."""

    def job(name: str, run: Callable[[], object]) -> Job:
        def repeat(count: int) -> None:
            for _ in range(count):
                run()

        repeat(1)
        return Job(name, repeat)

    with working_on(place):
        timings: dict[Any, Any] = measure([job(*way) for way in ways.items()], rounds, clock=clock_for(place))
    return {name: timings[name].seconds_median for name in ways}
