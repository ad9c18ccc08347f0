"""After how many gates every output can depend on every input, without the graph of networkx, which loads slowly.

The index of every leg is written in digits, and for every digit it is known what an input can make of it: anything; the
input's own digit; or, where a `slice` or a `constant` has joined digits whose radixes have nothing in common, one of a
set of joint indices. A gate that trains reaches all of what it makes, whatever it contracts. So from one input all
combinations of what its digits can be are reached, and no others.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from quanta_compiler.ir.circuit import Circuit, Gate
from quanta_compiler.ir.digits import Cluster, Codes, Digit, count_below, kept_below, split, strides_of
from quanta_compiler.ir.parameters import matrix_shape
from quanta_compiler.kinds.kind import Form
from quanta_compiler.kinds.two_design import is_power_of_two

_MOST_STEPS = 1 << 22
"""Joint indices that are looked at before the question is given up: seconds."""
_STEPS_OF_A_CHECK = 1 << 17
"""The same where the answer is only worth a warning: a tenth of a second."""
_STEPS_OF_A_SET = 8
"""What a set of joint indices takes, whatever their number."""


def gates_to_full(circuit: Circuit) -> int | None:
    """Return from how many leading gates of the file on the circuit is connected, or None where it never is.

    Connected means that every entry of the operator is nonzero for generic values of what trains: every output can
    depend on every input. A circuit with an output that is always zero, or with an input that is not read, is not
    connected, be it for its widths, a `slice` or a `constant`. Of the circuit's leading gates the whole state counts;
    after the last gate it is what is left of it at `out_features`.

    Of a `constant` only its zeros are seen, not that sums of its numbers may cancel, and of a shared rotation not that
    it may undo its owner. A `pauli` gate with wires that never turn is followed wire by wire where its size is a power
    of two; any other such gate counts as if it changed nothing, which is less than it does. Where slices and constants
    join more indices than can be followed in `_MOST_STEPS`, the circuit counts as not connected.
    """
    if circuit.in_features > circuit.in_size or circuit.out_features > circuit.out_size:
        return None
    gates = circuit.gates_in_file_order()
    reach = _Reach(circuit, _MOST_STEPS)
    since = None
    try:
        for count in range(len(gates) + 1):
            if count:
                reach.apply(gates[count - 1])
            if not (reach.is_full if count < len(gates) else reach.covers_output()):
                since = None
            elif since is None:
                since = count
    except (_InputLostError, _TooManyStepsError):
        return None
    return since


def fewest_reached(circuit: Circuit) -> int | None:
    """Return how many numbers of the last state some input reaches at most, None where every output depends on all.

    None also where that is not known, or takes long to find out, and where the widths alone keep outputs from inputs.
    """
    if circuit.in_features > circuit.in_size or circuit.out_features > circuit.out_size:
        return None
    gates = circuit.gates_in_file_order()
    turned = [matrix_shape(circuit, gate)[-2:] for gate in gates if wires_not_turned(circuit, gate)]
    if not all(is_power_of_two(max(shape)) for shape in turned):
        return None
    reach = _Reach(circuit, _STEPS_OF_A_CHECK)
    try:
        for gate in gates:
            reach.apply(gate)
        return None if reach.covers_output() else reach.fewest()
    except _InputLostError:
        return 0
    except _TooManyStepsError:
        return None


def wires_not_turned(circuit: Circuit, gate: Gate) -> tuple[int, ...]:
    """Return the bits of a gate's index that stay as they are, whatever trains: the slowest is 0."""
    return gate.matrix.still_wires(circuit.size(gate.rows), circuit.size(gate.columns))


class _InputLostError(Exception):
    """An input reaches nothing any more."""


class _TooManyStepsError(Exception):
    """Following the joint indices takes too long."""


class _Reach:
    """What can be reached by the gates applied so far."""

    def __init__(self, circuit: Circuit, most_steps: int) -> None:
        self.circuit = circuit
        self.most_steps = most_steps
        self.legs: dict[int, list[Digit]] = {}
        """For each present leg its digits, slowest first; a leg of size 1 has none."""
        self.steps = 0
        for leg in circuit.inputs:
            self.legs[leg] = self._made(leg)
        inputs = [digit for digits in self.legs.values() for digit in digits]
        for digit, stride in strides_of(inputs).items():
            digit.stride = stride

    @property
    def is_full(self) -> bool:
        """Return whether every index of the state can be reached from every input."""
        return all(digit.is_free for digits in self.legs.values() for digit in digits)

    def covers_output(self) -> bool:
        """Return whether every output, the state being cut to `out_features`, can be reached from every input."""
        width = self.circuit.out_features
        digits = [digit for leg in self.circuit.outputs for digit in self.legs[leg]]
        strides = strides_of(digits)
        for cluster in self._clusters(digit for digit in digits if not digit.is_free):
            wanted = count_below(width, [(strides[digit], digit.size) for digit in cluster.digits])
            places = [(strides[digit], digit.size, stride) for digit, stride in strides_of(cluster.digits).items()]
            for codes in cluster.reached:
                self._spend(_STEPS_OF_A_SET + len(codes))
                outputs = (sum(stride * (code // own % size) for stride, size, own in places) for code in codes)
                if sum(output < width for output in outputs) < wanted:
                    return False
        return True

    def fewest(self) -> int:
        """Return how many numbers of the state are reached from the input that reaches fewest, at most."""
        tied = (digit for leg in self.circuit.outputs for digit in self.legs[leg] if not digit.is_free)
        size = self.circuit.out_size
        return min(size // cluster.size * min(map(len, cluster.reached)) for cluster in self._clusters(tied))

    def apply(self, gate: Gate) -> None:
        """Apply a gate; raise where an input gets lost, or where that takes too many steps."""
        if gate.is_diagonal:
            return
        contracted = [digit for leg in gate.columns for digit in self.legs.pop(leg)]
        if gate.form is Form.RESHAPE:
            self.legs.update(self._read(contracted, self._sizes(gate.rows)))
        elif still := wires_not_turned(self.circuit, gate):
            self._turn(contracted, gate, still)
        elif ways := gate.matrix.ways(self.circuit.size(gate.rows), self.circuit.size(gate.columns)):
            self._move(contracted, gate, ways)
        else:
            self._forget(contracted)
            self.legs.update({leg: self._made(leg) for leg in gate.rows})

    def _forget(self, digits: list[Digit]) -> None:
        """Take digits out of their clusters: a gate that mixes has contracted them."""
        gone = set(digits)
        for cluster in {digit.cluster: None for digit in digits}:
            if cluster is not None:
                self._arrange(cluster, [digit for digit in cluster.digits if digit not in gone])

    def _turn(self, contracted: list[Digit], gate: Gate, still: tuple[int, ...]) -> None:
        """Apply a gate after which anything stands on the bits of its index but for those that stay as they are."""
        size, digits = max(matrix_shape(self.circuit, gate)[-2:]), contracted
        if is_power_of_two(size):
            wires = self._read(contracted, [(wire, 2) for wire in range(size.bit_length() - 1)])
            turning = [wire for wire in wires if wire not in still]
            self._forget([digit for wire in turning for digit in wires[wire]])
            wires.update({wire: [Digit(2)] for wire in turning})
            digits = [digit for wire in sorted(wires) for digit in wires[wire]]
        self.legs.update(self._read(digits, self._sizes(gate.rows)))

    def _made(self, leg: int) -> list[Digit]:
        size = self.circuit.legs[leg].size
        return [Digit(size)] if size > 1 else []

    def _move(self, contracted: list[Digit], gate: Gate, ways: Sequence[Sequence[int]]) -> None:
        """Apply a matrix with fixed zeros: an index goes to those rows where its column has none."""
        rows, columns = self.circuit.size(gate.rows), self.circuit.size(gate.columns)

        def moved(codes: Codes) -> Codes:
            return frozenset(code // columns * rows + row for code in codes for row in ways[code % columns])

        self.legs.update({leg: self._made(leg) for leg in gate.rows})
        made = [digit for leg in gate.rows for digit in self.legs[leg]]
        self._replace(self._joined(contracted), contracted, made, moved)

    def _sizes(self, legs: Iterable[int]) -> list[tuple[int, int]]:
        return [(leg, self.circuit.legs[leg].size) for leg in legs]

    def _read(self, before: list[Digit], places: list[tuple[int, int]]) -> dict[int, list[Digit]]:
        """Return the digits `before`, read from the fastest on as the index of places (legs, or wires) of these sizes.

        What the radixes on both sides have in common is a digit that only changes its place.
        """
        made: dict[int, list[Digit]] = {place: [] for place, _ in places}
        wanted = [(place, size) for place, size in places if size > 1]
        while before and wanted:
            common = math.gcd(before[-1].size, wanted[-1][1])
            if common == 1:
                self._regroup(before, wanted, made)
                continue
            digit, (place, size) = before.pop(), wanted.pop()
            if digit.size > common:
                high, digit = split(digit, common)
                before.append(high)
            if size > common:
                wanted.append((place, size // common))
            made[place].append(digit)
        if not all(digit.is_free for digit in before):
            # The rows end here: what is not 0 above them is dropped.
            width = math.prod(digit.size for digit in before)
            kept = kept_below(1, width, 1)
            self._replace(self._joined(before), before, [], kept)
        for place, size in wanted:
            # The columns end here: above them stands 0.
            digit = Digit(size)
            digit.cluster = Cluster([digit], {frozenset({0}): 0})
            made[place].append(digit)
        return {place: digits[::-1] for place, digits in made.items()}

    def _regroup(self, before: list[Digit], wanted: list[tuple[int, int]], made: dict[int, list[Digit]]) -> None:
        """Take digits up to where the products of both sides agree, or one side ends, and read them as one index."""
        old, new = [before.pop()], [wanted.pop()]
        columns, rows = old[0].size, new[0][1]
        while columns != rows and (before if columns < rows else wanted):
            if columns < rows:
                old.append(before.pop())
                columns *= old[-1].size
            else:
                new.append(wanted.pop())
                rows *= new[-1][1]
        digits = [Digit(size) for _, size in new]
        for (place, _), digit in zip(new, digits, strict=True):
            made[place].append(digit)
        if rows > columns or not all(digit.is_free for digit in old):
            self._replace(self._joined(old[::-1]), old, digits[::-1], kept_below(rows, columns, rows))

    def _joined(self, digits: list[Digit]) -> Cluster:
        """Return one cluster with these digits, in this order, as its fastest ones."""
        whole, *parts = self._clusters(digits) or [Cluster([], {frozenset({0}): 0})]
        for part in parts:
            whole = self._product(whole, part)
        chosen = set(digits)
        order = [*(digit for digit in whole.digits if digit not in chosen), *digits]
        if order != whole.digits:
            self._arrange(whole, order)
        return whole

    def _clusters(self, digits: Iterable[Digit]) -> list[Cluster]:
        """Return the clusters of some digits, each once; a digit without one is one by itself."""
        found: dict[Cluster, None] = {}
        for digit in digits:
            found[digit.cluster or self._alone(digit)] = None
        return list(found)

    def _alone(self, digit: Digit) -> Cluster:
        if digit.stride is None:
            self._spend(digit.size)
            return Cluster([digit], {frozenset(range(digit.size)): 0})
        self._spend(_STEPS_OF_A_SET * digit.size)
        starts = range(0, min(digit.size * digit.stride, self.circuit.in_features), digit.stride)
        return Cluster([digit], {frozenset({index}): start for index, start in enumerate(starts)})

    def _product(self, slow: Cluster, fast: Cluster) -> Cluster:
        """Return the cluster of two that do not depend on each other, but for the inputs that there are."""
        size, reached = fast.size, dict[Codes, int]()
        self._spend(len(slow.reached) * len(fast.reached))
        for high, first in slow.reached.items():
            for low, second in fast.reached.items():
                least = first + second
                if least < self.circuit.in_features:
                    self._spend(_STEPS_OF_A_SET + len(high) * len(low))
                    both = frozenset(code * size + other for code in high for other in low)
                    reached[both] = least  # no other pair makes the same set
        return Cluster([*slow.digits, *fast.digits], reached)

    def _arrange(self, cluster: Cluster, digits: list[Digit]) -> None:
        """Give a cluster some of its digits in another order, the others being whatever they may."""
        strides = strides_of(cluster.digits)
        places = [(strides[digit], digit.size) for digit in digits]

        def index(code: int) -> int:
            result = 0
            for stride, size in places:
                result = result * size + code // stride % size
            return result

        self._rewrite(cluster, digits, lambda codes: frozenset(map(index, codes)))

    def _replace(self, cluster: Cluster, old: list[Digit], new: list[Digit], image: Callable[[Codes], Codes]) -> None:
        """Put new digits in the place of a cluster's fastest ones, and the image of a set in the place of the set."""
        self._rewrite(cluster, [*cluster.digits[: len(cluster.digits) - len(old)], *new], image)

    def _rewrite(self, cluster: Cluster, digits: list[Digit], image: Callable[[Codes], Codes]) -> None:
        reached: dict[Codes, int] = {}
        for codes, least in cluster.reached.items():
            moved = image(codes)
            self._spend(_STEPS_OF_A_SET + len(codes) + len(moved))
            if not moved:
                raise _InputLostError
            reached[moved] = min(least, reached.get(moved, least))
        cluster.digits, cluster.reached = digits, reached
        size = cluster.size
        is_free = all(len(codes) == size for codes in reached)
        for digit in digits:
            digit.stride, digit.cluster = None, None if is_free else cluster

    def _spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > self.most_steps:
            raise _TooManyStepsError
