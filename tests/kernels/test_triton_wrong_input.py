"""Where the generated kernels cannot run: one sentence, or torch in their place with the same numbers."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fused_circuits import assert_close, gradients, on_both, vectors
from interpreted_kernels import interpreter, needs_triton  # noqa: F401 - a fixture
from random_circuits import error, file_of

from quanta_compiler.driver import CompiledCircuit, compile_circuit
from quanta_compiler.kernels.engines.triton import backward, launches, plans, run
from quanta_compiler.kernels.engines.triton.kernel import Kernel, Kernels, number_for
from quanta_compiler.kernels.executable import executable

CIRCUIT = compile_circuit(file_of("3x4x2", ["all_pairs"], name="wrong"))
SEGMENTED = compile_circuit(file_of("4x4x4x4", ["all_pairs"], name="wrong-in-segments"))


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_vectors_and_gates_on_two_devices() -> None:
    here, there = CIRCUIT.module(backend="fused"), CIRCUIT.module(backend="fused", device="meta")
    x = vectors(CIRCUIT, 3, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"^the input is on cpu, the gates are on meta$"):
        there(x)
    with pytest.raises(ValueError, match=r"^the input is on meta, the gates are on cpu$"):
        here(x.to("meta"))
    with pytest.raises(ValueError, match=r"^expected \[\.\.\., 24\], got \[3, 23\]$"):
        here(x[:, 1:])


# What torch does in its place


def as_torch(circuit: CompiledCircuit, tokens: int) -> str:
    """Judge results and gradients, and return what the module says of its way."""
    plain, fused = on_both(circuit, torch.float32)
    exact, x = copy.deepcopy(plain).double(), vectors(circuit, tokens, dtype=torch.float32)
    assert error(fused(x), exact(x.double())) < 1e-6
    expected = {name: gradient.float() for name, gradient in gradients(exact, x.double()).items()}
    assert_close(gradients(fused, x), expected, 2e-6)
    said: str = fused.extra_repr()
    return said


@needs_triton
@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("room", [100, 16, 4, 3, 0])
@pytest.mark.parametrize("form", ["by stored states", "in 3 segments"])
def test_out_of_memory_makes_chunks_smaller_and_then_leaves_it_to_torch(
    form: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 tokens, with room for some at a time."""
    monkeypatch.setattr(run, "FEWEST_TOKENS", 4)
    circuit = SEGMENTED if "segments" in form else CIRCUIT
    monkeypatch.setattr(backward, "is_cheaper_in_segments", lambda *_, **__: circuit is SEGMENTED)
    launch, seen = Kernels.launch, []

    def launched(self: Kernels, what: Any, number: Any, tokens: int, *rest: Any) -> None:
        if what.kernel.keep:
            seen.append(tokens)
            if tokens > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
        launch(self, what, number, tokens, *rest)

    monkeypatch.setattr(Kernels, "launch", launched)
    monkeypatch.setattr(backward.Pass, "bytes_per_token", lambda _: 2)
    monkeypatch.setattr(run, "STORED_BYTES", 2 * 32)
    said = as_torch(circuit, 40)
    tried = list(dict.fromkeys(seen))
    assert tried == {100: [32, 8], 16: [32, 8], 4: [32, 8, 4], 3: [32, 8, 4], 0: [32, 8, 4]}[room]
    way = form if room >= 4 else "as torch does (there is no memory for the states of 4 tokens)"
    assert said.endswith(f", backward {way}")


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_no_chunk_is_tried_twice_that_has_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one of few tokens is the same as a smaller one."""
    tried = []

    def no_memory(*_: Any) -> None:
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backward.Pass, "run", no_memory)
    as_torch(CIRCUIT, 9)
    assert len(tried) == 1


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_what_fits_nowhere_runs_as_torch_does_and_the_module_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = launches.Launches._fit

    def only_forward(self: Any, *rest: Any) -> plans.Fit:
        fit = plain(self, *rest)
        return lambda kernel: fit(kernel) if kernel.title == "forward" else plans.Refusal("it spills")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_torch(CIRCUIT, 9) == "engine: triton, 1 kernel of 8 tokens, backward in 2 segments"
        monkeypatch.setattr(launches.Launches, "_fit", only_forward)
        executable.cache_clear()
        assert as_torch(CIRCUIT, 9).endswith("1 kernel of 8 tokens, backward as torch does (it spills)")
        monkeypatch.setattr(launches.Launches, "_fit", lambda *_: lambda kernel: plans.Refusal("it spills"))
        executable.cache_clear()
        said = "engine: triton, as torch does (it spills), backward as torch does (it spills)"
        assert as_torch(CIRCUIT, 9) == said


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_what_cannot_be_compiled_is_said_once_a_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: Any, number: Any, device: Any) -> plans.Fit:
        return plans.fitting(self.kernels, number, 90)

    monkeypatch.setattr(launches.Launches, "_fit", fit)
    monkeypatch.setattr(plans, "resources", lambda *_: "CompilationError: it is monday")
    executable.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            as_torch(CIRCUIT, 9)
        as_torch(compile_circuit(file_of("4x3", [[0, 1]], name="another")), 9)
    said = (
        "quanta-compiler: a circuit's kernel could not be compiled, torch computes it instead: "
        "Triton cannot compile it (CompilationError: it is monday)\n"
        "hint: QUANTA_ENGINE=portable turns kernels off without this warning"
    )
    assert [(warning.category, str(warning.message)) for warning in caught] == [(RuntimeWarning, said)] * 2


@needs_triton
@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("of", ["forward", "states", "segment", "flow"])
def test_what_cannot_be_launched_is_said_once_and_left_to_torch(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Triton counts threads or shared memory in another way than its compiler has said."""
    monkeypatch.setattr(launches, "interpreting", lambda: False)
    launch, failed = Kernels.launch, []

    def launched(self: Kernels, what: Any, *rest: Any) -> None:
        if what.kernel.title == of:
            failed.append(what)
            raise RuntimeError("out of resource: threads")
        launch(self, what, *rest)

    monkeypatch.setattr(Kernels, "launch", launched)
    monkeypatch.setattr(backward, "is_cheaper_in_segments", lambda *_, **__: of == "segment")
    circuit = compile_circuit(file_of("3x4x2", ["all_pairs"], name=f"fails-{of}"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            as_torch(circuit, 9)
    assert failed, "no such kernel was launched"
    assert len(failed) == len(set(failed)), "it is launched once"
    said = (
        "quanta-compiler: a circuit's kernel could not be launched, torch computes it instead: "
        "RuntimeError: out of resource: threads\n"
        "hint: QUANTA_ENGINE=portable turns kernels off without this warning"
    )
    assert [str(warning.message) for warning in caught if warning.category is RuntimeWarning] == [said]


@pytest.mark.parametrize("arch", [70, 88, 110])
def test_a_gpu_of_which_nothing_is_known_runs_as_torch_does(arch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the second one beside one that is known."""
    monkeypatch.setattr(launches, "arch_of", lambda _: arch)
    found = launches.Launches(executable(str(CIRCUIT.module(backend="torch").circuit)).table)
    plan = found.plan(Kernel("forward", 0, 3), number_for(torch.float32, ((), ())), torch.device("cuda", 1), 5)
    assert plan == plans.Refusal(f"the GPU is sm_{arch}, for which no kernels are made")


# What is asked of the device


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current one."""
    on: list[int] = []

    @contextlib.contextmanager
    def current(device: int) -> Iterator[None]:
        on.append(device)
        yield
        on.pop()

    launch, seen = Kernels.launch, []

    def launched(self: Kernels, *what: Any) -> None:
        seen.append(on == [what[-1][0].get_device()])
        launch(self, *what)

    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(Kernels, "launch", launched)
    as_torch(CIRCUIT, 9)
    as_torch(compile_circuit(file_of("4x4x4x4", ["all_pairs"], name="current")), 5)
    assert seen
    assert all(seen)


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_slices_are_launched_from_addresses_that_kernels_are_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton would compile a kernel anew for others, and nobody would know what that one needs."""
    seen: list[int] = []
    launch = Kernels.launch

    def launched(self: Kernels, *what: Any) -> None:
        seen.extend(tensor.data_ptr() % 16 for tensor in what[-1])
        launch(self, *what)

    monkeypatch.setattr(Kernels, "launch", launched)
    fused: Any = CIRCUIT.module(backend="fused")
    whole = torch.randn(1 + 9 * 24)
    x = whole[1:].view(9, 24).requires_grad_()
    for parameter in fused.parameters():
        held = torch.empty(1 + parameter.numel())
        held[1:] = parameter.detach().view(-1)
        parameter.data = held[1:].view(parameter.shape)
    fused(x).backward(torch.randn(1 + 9 * 24)[1:].view(9, 24))
    assert set(seen) == {0}


def test_products_are_as_exact_as_torch_is_told() -> None:
    """By the older setting, and by the newer one, after which torch refuses to say what the older is."""

    def found() -> str:
        return number_for(torch.float32, ((), ())).precision

    try:
        for precision, expected in (("high", "tf32"), ("medium", "tf32"), ("highest", "tf32x3")):
            torch.set_float32_matmul_precision(precision)
            assert found() == expected
        for precision, expected in (("tf32", "tf32"), ("ieee", "tf32x3")):
            torch.backends.cuda.matmul.fp32_precision = precision
            assert found() == expected
    finally:
        torch.set_float32_matmul_precision("highest")
