"""Rotations as torch computes them: a gate's matrix from its numbers.

Emitted files contain these functions, word for word, as static methods of their class (emit/rotations.py reads this
file as text), so they use nothing but torch and the functions above them.
"""

import torch


def ry(angles: torch.Tensor) -> torch.Tensor:
    """Return rotations of a plane by half of every angle: [numbers] -> [numbers, 2, 2]."""
    half = angles / 2
    cos, sin = torch.cos(half), torch.sin(half)
    return torch.stack([cos, -sin, sin, cos], dim=-1).view(-1, 2, 2)


def cz(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return ones [rows, columns], the last of them -1."""
    return torch.nn.functional.pad(like.new_full((1, 1), -1.0), (columns - 1, 0, rows - 1, 0), value=1.0)


def eye(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return an identity matrix, or its first rows or columns."""
    return torch.eye(rows, columns, dtype=like.dtype, device=like.device)


def lie(numbers: torch.Tensor, size: int, columns: int) -> torch.Tensor:
    """Return the numbers below the diagonal of some columns: [..., numbers] -> [..., size, columns]."""
    column, row = torch.triu_indices(columns, size, 1, device=numbers.device)
    lower = numbers.new_zeros(*numbers.shape[:-1], size, columns)
    lower[..., row, column] = numbers
    return lower


def skew(lower: torch.Tensor) -> torch.Tensor:
    """Return S = A - A^T, A having zeros behind the given columns: [..., n, k] -> [..., n, n]."""
    size, columns = lower.shape[-2:]
    whole = torch.nn.functional.pad(lower, (0, size - columns))
    return whole - whole.mT


def factors(lower: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return U, V and V^T U with S = U V^T: [..., n, k] -> [..., n, 2k], [..., n, 2k], [..., 2k, 2k]."""
    first = eye(lower, *lower.shape[-2:]).expand_as(lower)
    # S does not depend on this number, which keeps both sides of one size.
    scale = torch.linalg.matrix_norm(lower.detach(), keepdim=True).clamp_min(1.0).sqrt()
    left = torch.cat([lower / scale, -scale * first], dim=-1)
    right = torch.cat([scale * first, lower / scale], dim=-1)
    return left, right, right.mT @ left


def is_for_onnx() -> bool:
    """Say whether torch.onnx traces: ONNX knows neither matrix exponentials nor linear systems."""
    return torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export()


def matrix_exp(matrix: torch.Tensor) -> torch.Tensor:
    """Return exp(A); for ONNX by products, exp(A) = exp(A / 2^16)^(2^16), the inner one by its series."""
    if not is_for_onnx():
        whole: torch.Tensor = torch.linalg.matrix_exp(matrix)
        return whole
    one = eye(matrix, *matrix.shape[-2:])
    part, result = matrix / 2**16, one
    for term in range(12, 0, -1):
        result = one + part @ result / term
    for _ in range(16):
        result = result @ result
    return result


def solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return A^-1 B; for ONNX by Newton's iteration for the inverse, X <- X (2 - A X), in float64."""
    if not is_for_onnx():
        found: torch.Tensor = torch.linalg.solve(matrix, right)
        return found
    precise = matrix.double()
    rows, columns = precise.abs().sum(-1), precise.abs().sum(-2)
    bound = rows.amax(-1) * columns.amax(-1)
    inverse = precise.mT / bound[..., None, None]
    for _ in range(40):
        inverse = 2 * inverse - inverse @ (precise @ inverse)
    return (inverse @ right.double()).to(right.dtype)


def solve_triangular(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return A^-1 B of an upper triangle A; ONNX does not know that either."""
    if is_for_onnx():
        return solve(matrix, right)
    found: torch.Tensor = torch.linalg.solve_triangular(matrix, right, upper=True)
    return found


def exponential(numbers: torch.Tensor, size: int, columns: int, kept: int) -> torch.Tensor:
    """Return the first columns of exp(S), S skew-symmetric: [..., numbers] -> [..., size, columns]."""
    with torch.autocast(numbers.device.type, enabled=False):
        # In float32 an exponential is orthogonal to five digits only.
        lower = lie(numbers if numbers.device.type == "mps" else numbers.double(), size, kept)
        if 2 * kept >= size:
            return matrix_exp(skew(lower))[..., :columns].to(numbers.dtype).contiguous()
        # exp(U V^T) = I + U f(V^T U) V^T with f(z) = (exp(z) - 1) / z, a corner of exp([[z, I], [0, 0]]).
        left, right, inner = factors(lower)
        beside = torch.cat([inner, eye(lower, 2 * kept, 2 * kept).expand_as(inner)], dim=-1)
        corner = matrix_exp(torch.nn.functional.pad(beside, (0, 0, 0, 2 * kept)))
        function = corner[..., : 2 * kept, 2 * kept :]
        update = left @ (function @ right[..., :columns, :].mT)
        return (eye(lower, size, columns) + update).to(numbers.dtype)


def cayley(numbers: torch.Tensor, size: int, columns: int, kept: int) -> torch.Tensor:
    """Return the first columns of (I - S/2)^-1 (I + S/2), S skew-symmetric: [..., numbers] -> [..., size, columns]."""
    with torch.autocast(numbers.device.type, enabled=False):
        lower = lie(numbers.to(torch.promote_types(numbers.dtype, torch.float32)), size, kept)
        if 2 * kept >= size:
            half, one = skew(lower) / 2, eye(lower, size, size)
            return solve(one - half, (one + half)[..., :columns]).to(numbers.dtype).contiguous()
        # The same matrix is I + U (I - V^T U / 2)^-1 V^T with S = U V^T.
        left, right, inner = factors(lower)
        one = eye(lower, 2 * kept, 2 * kept)
        inverse = solve(one - inner / 2, right[..., :columns, :].mT)
        return (eye(lower, size, columns) + left @ inverse).to(numbers.dtype)


def sides(lower: torch.Tensor, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return U, the first columns of V^T, and V^T U with S = U V^T; U = S and V = I where that is no larger."""
    size, kept = lower.shape[-2:]
    if 2 * kept >= size:
        whole = skew(lower)
        return whole, eye(lower, size, columns), whole
    left, right, inner = factors(lower)
    return left, right[..., :columns, :].mT, inner


def taylor(numbers: torch.Tensor, size: int, columns: int, kept: int, order: int) -> torch.Tensor:
    """Return the first columns of I + S + S^2/2 + ... + S^order/order!: [..., numbers] -> [..., size, columns]."""
    with torch.autocast(numbers.device.type, enabled=False):
        lower = lie(numbers.to(torch.promote_types(numbers.dtype, torch.float32)), size, kept)
        left, right, inner = sides(lower, columns)
        # I + U f(V^T U) V^T with f(z) = 1 + z/2 + ... + z^(order-1)/order!.
        terms = right / order
        for term in range(order - 1, 0, -1):
            terms = (right + inner @ terms) / term
        return (eye(lower, size, columns) + left @ terms).to(numbers.dtype)


def neumann(numbers: torch.Tensor, size: int, columns: int, kept: int, order: int) -> torch.Tensor:
    """Return the first columns of (I + S/2 + ... + (S/2)^order) (I + S/2): [..., numbers] -> [..., size, columns]."""
    with torch.autocast(numbers.device.type, enabled=False):
        lower = lie(numbers.to(torch.promote_types(numbers.dtype, torch.float32)), size, kept)
        left, right, inner = sides(lower, columns)
        # I + U f(V^T U / 2) V^T with f(z) = 1 + z + ... + z^(order-1) + z^order/2.
        half, terms = inner / 2, right / 2
        for _ in range(order):
            terms = right + half @ terms
        return (eye(lower, size, columns) + left @ terms).to(numbers.dtype)


def householder(numbers: torch.Tensor, size: int, columns: int, kept: int) -> torch.Tensor:
    """Return the first columns of H_1 H_2 ..., the first of them negated: [..., numbers] -> [..., size, columns].

    H_j reflects at the vector with a one at j and the numbers of column j below it.
    """
    with torch.autocast(numbers.device.type, enabled=False):
        lower = lie(numbers.to(torch.promote_types(numbers.dtype, torch.float32)), size, kept)
        vectors = lower + eye(lower, size, kept)
        norms: torch.Tensor = torch.linalg.vector_norm(vectors, dim=-2, keepdim=True)
        vectors = vectors / norms
        # H_1 H_2 ... = I - V T V^T; the inverse of T is the upper triangle of V^T V, with a half on the diagonal.
        triangle = (vectors.mT @ vectors).triu(1) + eye(lower, kept, kept) / 2
        solved = solve_triangular(triangle, vectors[..., :columns, :].mT)
        signs = 1 - 2 * (torch.arange(columns, device=lower.device) < kept).to(lower.dtype)
        return ((eye(lower, size, columns) - vectors @ solved) * signs).to(numbers.dtype)


def planes(numbers: torch.Tensor, size: int, columns: int, kept: int) -> torch.Tensor:
    """Return the first columns of a product of rotations of planes: [..., numbers] -> [..., size, columns].

    Those of the planes of the first indices with all behind them, each by half of the number in that row and column.
    All whose two indices have one sum are turned at once, the largest sum first.
    """
    with torch.autocast(numbers.device.type, enabled=False):
        wide = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        matrix = eye(wide, size, columns).expand(*numbers.shape[:-1], size, columns)
        kept = min(kept, size - 1)
        rounds = [
            (both, torch.arange(max(0, both - size + 1), min(kept, (both + 1) // 2), device=numbers.device))
            for both in range(size + kept - 2, 0, -1)
        ]
        if not kept:
            return matrix.to(numbers.dtype).contiguous()
        order = torch.cat([first * (2 * size - first - 1) // 2 + both - 2 * first - 1 for both, first in rounds])
        turns = ry(wide.index_select(-1, order).flatten()).view(*numbers.shape, 2, 2)
        parts = torch.split(turns, [len(first) for _, first in rounds], dim=-3)
        for (both, first), turn in zip(rounds, parts, strict=True):
            rows = torch.stack([first, both - first], dim=-1).flatten()
            pairs = matrix.index_select(-2, rows)
            turned = (turn @ pairs.reshape(*pairs.shape[:-2], -1, 2, columns)).flatten(-3, -2)
            matrix = matrix.index_copy(-2, rows, turned)
        return matrix.to(numbers.dtype).contiguous()


def givens(numbers: torch.Tensor, size: int, rounds: tuple[range | tuple[int, ...], ...]) -> torch.Tensor:
    """Return products of rotations of planes: [..., numbers] -> [..., size, size].

    A round has the rows of disjoint pairs, one pair after the other, turned at once by half of their angles.
    """
    with torch.autocast(numbers.device.type, enabled=False):
        wide = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        turns = ry(wide.flatten()).view(*numbers.shape, 2, 2)
        matrix = eye(wide, size, size).expand(*numbers.shape[:-1], size, size)
        first = 0
        for rows in rounds:
            turn = turns[..., first : first + len(rows) // 2, :, :]
            first += len(rows) // 2
            if isinstance(rows, range):
                above, pairs, below = matrix.tensor_split([rows.start, rows.stop], dim=-2)
                turned = (turn @ pairs.reshape(*pairs.shape[:-2], -1, 2, size)).flatten(-3, -2)
                matrix = torch.cat([above, turned, below], dim=-2)
            else:
                places = torch.tensor(rows, device=numbers.device)
                pairs = matrix.index_select(-2, places)
                turned = (turn @ pairs.reshape(*pairs.shape[:-2], -1, 2, size)).flatten(-3, -2)
                matrix = matrix.index_copy(-2, places, turned)
        return matrix.to(numbers.dtype).contiguous()
