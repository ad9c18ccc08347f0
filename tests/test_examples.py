"""Every file under examples/ does what it says, as its reader would use it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import quanta_compiler as qc
from quanta_compiler.report.svg import render_svg
from quanta_compiler.spec.short_notation import preset_document
from quanta_compiler.text.quantities import amount_text, bytes_text

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "examples").glob("*.yaml"))
TOKENS = 2


def scaled_module(compiled: qc.CompiledCircuit) -> nn.Module:
    """Return the module with gates that keep the size of their input: default ones would compare zeros with zeros."""
    module = compiled.module()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    return module


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_described_and_its_module_is_its_operator(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../schemas/circuit.schema.json\n# "), "one line on it"
    compiled = qc.compile_circuit(file)
    assert compiled.spec.name == file.stem
    module = scaled_module(compiled)
    report = compiled.report
    assert report.parameters.trainable == sum(parameter.numel() for parameter in module.parameters())
    x = torch.randn(TOKENS, report.in_features, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        applied, operator = module(x), module.operator()  # type: ignore[operator]
    assert operator.shape == (report.out_features, report.in_features)
    torch.testing.assert_close(applied, x @ operator.T, rtol=1e-4, atol=1e-5 * float(applied.norm()))


def test_the_low_rank_examples_are_one_lora() -> None:
    """LoRA as one low-rank gate and as two gates through a rank axis are the same matrix for the same A and B."""
    single, bond = (
        qc.compile_circuit(ROOT / "examples" / f"{name}.yaml").module() for name in ("lora-r8", "lora-r8-bond")
    )
    a, b = torch.randn(8, 4096), torch.randn(4096, 8)
    single.load_state_dict({"gates.g0.B": b, "gates.g0.A": a})
    bond.load_state_dict({"gates.A": a, "gates.B": b})
    x = torch.randn(3, 4096)
    torch.testing.assert_close(single(x), x @ a.T @ b.T, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(bond(x), x @ a.T @ b.T, rtol=1e-4, atol=1e-3)


def test_krona_is_a_kronecker_product() -> None:
    module = scaled_module(qc.compile_circuit(ROOT / "examples" / "krona-64-64.yaml"))
    gates = module.state_dict()
    product = torch.kron(gates["gates.g0"], gates["gates.g1"])
    torch.testing.assert_close(module.operator().detach(), product)  # type: ignore[operator]


def test_the_tensor_train_is_contracted_core_by_core() -> None:
    module = scaled_module(qc.compile_circuit(ROOT / "examples" / "tensor-train-16-16-16.yaml"))
    gates = module.state_dict()
    last = gates["gates.g0"].view(16, 4, 16)  # [c', s, c]
    middle = gates["gates.g1"].view(16, 4, 16, 4)  # [b', r, b, s]
    first = gates["gates.g2"].view(16, 16, 4)  # [a', a, r]
    train = torch.einsum("xar,yrbs,zsc->xyzabc", first, middle, last).reshape(4096, 4096)
    torch.testing.assert_close(module.operator().detach(), train, rtol=1e-4, atol=1e-4)  # type: ignore[operator]


COUNTS = {
    "quantum-peft-4096": "34 + 8 + 34 = 76",
    "quantum-peft-768": "350 + 8 + 350 = 708",
    "quantum-peft-768-padded": "28 + 8 + 28 = 64",
    "quantum-peft-full-4096": "34",
    "quantum-peft-full-768": "350",
    "two-design-768": "122 + 150 = 272",
    "quanta-orthogonal-16-8-8-4": "21,280",
    "tensor-train-canonical": "4,144",
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_numbers_in_a_comment_are_those_of_the_circuit(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8")
    assert COUNTS[name] in text.split("version:")[0]
    count = qc.compile_circuit(text).report.parameters.trainable
    assert f"{count:,}" == COUNTS[name].split(" = ")[-1]


def test_orthogonal_pairs_have_half_the_numbers_of_dense_ones() -> None:
    """The dense pairs have 43,008, the circuits of few angles 96, as the comments say."""
    sides = [side * other for side, other in ((16, 8), (16, 8), (16, 4), (8, 8), (8, 4), (8, 4))]
    assert sum(side**2 for side in sides) == 43008
    assert sum(side * (side - 1) // 2 for side in sides) == 21280
    assert sum(3 * (side.bit_length() - 1) - 2 for side in sides) == 96
    compiled = qc.compile_circuit(ROOT / "examples" / "quanta-pauli-16-8-8-4.yaml")
    assert compiled.report.parameters.trainable == 96 + 16**2 + 2 * 8**2 + 4**2


def test_the_two_design_is_the_full_quantum_peft_gate_by_gate() -> None:
    """The angles of the one, in the order of its gates, are those of the other."""
    whole, pattern = (
        qc.compile_circuit(ROOT / "examples" / f"{name}.yaml").module()
        for name in ("quantum-peft-full-4096", "two-design-4096")
    )
    angles = torch.randn(34, generator=torch.Generator().manual_seed(3))
    whole.load_state_dict({"gates.g0": angles})
    pattern.load_state_dict(dict(zip(pattern.state_dict(), angles.unsqueeze(1), strict=True)))
    x = torch.randn(TOKENS, 4096, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(whole(x), pattern(x), rtol=1e-4, atol=1e-5)


def test_the_shared_mirror_is_symmetric() -> None:
    operator = scaled_module(qc.compile_circuit(ROOT / "examples" / "shared-mirror.yaml")).operator().detach()  # type: ignore[operator]
    torch.testing.assert_close(operator, operator.T, rtol=1e-4, atol=1e-4)


def test_the_training_script_trains_an_emitted_file(tmp_path: Path) -> None:
    """The script runs on a compiled file, and the circuit's loss falls where LoRA's cannot."""
    compiled = qc.compile_circuit("version: 1\nname: small\nlayout: 4x4x4\ngates: [all_pairs]\n")
    module = compiled.write(tmp_path)["py"]
    command = [sys.executable, str(ROOT / "examples" / "train.py"), str(module), "--steps", "200"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert output[0].startswith("circuit: 768 parameters    LoRA r=6: 768 parameters")
    _, circuit, lora = output[-1].split()
    assert float(circuit) < 0.2
    assert float(lora) > 0.7


def test_the_documentation_shows_what_is_compiled() -> None:
    """The picture, the forward pass and the summary are those of the example."""
    file = ROOT / "examples" / "llama2-7b-16-8-8-4.yaml"
    compiled = qc.compile_circuit(file)
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    assert file.with_suffix(".svg").read_text(encoding="utf-8") == render_svg(compiled.circuit)
    forward = compiled.source[compiled.source.index("    def forward") : compiled.source.index("    def operator")]
    assert forward.rstrip() in page
    assert amount_text(compiled.report.operator.flops) in page
    assert bytes_text(compiled.report.apply.saved_bytes_per_token) in page


def test_the_guide_to_choosing_counts_what_circuits_have() -> None:
    """The table of trained numbers, its last column being the 64 layers of 4096 features that LLaMA-2-7B has."""
    rows = re.findall(
        r"(?m)^\| `(?:-b )?([a-z]\S*)`[^|]*\| ([\d,]*) ?\| ([\d,]*) ?\| ([\d,]*) ?\|$",
        (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8"),
    )
    assert len(rows) == 9
    for source, *printed in rows:
        for width, factor, number in zip((768, 4096, 4096), (1, 1, 64), printed, strict=True):
            if number:
                file = ROOT / source if source.endswith(".yaml") else preset_document(source)
                spec = qc.load_spec(file, in_features=width)
                assert spec.in_features == spec.out_features == width
                assert int(number.replace(",", "")) == factor * sum(gate.numbers for gate in spec.gates), source
