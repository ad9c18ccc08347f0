"""What a stage of the compiler holds, as text: `quanta expand --stage S`.

Legs are written `%number`, with `axis:size` where they are made; tensors of a plan `t0`, `t1`, values of a program
`v0`, `v1`. Nothing here is needed to compile.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from quanta_compiler.ir.build import build_circuit
from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.network import Network, apply_network, operator_network
from quanta_compiler.ir.parameters import matrix_shape
from quanta_compiler.lowering import program as lowered
from quanta_compiler.lowering.accounting import program_cost
from quanta_compiler.lowering.lower import lower
from quanta_compiler.lowering.program import Access, Function, Loop, Operation, Program
from quanta_compiler.lowering.slicing import made_in_loop
from quanta_compiler.lowering.table import GateTable, TableEntry, Walk, lower_table
from quanta_compiler.planner.plan import Leaf, Plan, Step
from quanta_compiler.planner.planner import plan_apply, plan_operator
from quanta_compiler.planner.published import einsum_equation
from quanta_compiler.spec.circuit_spec import CircuitSpec
from quanta_compiler.text.quantities import amount_text, bytes_text

_HOW_TO_READ = (
    "loops size*stride, the outermost first (16*256 8*4: 256 i + 4 j), "
    "over blocks and rest | rows, or columns of a gradient"
)


def circuit_text(spec: CircuitSpec) -> str:
    """Return the gates over numbered legs, in single-assignment form."""
    circuit = build_circuit(spec)
    lines = [
        f"circuit {circuit.name}: {circuit.in_features} -> {circuit.out_features} features",
        f"input {_made(circuit, circuit.inputs)}{_fitted(circuit.in_features, circuit.in_size)}",
        *(_gate_line(circuit, gate) for gate in circuit.gates),
        f"output {_used(circuit.outputs)}{_fitted(circuit.out_size, circuit.out_features)}",
    ]
    return _joined(lines)


def _fitted(before: int, after: int) -> str:
    return "" if before == after else f"  ({_boundary(before, after)})"


def _made(circuit: Circuit, legs: Sequence[int]) -> str:
    return ", ".join(f"%{leg}={circuit.legs[leg].axis}:{circuit.legs[leg].size}" for leg in legs) or "nothing"


def _used(legs: Iterable[int]) -> str:
    return ", ".join(f"%{leg}" for leg in legs) or "nothing"


def _gate_line(circuit: Circuit, gate: Gate) -> str:
    made = _used(gate.rows) if gate.rows == gate.columns else _made(circuit, gate.rows)
    matrix = f"{gate.matrix.in_words()} {_dims(matrix_shape(circuit, gate))}"
    parts = [f"{made} = {gate.name}({_used(gate.columns)})", matrix]
    if gate.per:
        parts.append(f"per {_used(gate.per)}")
    if gate.parameter != gate.name:
        parts.append(f"shares {gate.parameter}" + (" transposed" if gate.transpose else ""))
    elif gate.init is not None:
        std = "" if gate.init.std is None else f" (std {gate.init.std:g})"
        parts.append(f"init {gate.init.scheme}{std}")
    if gate.across is not None:
        parts.append(f"across {gate.across}")
    return "; ".join([*parts, "frozen"] if gate.frozen else parts)


def network_text(spec: CircuitSpec) -> str:
    """Return the tensor networks of both modes: operands with their legs, and the einsum that a report publishes."""
    circuit = build_circuit(spec)
    apply, operator = apply_network(circuit, spec.tokens), operator_network(circuit)
    batch = len(circuit.legs)
    lines = [f"legs {_made(circuit, range(batch))}", ""]
    lines += [f"forward: %{batch}=n:{spec.tokens}", *_network_lines(apply)]
    added = ", ".join(f"%{leg}={operator.sizes[leg]}" for leg in range(batch, len(operator.sizes)))
    lines += ["", f"operator: {added}" if added else "operator:", *_network_lines(operator)]
    return _joined(lines)


def _network_lines(network: Network) -> Iterator[str]:
    for operand, shape in zip(network.operands, network.shapes(), strict=True):
        yield f"  {operand.name}({_used(operand.legs)}) {_dims(shape)}"
    yield f"  -> ({_used(network.output)}) {_dims([network.sizes[leg] for leg in network.output])}"
    yield f"  einsum {einsum_equation(network)}"


def plan_text(spec: CircuitSpec) -> str:
    """Return the contraction orders of both modes, step by step, with their costs."""
    apply, operator = _programs(spec)
    return _joined([*_plan_lines(apply), "", *_plan_lines(operator)])


def _programs(spec: CircuitSpec) -> tuple[Program, Program]:
    circuit = build_circuit(spec)
    apply = lower(plan_apply(circuit, spec.tokens, spec.optimizer), circuit)
    return apply, lower(plan_operator(circuit, spec.optimizer), circuit)


def _plan_lines(program: Program) -> Iterator[str]:
    plan, loop = program.plan, program.loop
    mode = "operator: " if plan.batch is None else f"forward: {plan.tokens} tokens, "
    yield f"{mode}planned by {plan.optimizer}"
    yield f"  {plan.flops} FLOPs, {plan.sequential_flops} gate by gate"
    for place, leaf in enumerate(plan.leaves):
        yield f"  t{place} = {_leaf_name(leaf)} [{_labelled(plan, leaf.legs)}]"
    last = len(plan.leaves) + len(plan.steps) - 1
    inside = made_in_loop(plan, loop.legs, last - len(loop.ties)) if loop is not None else frozenset()
    steps = list(enumerate(plan.steps, start=len(plan.leaves)))
    lines = {place: f"t{place} = {_step_call(step)} [{_labelled(plan, sorted(step.legs))}]" for place, step in steps}
    for place, step in steps:
        if place not in inside:
            yield f"  {lines[place]} {step.flops} FLOPs"
    if loop is not None:
        yield f"  {_loop_heading(plan, loop)}"
    for place, step in steps:
        if place in inside:
            yield f"    {lines[place]} {step.flops} FLOPs in all slices"
    yield f"  -> [{_labelled(plan, plan.output)}]"


def _loop_heading(plan: Plan, loop: Loop) -> str:
    return f"in {loop.slices} slices, each of one index of {_labelled(plan, loop.legs)}:"


def _leaf_name(leaf: Leaf) -> str:
    if leaf.gate is None:
        return leaf.source
    if leaf.gate.block is not None:
        return leaf.gate.name
    factor = {"factor_b": ".B", "factor_a": ".A"}.get(leaf.source, "")
    return f"{leaf.gate.parameter}{factor}" + (" transposed" if leaf.gate.transpose else "")


def _step_call(step: Step) -> str:
    operands = ", ".join(f"t{tensor}" for tensor in step.inputs)
    if step.op == "tie":
        return f"tie({operands}; %{step.axes[0]} to %{step.axes[1]})"
    if step.op in ("reshape", "call"):
        assert step.gate is not None
        return f"{step.op}({operands}; {_used(step.axes)} to {_used(step.gate.rows)})"
    return f"{step.op}({operands})"


def _labelled(plan: Plan, legs: Iterable[int]) -> str:
    return " ".join(f"%{leg}={plan.labels[leg]}:{plan.sizes[leg]}" for leg in legs)


def program_text(spec: CircuitSpec) -> str:
    """Return the operations of both modes on contiguous values, in the order in which they run."""
    apply, operator = _programs(spec)
    lines = [*_program_lines(apply, "forward"), "", *_program_lines(operator, "operator")]
    if operator.in_slices is not None:
        lines += ["", *_program_lines(operator.in_slices, "operator, to be added to a matrix")]
    called = dict.fromkeys((*apply.functions, *operator.functions))
    for function in called:
        if isinstance(function, Function):
            program = function.program
            steps = (f"  {_operation_line(program, operation)}" for operation in program.operations)
            lines += ["", f"{function.name}: {function.about}", *steps, f"  -> v{program.output}"]
    return _joined(lines)


def _program_lines(program: Program, title: str) -> Iterator[str]:
    plan = program.plan
    cost = program_cost(program)
    yield f"{title}: {amount_text(cost.flops)} FLOPs, {bytes_text(cost.peak_bytes)} at once"
    indent = "  "
    for place, operation in enumerate(program.operations):
        if program.loop is not None and place == program.loop.first:
            yield indent + _loop_heading(plan, program.loop)
            indent += "  "
        yield f"{indent}{_operation_line(program, operation)}"
    ties = () if program.loop is None else program.loop.ties
    place_text = "".join([" to its place" if program.loop else "", *(f", where %{a} is %{b}" for a, b in ties)])
    yield f"{indent}-> v{program.output}{place_text}"


def _operation_line(program: Program, operation: Operation) -> str:
    call = _operation_call(program, operation)
    return f"v{operation.result} = {call} [{_labelled(program.plan, operation.layout)}]"


def _operation_call(program: Program, operation: Operation) -> str:
    def read(access: Access) -> str:
        groups = [" ".join(f"%{leg}" for leg in group) or "1" for group in access.groups]
        return f"v{access.value}({' | '.join(groups)})"

    match operation:
        case lowered.Load(leaf=leaf, function=function):
            return f"load {_leaf_name(leaf)}" + ("" if function is None else f", made by {function.name}")
        case lowered.Copy(source=source):
            return f"copy {read(source)}"
        case lowered.Matmul(left=left, right=right) | lowered.Multiply(left=left, right=right):
            name = type(operation).__name__.lower()
            return f"{name} {read(left)} {read(right)} {operation.flops} FLOPs, {operation.label}"
        case lowered.Resize(source=source, old_size=old, new_size=new, label=label):
            return f"resize {read(source)} {old} to {new}, {label}"
        case lowered.Call(source=source, function=function, angles=angles, first=first, flops=flops, label=label):
            by = f"blocks from {first} on" if angles is None else f"{read(angles)} {flops} FLOPs, {label}"
            return f"call {function.name} {read(source)} by {by}"
        case lowered.Split(source=source, start=start):
            return f"split {read(source)} from {start} on"
        case lowered.Turn(halves=halves, side=side, pairs=pairs, back=back):
            return f"turn {pairs} pairs of {' '.join(map(read, halves))}{' back' if back else ''}, half {side}"
        case lowered.Join(halves=halves):
            return f"join {' '.join(map(read, halves))}"
        case lowered.Tie(source=source, legs=legs):
            return f"tie {read(source)} to %{legs[0]}"
        case lowered.Pick(source=source, picked=picked, groups=groups):
            return f"pick {_used(picked)} of {read(Access(source.value, groups))}"


def table_text(spec: CircuitSpec) -> str:
    """Return the gate table: what every entry reads, and where it writes forward and backward."""
    table = lower_table(build_circuit(spec))
    figures = f"{table.in_features} -> {table.out_features} features, {table.flops_per_token} FLOPs per token"
    return _joined([f"table {spec.name}: {figures}", _HOW_TO_READ, *_table_lines(table)])


def _table_lines(table: GateTable) -> Iterator[str]:
    yield f"input {_boundary(table.in_features, table.in_size)}"
    yield f"  write {_loops(table.read)}"
    for entry in table.entries:
        parts = entry.matrix.gate.parts if entry.matrix is not None else ()
        name = f"block of {len(parts)} gates" if parts else entry.name
        yield f"{name}: {_entry_matrix(entry)}; rest {entry.rest}; {entry.flops_per_token} FLOPs"
        if parts:
            yield f"  gates {' '.join(part.name for part in parts)}"
        yield f"  write {_loops(entry.write_rest)} | {_loops(entry.write_row)}"
        yield f"  gradient {_loops(entry.grad_rest)} | {_loops(entry.grad_column)}"
    yield f"output {_boundary(table.out_size, table.out_features)}"
    yield f"  gradient {_loops(table.read_grad)}"


def _boundary(before: int, after: int) -> str:
    """Say what happens to a vector of `before` numbers where `after` are wanted."""
    return f"{before}" if before == after else f"{before} {'padded' if before < after else 'truncated'} to {after}"


def _entry_matrix(entry: TableEntry) -> str:
    """Return an entry's matrices: what they are, their shape, and whose numbers they hold if not the gate's own."""
    shape = f"[{entry.blocks}, {entry.rows}, {entry.columns}]"
    if entry.matrix is None:
        return f"slice {shape}"
    gate = entry.matrix.gate
    if gate.parts:
        return shape
    parts = [f"factor {entry.matrix.factor} {shape}" if entry.matrix.factor else f"{gate.matrix.in_words()} {shape}"]
    if gate.parameter != gate.name:
        what = f"shares {gate.parameter}" if gate.angle is None else f"angle {gate.angle} of {gate.parameter}"
        parts.append(what + (" transposed" if gate.transpose else ""))
    return "; ".join([*parts, "frozen"] if gate.frozen else parts)


def _loops(walk: Walk) -> str:
    return " ".join(f"{size}*{stride}" for size, stride in walk) or "0"


def source_text(spec: CircuitSpec) -> str:
    """Return the emitted module."""
    from quanta_compiler.emit.source import circuit_json, emit_source
    from quanta_compiler.spec import to_dict

    circuit = build_circuit(spec)
    apply, operator = _programs(spec)
    return emit_source(circuit, apply, operator, circuit_json(to_dict(spec)), program_cost(operator).peak_bytes)


def _dims(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


STAGES: dict[str, Callable[[CircuitSpec], str]] = {
    "circuit": circuit_text,
    "network": network_text,
    "plan": plan_text,
    "program": program_text,
    "table": table_text,
    "source": source_text,
}
"""Stages in the order in which a circuit passes them."""
