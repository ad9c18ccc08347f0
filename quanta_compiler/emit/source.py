"""Programs -> the source of a module: one class, torch alone, the same bytes everywhere.

No text of a circuit file reaches the source except as an identifier that the spec stage has checked, or as an escaped
literal.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence

from quanta_compiler.emit.body import WIDTH, Body
from quanta_compiler.emit.computed import Names, stored_name
from quanta_compiler.emit.operator import OperatorLines
from quanta_compiler.emit.rotations import function_names, helper_lines
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.parameters import Stored, all_stored, drawing, matrix_shape
from quanta_compiler.kinds.initialisers import INITIALISERS
from quanta_compiler.kinds.kind import Form
from quanta_compiler.lowering.accounting import copies_input
from quanta_compiler.lowering.program import Load, Program
from quanta_compiler.spec.files import SEAL

GUARDED_BYTES = 1 << 30
"""An operator that needs more looks at the free memory first; below that the check would only be noise."""


def emit_source(circuit: Circuit, apply: Program, operator: Program, circuit_text: str, peak_bytes: int) -> str:
    """Return the source of a circuit's module; `peak_bytes` is what `operator()` needs in float32."""
    emitter = _Emitter(circuit, apply, operator, circuit_text, peak_bytes)
    body = "\n".join(line.rstrip() for line in emitter.lines()) + "\n"
    return f"{SEAL}{_digest(body)}\n{body}"


def is_unedited(source: str) -> bool:
    """Return whether a source is, byte for byte, one that `emit_source` has written."""
    first, _, body = source.partition("\n")
    return first == SEAL + _digest(body)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8")).hexdigest()


class _Emitter:
    def __init__(self, circuit: Circuit, apply: Program, operator: Program, circuit_text: str, peak_bytes: int) -> None:
        self.circuit = circuit
        self.apply = apply
        self.circuit_text = circuit_text
        self.is_guarded = peak_bytes > GUARDED_BYTES
        self.gates = circuit.gates_in_file_order()
        self.stored = all_stored(circuit)
        self.constants = [gate for gate in self.gates if gate.matrix.given is not None]
        # A large operator has its program twice: in slices, and at once.
        programs = [apply, operator, operator.at_once, operator.in_slices]
        self.names = Names(
            shapes={stored_name(stored.key): stored.shape for stored in self.stored}
            | {f"self.constant_{gate.name}": matrix_shape(circuit, gate) for gate in self.constants},
            axes_of={gate.name: self._axes(gate) for gate in self.gates},
            functions=function_names([program for program in programs if program is not None]),
            like=stored_name(self.stored[0].key) if self.stored else "self.one",
        )
        self.operator = OperatorLines(circuit, operator, self.names, peak_bytes if self.is_guarded else None)
        self.has_bits = any(leaf.gate is not None and leaf.gate.block is not None for leaf in operator.plan.leaves)
        self.uses_one = (not self.stored and any(gate.form is Form.SIGNS for gate in self.gates)) or any(
            isinstance(operation, Load) and operation.leaf.source == "one" for operation in operator.operations
        )
        self.is_bare = not self.stored and (self.uses_one or bool(self.constants))
        """Whether there is no parameter to tell the device and the dtype of what the file fixes."""

    def lines(self) -> Iterator[str]:
        yield from self._header()
        yield from ["import torch", "", "", "class Circuit(torch.nn.Module):"]
        yield from _indent(self._class_body())

    def _header(self) -> Iterator[str]:
        circuit, tokens = self.circuit, self.apply.plan.tokens
        layout = " x ".join(str(circuit.legs[leg].size) for leg in circuit.inputs)
        trainable = sum(stored.numbers for stored in self.stored if not stored.gate.frozen)
        digest = hashlib.sha256(self.circuit_text.encode("utf-8")).hexdigest()[:16]
        yield f'"""Circuit {circuit.name}: {circuit.in_features} -> {circuit.out_features} features.'
        yield ""
        gates = "1 gate" if len(self.gates) == 1 else f"{len(self.gates)} gates"
        yield f"Layout {layout}, {gates}, {trainable} trainable parameters; circuit {digest}."
        yield f"Planned for {tokens} tokens a batch: any other batch gives the same result, if not at the least cost."
        yield "In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;"
        ending = ", and `axis.0-3:16` are bits of its index." if self.has_bits else "."
        yield f"in `operator`, `axis'` is the input side of an axis{ending}"
        yield '"""'
        yield ""

    def _class_body(self) -> Iterator[str]:
        circuit = self.circuit
        yield f'"""Maps [..., {circuit.in_features}] to [..., {circuit.out_features}]."""'
        yield ""
        yield f"in_features: int = {circuit.in_features}"
        yield f"out_features: int = {circuit.out_features}"
        yield "circuit: str = ("
        text, step = self.circuit_text, WIDTH - 12
        yield from (f"    {text[start : start + step]!a}" for start in range(0, len(text), step))
        yield ")"
        yield '"""The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""'
        if self.is_bare:
            yield "like: torch.Tensor"
        yield ""
        yield from self._constructor()
        yield ""
        yield from reset_lines(self.stored)
        like = "self.like" if self.is_bare else f"self.{stored_name(self.stored[0].key)}" if self.stored else ""
        yield from constant_lines(self.circuit, self.constants, like, uses_one=self.uses_one)
        if self.is_bare:
            yield ""
            yield "def _load_from_state_dict(self, *args: object) -> None:"
            yield "    # From the meta device parameters are replaced by those that are loaded; here there are none."
            yield "    super()._load_from_state_dict(*args)"
            yield "    if self.like.is_meta:"
            yield '        self.like = torch.empty(0, dtype=self.like.dtype, device="cpu")'
        yield ""
        yield from self._forward()
        yield ""
        yield from self.operator.method()
        # torch lists a module's own tensors before nested ones.
        nested = [stored.gate.form is Form.FACTORS for stored in self.stored]
        if nested != sorted(nested):
            yield ""
            yield from self._ordered_state_dict()
        if self.is_guarded:
            yield ""
            yield from _memory_guard()
        made = {gate.kind: gate.matrix.made(*matrix_shape(circuit, gate)[-2:]) for gate in self.gates}
        texts = {kind: one.text for kind, one in made.items() if one is not None and one.text is not None}
        yield from helper_lines(self.names.helpers, self.names.functions, texts)
        slices = list(self.operator.slices_class())
        yield from ["", *slices] if slices else []

    def _constructor(self) -> Iterator[str]:
        yield (
            "def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:"
        )
        yield '    """Make the parameters and draw them from torch\'s global generator."""'
        yield "    super().__init__()"
        yield "    self.gates = torch.nn.ParameterDict()"
        if self.stored:
            yield "    gates = self.gates"
        opened = ""
        for stored in self.stored:
            gate = stored.gate
            if gate.form is Form.FACTORS and opened != gate.name:
                opened = gate.name
                yield f"    {stored_name(gate.name)} = torch.nn.ParameterDict()"
            shape = ", ".join(str(size) for size in stored.shape)
            new = f"torch.empty({shape}, device=device, dtype=dtype)"
            frozen = ", requires_grad=False" if gate.frozen else ""
            yield f"    # {self.names.axes_of[gate.name]}"
            yield f"    {stored_name(stored.key)} = torch.nn.Parameter({new}{frozen})"
        if self.is_bare:
            yield "    # No numbers: nothing is stored that has a device and a dtype."
            yield '    self.register_buffer("like", torch.empty(0, device=device, dtype=dtype), persistent=False)'
        if self.constants or self.uses_one:
            yield "    self._kept: dict[str, torch.Tensor] = {}"
        yield "    self.reset_parameters()"

    def _axes(self, gate: Gate) -> str:
        legs = self.circuit.legs

        def axes(of: tuple[int, ...]) -> str:
            return ", ".join(f"{legs[leg].axis}:{legs[leg].size}" for leg in of) or "nothing"

        changed = f" -> {axes(gate.rows)}" if axes(gate.rows) != axes(gate.columns) else ""
        per = f" per {axes(gate.per)}" if gate.per else ""
        return f"{gate.kind} on {axes(gate.columns)}{changed}{per}"

    def _forward(self) -> Iterator[str]:
        circuit = self.circuit
        yield "def forward(self, x: torch.Tensor) -> torch.Tensor:"
        yield f'    """Apply the circuit: [..., {circuit.in_features}] -> [..., {circuit.out_features}]."""'
        yield f"    if x.shape[-1:] != ({circuit.in_features},):"
        message = f"expected [..., {circuit.in_features}], got "
        yield f'        raise ValueError(f"{message}{{list(x.shape)}}")'
        if self.stored:
            yield "    gates = self.gates"
        yield "    lead = x.shape[:-1]"
        yield f"    x = x.reshape(-1, {circuit.in_features}).contiguous()"
        yield "    n = x.shape[0]"
        if circuit.in_features > circuit.in_size:
            yield f"    x = x[:, :{circuit.in_size}].contiguous()  # the circuit's first inputs"
        if circuit.in_features < circuit.in_size:
            missing = circuit.in_size - circuit.in_features
            yield f"    x = torch.nn.functional.pad(x, (0, {missing}))  # zeros behind, to the circuit's width"
        lines, result = Body(self.apply, self.names).whole(f"n, {self.apply.out_size}")
        yield from lines
        if circuit.out_features < circuit.out_size:
            yield f"    {result} = {result}[:, :{circuit.out_features}].contiguous()  # the circuit's first outputs"
        if circuit.out_features > circuit.out_size:
            missing = circuit.out_features - circuit.out_size
            yield f"    {result} = torch.nn.functional.pad({result}, (0, {missing}))  # zeros behind"
        copied = ".clone()  # never memory of the input" if copies_input(self.apply) else ""
        yield f"    return {result}.view(*lead, {circuit.out_features}){copied}"

    def _ordered_state_dict(self) -> Iterator[str]:
        yield "def _save_to_state_dict(self, destination: dict[str, object], prefix: str, keep_vars: bool) -> None:"
        yield "    # torch lists a container's own tensors before nested ones; the file's order is reserved here."
        keys = ", ".join(f'"{stored.key}"' for stored in self.stored)
        yield f"    for key in ({keys}):"
        yield '        destination[f"{prefix}gates.{key}"] = None'
        yield "    super()._save_to_state_dict(destination, prefix, keep_vars)"


def _memory_guard() -> Iterator[str]:
    yield "def _require_memory(self, numbers: int) -> None:"
    yield '    """Raise MemoryError where the matrix and what it is made from need over half of the free memory."""'
    yield "    example = next(iter([*self.parameters(), *self.buffers()]))"
    yield "    needed, free = numbers * example.element_size(), None"
    yield '    if example.device.type == "cuda":'
    yield "        free = torch.cuda.mem_get_info(example.device)[0]"
    yield '    elif example.device.type == "cpu":'
    yield "        try:"
    yield '            with open("/proc/meminfo", encoding="ascii") as lines:'
    yield '                available = next(line for line in lines if line.startswith("MemAvailable"))'
    yield "            free = int(available.split()[1]) * 1024"
    yield "        except (OSError, StopIteration):"
    yield "            pass  # not Linux: the allocation itself will tell"
    yield "    if free is not None and needed > free // 2:"
    yield '        raise MemoryError(f"operator() needs {needed} bytes, over half of the {free} that are free")'


def _indent(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield f"    {line}" if line else ""


def circuit_json(data: dict[str, object]) -> str:
    """Return a circuit file's data as the JSON text that a module carries."""
    return json.dumps(data, ensure_ascii=True, separators=(", ", ": "))


def reset_lines(stored: Sequence[Stored]) -> Iterator[str]:
    """Yield the method: parameters are drawn in float32 on the CPU, in the order of the file, then cast."""
    yield "@torch.no_grad()"
    yield "def reset_parameters(self, generator: torch.Generator | None = None) -> None:"
    yield '    """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""'
    yield "    if any(parameter.is_meta for parameter in self.parameters()):"
    yield "        return"
    if stored:
        yield "    gates = self.gates"
    used = []
    for tensor in stored:
        scheme, drawn = drawing(tensor)
        used.append(scheme)
        yield f"    {INITIALISERS[scheme].call(stored_name(tensor.key), drawn)}"
    for method in dict.fromkeys(row.method for scheme, row in INITIALISERS.items() if scheme in used and row.method):
        yield ""
        yield from method


def constant_lines(circuit: Circuit, constants: Sequence[Gate], like: str, *, uses_one: bool) -> Iterator[str]:
    """Yield properties for what no state dict holds: no buffers, which others would move, or fill with noise.

    `like` is a tensor that has the device and the dtype of the module.
    """
    for gate in constants:
        assert gate.matrix.given is not None
        yield from ["", "@property", f"def constant_{gate.name}(self) -> torch.Tensor:"]
        yield f'    """What the file gives for {gate.name}, {list(matrix_shape(circuit, gate))}."""'
        yield "    rows = ("
        for row in gate.matrix.given:
            yield f"        {tuple(map(float, row))!r},"
        yield "    )"
        yield f'    return self._constant("constant_{gate.name}", rows)'
    if uses_one:
        yield from ["", "@property", "def one(self) -> torch.Tensor:"]
        yield '    """What an identity is made from."""'
        yield '    return self._constant("one", 1.0)'
    if constants or uses_one:
        yield ""
        yield from _constant_method(like)


def _constant_method(like: str) -> Iterator[str]:
    yield "def _constant(self, name: str, values: tuple[tuple[float, ...], ...] | float) -> torch.Tensor:"
    yield '    """Return values with the dtype and on the device of the parameters, where they are now."""'
    yield f"    like: torch.Tensor = {like}"
    yield "    kept, is_plain = self._kept.get(name), type(like) in (torch.Tensor, torch.nn.Parameter)"
    yield "    if is_plain and kept is not None and kept.dtype == like.dtype and kept.device == like.device:"
    yield "        return kept"
    yield "    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():"
    yield "        return torch.tensor(values, dtype=like.dtype, device=like.device)"
    yield "    with torch.inference_mode(False):"
    yield "        made = torch.tensor(values, dtype=like.dtype, device=like.device)"
    yield "    if type(made) is torch.Tensor:"
    yield "        self._kept[name] = made  # for the next call, which may be in any mode"
    yield "    return made"
