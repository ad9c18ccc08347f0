"""The update of a layer's weight that a saved adapter is, and its singular values.

Everything is computed in float64: T - S of a short training is far smaller than T, and rounding T in float32 would be
noise of full rank.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from quanta_compiler.adapters.network import factors, network_of, waist_of
from quanta_compiler.adapters.paper_keys import natural_key
from quanta_compiler.adapters.tensor_file import TensorFile
from quanta_compiler.diagnostics import Diagnostic, SpecError, problem, refusal
from quanta_compiler.ir.build import build_circuit
from quanta_compiler.nn import FittedCircuit
from quanta_compiler.text.words import some_of

Decomposition = tuple[torch.Tensor, torch.Tensor]
"""All singular values in descending order, `[min(in, out)]`, and right singular vectors, `[in_features, count]`.

At most as many vectors as are asked for; in float64 on the CPU.
"""


@dataclass(frozen=True, slots=True)
class FactoredUpdate:
    """LoRA's update: `scale * left @ right`, `[out, r]` and `[r, in]`."""

    left: torch.Tensor
    right: torch.Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Return `(out_features, in_features)`."""
        return self.left.shape[0], self.right.shape[1]

    def matrix(self, device: torch.device) -> torch.Tensor:
        """Return the update in float64."""
        return self.scale * (self.left.to(device, torch.float64) @ self.right.to(device, torch.float64))

    def decompose(self, vectors: int, device: torch.device) -> Decomposition:
        """Return singular values and right vectors by way of the factors: the matrix itself is never made.

        With B = Q R and A^T = P L, the update is Q (scale R L^T) P^T; only what stands in the middle is decomposed.
        """
        _, upper = torch.linalg.qr(self.left.to(device, torch.float64))  # [out, r] -> [p, r]
        basis, lower = torch.linalg.qr(self.right.to(device, torch.float64).T)  # [in, r] -> [in, q], [q, r]
        _, values, right = torch.linalg.svd(self.scale * upper @ lower.T, full_matrices=False)
        padded = torch.zeros(min(self.shape), dtype=torch.float64)
        padded[: len(values)] = values.cpu()
        return padded, (basis @ right[:vectors].T).cpu()


@dataclass(frozen=True, slots=True)
class CircuitUpdate:
    """A circuit's update: `scale * (T - S)`, S a frozen copy or the identity, or `scale * T` where there is no S.

    Of a circuit before or behind the layer it is what the layer's input or output is changed by.
    """

    circuit: FittedCircuit
    trained: Mapping[str, torch.Tensor]
    """All tensors of T by name."""
    frozen: Mapping[str, torch.Tensor] | None
    """All tensors of S by name."""
    scale: float
    is_from_identity: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Return `(out_features, in_features)`."""
        return self.circuit.out_features, self.circuit.in_features

    def matrix(self, device: torch.device) -> torch.Tensor:
        """Return the update in float64: made block by block."""
        matrix = torch.zeros(self.shape, dtype=torch.float64, device=device)
        for sign, tensors in ((1.0, self.trained), (-1.0, self.frozen)):
            if tensors is not None:
                moved = {name: tensor.to(device) for name, tensor in tensors.items()}
                for place, block in self.circuit.operator_blocks(moved, dtype=torch.float64, device=device):
                    matrix[place].add_(block, alpha=sign)
        if self.is_from_identity:
            matrix.diagonal().sub_(1)
        return self.scale * matrix

    def factored(self, device: torch.device) -> FactoredUpdate | None:
        """Return the update as a product of two thin factors, those of T beside those of S; None where they are none.

        A circuit is so where its state is narrow between two gates, or within a low-rank one: B A, U diag(s) V^T, two
        tensor trains that hand on a rank.
        """
        filled = [(sign, one) for sign, one in ((1.0, self.trained), (-1.0, self.frozen)) if one is not None]
        waist = waist_of(build_circuit(self.circuit.spec))
        if waist is None or self.is_from_identity or len(filled) * waist.width >= min(self.shape):
            return None
        parts = [(sign, *factors(network_of(self.circuit.spec, one, device), waist)) for sign, one in filled]
        left, right = torch.cat([sign * one for sign, one, _ in parts], 1), torch.cat([one for _, _, one in parts])
        return FactoredUpdate(left, right, self.scale)

    def squared_norm(self, device: torch.device) -> float:
        """Return the squared Frobenius norm of the update."""
        thin = self.factored(device)
        return float(
            self.matrix(device).square().sum() if thin is None else thin.decompose(0, device)[0].square().sum()
        )

    def decompose(self, vectors: int, device: torch.device) -> Decomposition:
        """Return singular values and right vectors by way of thin factors, or of the matrix where there are none.

        The matrix M is decomposed by the eigenvalues of the smaller of M M^T and M^T M. In float64 that resolves
        singular values down to 1.5e-8 sqrt(n) of the largest, an eighth or less of what the numerical rank counts as
        zero, in a fraction of the time of a full decomposition.
        """
        thin = self.factored(device)
        if thin is not None:
            return thin.decompose(vectors, device)
        matrix = self.matrix(device)
        is_wide = matrix.shape[0] < matrix.shape[1]
        gram = matrix @ matrix.T if is_wide else matrix.T @ matrix
        if vectors == 0:
            values = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()
            return values.cpu(), torch.zeros(self.shape[1], 0, dtype=torch.float64)
        squares, basis = torch.linalg.eigh(gram)
        values = squares.flip(0).clamp(min=0).sqrt()
        first = basis.flip(1)[:, : min(vectors, len(values))]
        if is_wide:
            # V = M^T U / s; a vector of a value that is zero means nothing, and is left zero.
            first = matrix.T @ (first / values[: first.shape[1]].clamp(min=torch.finfo(torch.float64).tiny))
        return values.cpu(), first.cpu()


Update = FactoredUpdate | CircuitUpdate
"""The update `W' - W` of one layer, `[out_features, in_features]`."""
_Made = TypeVar("_Made", bound=Update)


def none_found(name: str, layers: re.Pattern[str], known: Collection[str]) -> SpecError:
    """Return the error to raise where `--layers` finds something in no layer's name."""
    return refusal(name, f"--layers {layers.pattern!r} finds none of its layers: {some_of(list(known))}")


def layer_updates(
    file: TensorFile,
    keys: re.Pattern[str],
    layers: re.Pattern[str] | None,
    make: Callable[[str, Mapping[str, torch.Tensor]], _Made],
    hint: str,
) -> dict[str, _Made]:
    """Return the updates of those layers whose name `layers` finds something in, sorted by name, numbers counted.

    `keys` matches the keys of an adapter's tensors, with the groups `layer` and `part`; `make` gets a layer's name and
    its tensors by part, and raises ValueError or SpecError where they are no update; `hint` says what to do then.

    Raises:
        SpecError: no layer is left, a tensor cannot be read, or `make` refuses a layer; all of these are named.

    """
    found = [(match, key) for key in file.shapes if (match := keys.fullmatch(key))]
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for match, key in found:
        if layers is None or layers.search(match["layer"]):
            parts.setdefault(match["layer"], {})[match["part"]] = file.read(key)
    if not parts:
        if layers is None or not found:
            raise refusal(file.name, "it holds no adapted layer", hint="restore the file that was saved")
        known = sorted({match["layer"] for match, _ in found}, key=natural_key)
        raise none_found(file.name, layers, known)
    updates: dict[str, _Made] = {}
    problems: list[Diagnostic] = []
    for layer in sorted(parts, key=natural_key):
        try:
            updates[layer] = make(layer, parts[layer])
        except (ValueError, SpecError) as error:
            problems.append(problem(file.name, str(error), place=layer, hint=hint))
    if problems:
        raise SpecError(problems)
    return updates
