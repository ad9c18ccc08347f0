"""The layouts that {auto: N} takes for the widths of published models."""

from __future__ import annotations

import itertools
import math

import pytest

from quanta_compiler.presets.layouts import auto_layout
from quanta_compiler.spec import load_spec
from quanta_compiler.spec.circuit_spec import CircuitSpec

TEMPLATE = {"version": 1, "name": "a", "layout": {"auto": 4}, "gates": ["all_pairs"]}


Sizes = tuple[int, ...]


def sizes_of(spec: CircuitSpec) -> Sizes:
    return tuple(axis.size for axis in spec.layout)


def numbers(sizes: Sizes) -> int:
    """Trained numbers of dense gates on all pairs, pair by pair."""
    return sum((m * n) ** 2 for m, n in itertools.combinations(sizes, 2))


MODELS = {
    # Hidden, feed-forward and vocabulary (or token count of its tokenizer).
    "bert-base": (768, 3072, 30522),
    "roberta-base": (768, 3072, 50265),
    "gpt2": (768, 3072, 50257),
    "gpt2-xl": (1600, 6400, 50257),
    "t5-base": (768, 3072, 32128),
    "whisper-large-v3": (1280, 5120, 51866),
    "clip-vit-large": (1024, 4096, 49408),
    "opt-6.7b": (4096, 16384, 50272),
    "bloom-560m": (1024, 4096, 250880),
    "pythia-410m": (1024, 4096, 50304),
    "falcon-7b": (4544, 18176, 65024),
    "llama2-7b": (4096, 11008, 32000),
    "llama2-13b": (5120, 13824, 32000),
    "llama2-70b": (8192, 28672, 32000),
    "llama3-8b": (4096, 14336, 128256),
    "llama3.2-1b": (2048, 8192, 128256),
    "mistral-7b-v0.3": (4096, 14336, 32768),
    "mixtral-8x22b": (6144, 16384, 32768),
    "qwen-vl": (4096, 11008, 151646),
    "qwen1.5-14b": (5120, 13696, 152064),
    "qwen2-0.5b": (896, 4864, 151936),
    "qwen2.5-7b": (3584, 18944, 152064),
    "qwen3-8b": (4096, 12288, 151936),
    "gemma-2b": (2048, 16384, 256000),
    "gemma3-1b": (1152, 6912, 262144),
    "gemma3-4b": (2560, 10240, 262208),
    "phi-2": (2560, 10240, 51200),
    "phi-3-mini": (3072, 8192, 32064),
    "phi-4": (5120, 17920, 100352),
    "smollm2-135m": (576, 1536, 49152),
    "deepseek-v2-lite": (2048, 10944, 102400),
    "deepseek-v3": (7168, 18432, 129280),
    "glm-4-9b": (4096, 13696, 151552),
    "minicpm-2b": (2304, 5760, 122753),
    "yi-34b": (7168, 20480, 64000),
}


LAYOUTS = {
    # Width: layout, padding in percent of the width, trained numbers of `all_pairs`.
    576: ("6x6x4x4", 0.0, 3856),
    768: ("8x6x4x4", 0.0, 5760),
    896: ("8x7x4x4", 0.0, 7008),
    1024: ("8x8x4x4", 0.0, 8448),
    1152: ("8x6x6x4", 0.0, 8080),
    1280: ("8x8x5x4", 0.0, 9744),
    1536: ("8x8x6x4", 0.0, 11328),
    1600: ("8x8x5x5", 0.0, 11121),
    2048: ("8x8x8x4", 0.0, 15360),
    2304: ("8x8x6x6", 0.0, 14608),
    2560: ("8x8x8x5", 0.0, 17088),
    3072: ("8x8x8x6", 0.0, 19200),
    3584: ("8x8x8x7", 0.0, 21696),
    4096: ("8x8x8x8", 0.0, 24576),
    4544: ("13x10x7x5", 0.13, 38031),
    4864: ("10x10x7x7", 0.74, 32001),
    5120: ("10x8x8x8", 0.0, 31488),
    5760: ("10x9x8x8", 0.0, 35364),
    6144: ("12x8x8x8", 0.0, 39936),
    6400: ("10x10x8x8", 0.0, 39696),
    6912: ("12x9x8x8", 0.0, 44560),
    7168: ("14x8x8x8", 0.0, 49920),
    8192: ("16x8x8x8", 0.0, 61440),
    10240: ("16x10x8x8", 0.0, 75264),
    10944: ("11x10x10x10", 0.51, 66300),
    11008: ("14x11x9x8", 0.73, 74865),
    12288: ("16x12x8x8", 0.0, 92160),
    13696: ("12x12x12x8", 0.93, 89856),
    13824: ("12x12x12x8", 0.0, 89856),
    14336: ("16x14x8x8", 0.0, 112128),
    16384: ("16x16x8x8", 0.0, 135168),
    17920: ("16x14x10x8", 0.0, 130704),
    18176: ("14x13x10x10", 0.13, 116124),
    18432: ("16x12x12x8", 0.0, 129280),
    18944: ("12x12x12x11", 0.34, 114480),
    20480: ("16x16x10x8", 0.0, 155904),
    28672: ("16x16x14x8", 0.0, 211200),
    30522: ("14x13x13x13", 0.77, 185055),
    32000: ("20x16x10x10", 0.0, 243600),
    32064: ("16x14x12x12", 0.6, 201088),
    32128: ("16x13x13x12", 1.0, 200625),
    32768: ("16x16x16x8", 0.0, 245760),
    49152: ("16x16x16x12", 0.0, 307200),
    49408: ("17x15x15x13", 0.64, 305566),
    50257: ("15x15x15x15", 0.73, 303750),
    50265: ("15x15x15x15", 0.72, 303750),
    50272: ("15x15x15x15", 0.7, 303750),
    50304: ("15x15x15x15", 0.64, 303750),
    51200: ("20x16x16x10", 0.0, 361536),
    51866: ("19x14x14x14", 0.52, 327516),
    64000: ("20x20x16x10", 0.0, 470400),
    65024: ("16x16x16x16", 0.79, 393216),
    100352: ("28x16x16x14", 0.0, 720960),
    102400: ("20x20x16x16", 0.0, 635136),
    122753: ("19x19x19x18", 0.58, 741855),
    128256: ("21x19x18x18", 0.8, 783873),
    129280: ("19x19x19x19", 0.81, 781926),
    151552: ("20x20x20x19", 0.3, 913200),
    151646: ("20x20x20x19", 0.23, 913200),
    151936: ("20x20x20x19", 0.04, 913200),
    152064: ("24x22x18x16", 0.0, 976528),
    250880: ("28x28x20x16", 0.0, 1745664),
    256000: ("32x20x20x20", 0.0, 1708800),
    262144: ("26x22x22x21", 0.81, 1613628),
    262208: ("26x22x22x21", 0.78, 1613628),
}


def exhaustive(width: int) -> Sizes:
    """Write down all layouts of four axes, from the smallest axis to the largest, and take the best."""
    most = width * 101 // 100
    best: dict[bool, tuple[int, int, Sizes]] = {}
    for d in range(2, math.isqrt(math.isqrt(most)) + 1):
        for c in range(d, math.isqrt(most) + 1):
            if c**3 * d > most:
                break
            for b in range(c, math.isqrt(most // (c * d)) + 1):
                for a in range(max(b, -(-width // (b * c * d))), most // (b * c * d) + 1):
                    found = (numbers((a, b, c, d)), a * b * c * d, (a, b, c, d))
                    for is_exact in {False, found[1] == width}:
                        best[is_exact] = min(best.get(is_exact, found), found)
    is_exact = True in best and 10 * best[True][0] <= 13 * best[False][0]
    return best[is_exact][2]


def test_the_widths_of_models() -> None:
    assert len(MODELS) >= 30
    assert sorted({width for widths in MODELS.values() for width in widths}) == sorted(LAYOUTS)


@pytest.mark.parametrize("width", LAYOUTS)
def test_the_layouts_of_models(width: int) -> None:
    text, padding, trained = LAYOUTS[width]
    spec = load_spec(TEMPLATE, in_features=width)
    sizes = sizes_of(spec)
    assert sizes == exhaustive(width)
    assert "x".join(map(str, sizes)) == text
    assert round(100 * (math.prod(sizes) - width) / width, 2) == padding
    assert numbers(sizes) == trained
    assert sum(math.prod(axis.size for axis in gate.axes) ** 2 for gate in spec.gates) == trained
    assert len(spec.warnings) == (math.prod(sizes) > width)
    assert all(f"{width} is padded to {math.prod(sizes)} ({text}): " in each.message for each in spec.warnings)
    # Vocabularies of whole layers are in reach: the older rule took 24.9 million numbers for 151936.
    assert trained < 2_200_000


@pytest.mark.parametrize("width", [13696, 32064, 151646, 151936])
def test_the_older_rule_wasted(width: int) -> None:
    assert numbers(auto_layout(width, 4, rule=1)) > 3 * numbers(auto_layout(width, 4))
