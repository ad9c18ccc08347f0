"""The closed formulas against the reports of compiled circuits, and the bounds on what a circuit can be against it."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest
import torch

from quanta_compiler.driver import compile_circuit
from quanta_compiler.ir.reach import gates_to_full
from quanta_compiler.search.front import Candidate
from quanta_compiler.search.saved import candidate_data, circuit_document, costed, read_candidate
from quanta_compiler.search.space import Layout, Space, families
from quanta_compiler.search.words import Letter, alphabet

WIDTHS = [(64, 64), (48, 24), (24, 72), (40, 64), (31, 31), (36, 30), (96, 32)]


def random_candidate(seed: int) -> tuple[Space, Candidate]:
    """Return any circuit of a space, equal gates and idle axes included."""
    generator = random.Random(seed)
    widths = generator.choice(WIDTHS)
    space = Space(*widths, axes=(1, 4), gate_axes=(1, 2, 3), ranks=(1, 2))
    while True:
        family = generator.choice(families(space))
        letters = alphabet(family.labels, space.gate_axes, space.ranks).letters
        layout = generator.choice(family.layouts)
        gates = [generator.choice(letters) for _ in range(generator.randint(1, 5))]
        changed = layout.changed_axis
        small = min(*layout.before, *layout.after)
        touched = changed is None or any(changed in gate.axes for gate in gates)
        if touched and all(gate.rank <= small for gate in gates):
            return space, costed(space, layout, gates)


@pytest.mark.parametrize("seed", range(40))
def test_the_figures_are_those_of_the_report(seed: int) -> None:
    space, candidate = random_candidate(seed)
    compiled = compile_circuit(circuit_document(space, candidate))
    report, figures = compiled.report, candidate.figures
    assert figures.parameters == report.parameters.trainable
    assert figures.flops_per_token == report.apply.sequential_flops_per_token
    assert (figures.rank_lower, figures.rank_upper) == (report.rank.lower, report.rank.upper)
    assert candidate.order.operator_flops == report.operator.sequential_flops
    assert candidate.order.gates_to_full == gates_to_full(compiled.circuit)
    # Plans never cost more, but for what they keep of matrices, which no batch makes larger.
    matrices = 8 * figures.parameters * len(candidate.gates)
    tokens = report.apply.planned_tokens
    assert report.apply.saved_bytes_per_token * tokens <= figures.saved_bytes_per_token * tokens + matrices
    if report.apply.optimizer == "sequential" and len(candidate.gates) > 1:
        kept = (figures.saved_bytes_per_token - report.apply.saved_bytes_per_token) * tokens
        assert abs(kept) <= matrices


@pytest.mark.parametrize("seed", range(12))
def test_a_candidate_is_read_back_as_it_was(seed: int) -> None:
    space, candidate = random_candidate(seed)
    assert read_candidate(space, candidate_data(candidate)) == candidate


def small_candidate(seed: int) -> tuple[Space, Candidate]:
    """Return a circuit of a space: none in which two gates are one."""
    generator = random.Random(seed)
    before, after = generator.choice(
        [((2, 2, 2),) * 2, ((3, 2, 2),) * 2, ((4, 2),) * 2, ((2, 2, 2, 2),) * 2, ((4, 2, 2), (2, 2, 2))]
    )
    letters = alphabet(tuple(range(len(before))), (1, 2), (1,))
    while True:
        node = letters.root
        for _ in range(generator.randint(1, 4)):
            children = (letters.grown(node, letter) for letter in range(len(letters.letters)))
            node = generator.choice([child for child in children if child is not None] or [node])
        gates = [letters.letters[letter] for letter in node.word]
        if before == after or any(0 in gate.axes for gate in gates):
            space = Space(math.prod(before), math.prod(after))
            return space, costed(space, Layout(before, after), gates)


@pytest.mark.parametrize("seed", range(10))
def test_freedom_and_mixing_bound_what_random_gates_make(seed: int) -> None:
    space, candidate = small_candidate(seed)
    module = compile_circuit(circuit_document(space, candidate)).module(seed=seed, dtype=torch.float64, backend="torch")
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    operator = module.operator()  # type: ignore[operator]
    rows = [torch.autograd.grad(one, list(module.parameters()), retain_graph=True) for one in operator.flatten()]
    jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    assert int(torch.linalg.matrix_rank(jacobian, rtol=1e-9)) <= candidate.figures.freedom
    before, after = candidate.layout.before, candidate.layout.after
    tensor = operator.detach().reshape(*after, *before)
    axes = len(before)
    shares = []
    for count in range(1, axes):
        for group in combinations(range(axes), count):
            rest = [axis for axis in range(axes) if axis not in group]
            order = [*group, *(axes + axis for axis in group), *rest, *(axes + axis for axis in rest)]
            size = math.prod(before[axis] * after[axis] for axis in group)
            split = tensor.permute(order).reshape(size, -1)
            products = int(torch.linalg.matrix_rank(split, rtol=1e-9))
            shares.append(math.log(products) / math.log(min(split.shape)))
    assert min(shares, default=1.0) <= candidate.figures.mixing + 1e-6


def test_freedom_is_the_number_of_directions_where_gates_are_generic() -> None:
    space = Space(8, 8)
    chain = costed(space, Layout((2, 2, 2), (2, 2, 2)), [Letter((0, 1), 0), Letter((1, 2), 0)])
    # 16 + 16, less an invertible 2 x 2 matrix between the two, whose scale is that of the gates.
    assert chain.figures.freedom == 32 - 4
    kronecker = costed(space, Layout((4, 2), (4, 2)), [Letter((0,), 0), Letter((1,), 0)])
    assert kronecker.figures.freedom == 16 + 4 - 1
    assert kronecker.figures.mixing == 0
    lora = costed(space, Layout((8,), (8,)), [Letter((0,), 2)])
    assert lora.figures.freedom == 2 * 16 - 4
    for candidate in (chain, kronecker, lora):
        module = compile_circuit(circuit_document(space, candidate)).module(dtype=torch.float64, backend="torch")
        rows = [
            torch.cat(
                [part.flatten() for part in torch.autograd.grad(one, list(module.parameters()), retain_graph=True)]
            )
            for one in module.operator().flatten()  # type: ignore[operator]
        ]
        assert int(torch.linalg.matrix_rank(torch.stack(rows), rtol=1e-9)) == candidate.figures.freedom


@pytest.mark.parametrize("seed", range(10))
def test_every_axis_depends_on_every_axis_as_the_graph_says(seed: int) -> None:
    from connectivity import connectivity

    from quanta_compiler.ir.graph import contraction_graph

    space, candidate = small_candidate(seed)
    circuit = compile_circuit(circuit_document(space, candidate)).circuit
    depends = connectivity(contraction_graph(circuit)).depends
    is_mixed = all(len(sources) == len(candidate.layout.before) for sources in depends.values())
    assert (candidate.order.gates_to_mix is not None) == is_mixed
