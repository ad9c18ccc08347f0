# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: 431349868dd2903ec34dd2ce694b400e59dbdbe7b171ef1940537f45ffd37575
"""Circuit kinds: 20 -> 16 features.

Layout 4 x 3 x 2, 6 gates, 84 trainable parameters; circuit 4b172fc0386afd5c.
Planned for 64 tokens a batch: any other batch gives the same result, if not at the least cost.
In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;
in `operator`, `axis'` is the input side of an axis.
"""

import torch


class Circuit(torch.nn.Module):
    """Maps [..., 20] to [..., 16]."""

    in_features: int = 20
    out_features: int = 16
    circuit: str = (
        '{"version": 1, "name": "kinds", "layout": {"a": 4, "b": 3, "c": 2}, "in_features": 20, "out_featur'
        'es": 16, "gates": [{"name": "low", "axes": ["a", "b"], "kind": "lowrank", "rank": 2, "init": "kaim'
        'ing_uniform"}, {"name": "mixed", "axes": ["b", "c"], "kind": "dense", "init": "orthogonal"}, {"nam'
        'e": "phase", "axes": ["c"], "per": ["a"], "kind": "diagonal", "init": "kaiming_uniform", "frozen":'
        ' true}, {"name": "fixed", "axes": ["a"], "to": [2], "kind": "constant", "value": [[1.0, 0.5, 0.0, '
        '0.0], [0.0, 1.0, 0.0, 0.0]]}, {"name": "again", "axes": ["c", "b"], "share": "mixed", "transpose":'
        ' true}, {"name": "cut", "axes": ["c", "b"], "to": {"d": 5}, "kind": "slice"}], "output": ["a", "d"'
        '], "plan": {"tokens": 64, "optimizer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        gates["low"] = torch.nn.ParameterDict()
        # lowrank on a:4, b:3
        gates["low"]["B"] = torch.nn.Parameter(torch.empty(12, 2, device=device, dtype=dtype))
        # lowrank on a:4, b:3
        gates["low"]["A"] = torch.nn.Parameter(torch.empty(2, 12, device=device, dtype=dtype))
        # dense on b:3, c:2
        gates["mixed"] = torch.nn.Parameter(torch.empty(6, 6, device=device, dtype=dtype))
        # diagonal on c:2 per a:4
        gates["phase"] = torch.nn.Parameter(torch.empty(4, 2, device=device, dtype=dtype), requires_grad=False)
        self._kept: dict[str, torch.Tensor] = {}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        gates = self.gates
        self._uniform(gates["low"]["B"], 0.7071067811865475, generator)
        self._uniform(gates["low"]["A"], 0.2886751345948129, generator)
        self._orthogonal(gates["mixed"], 6, 6, generator)
        self._uniform(gates["phase"], 1.0, generator)

    @staticmethod
    def _uniform(tensor: torch.Tensor, bound: float, generator: torch.Generator | None) -> None:
        drawn = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
        tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))

    @staticmethod
    def _orthogonal(tensor: torch.Tensor, rows: int, columns: int, generator: torch.Generator | None) -> None:
        # As torch.nn.init.orthogonal_ draws: orthonormal columns, or rows where they are fewer.
        drawn = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
        drawn = drawn.normal_(generator=generator).view(-1, rows, columns)
        q, r = torch.linalg.qr(drawn if rows >= columns else drawn.mT)
        q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
        tensor.copy_((q if rows >= columns else q.mT).reshape(tensor.shape))

    @property
    def constant_fixed(self) -> torch.Tensor:
        """What the file gives for fixed, [2, 4]."""
        rows = (
            (1.0, 0.5, 0.0, 0.0),
            (0.0, 1.0, 0.0, 0.0),
        )
        return self._constant("constant_fixed", rows)

    def _constant(self, name: str, values: tuple[tuple[float, ...], ...] | float) -> torch.Tensor:
        """Return values with the dtype and on the device of the parameters, where they are now."""
        like: torch.Tensor = self.gates["low"]["B"]
        kept, is_plain = self._kept.get(name), type(like) in (torch.Tensor, torch.nn.Parameter)
        if is_plain and kept is not None and kept.dtype == like.dtype and kept.device == like.device:
            return kept
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return torch.tensor(values, dtype=like.dtype, device=like.device)
        with torch.inference_mode(False):
            made = torch.tensor(values, dtype=like.dtype, device=like.device)
        if type(made) is torch.Tensor:
            self._kept[name] = made  # for the next call, which may be in any mode
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the circuit: [..., 20] -> [..., 16]."""
        if x.shape[-1:] != (20,):
            raise ValueError(f"expected [..., 20], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 20).contiguous()
        n = x.shape[0]
        x = torch.nn.functional.pad(x, (0, 4))  # zeros behind, to the circuit's width
        # phase, fixed
        # a:2 a:4 c:2
        w1 = gates["phase"].contiguous().view(1, 4, 2) * self.constant_fixed.contiguous().view(2, 4, 1)
        # low, phase, fixed
        w1 = w1.view(8, 2).t().reshape(4, 4)  # c:2 a:2 a:4
        w1 = gates["low"]["B"].contiguous().view(4, 6).t() @ w1.t()  # b:3 r:2 c:2 a:2
        # low, mixed, phase, fixed
        w2 = gates["mixed"].contiguous().view(3, 2, 3, 2).permute(1, 0, 3, 2).reshape(2, 6, 3)  # c:2 b:3 c:2 b:3
        w1 = w1.view(3, 2, 4).transpose(0, 2).reshape(2, 4, 3)  # c:2 a:2 r:2 b:3
        w2 = torch.bmm(w2, w1.transpose(1, 2))  # c:2 b:3 c:2 a:2 r:2
        del w1
        # again: dense on c:2, b:3
        w2 = w2.view(6, 8).t() @ gates["mixed"]  # c:2 a:2 r:2 c:2 b:3
        # low: lowrank on a:4, b:3
        x = x.view(n, 12, 2).transpose(1, 2).contiguous().view(n * 2, 12)  # n c:2 a:4 b:3
        x = x @ gates["low"]["A"].t()  # n c:2 r:2
        # low, mixed, phase, fixed, again
        w2 = w2.view(2, 2, 2, 6).permute(1, 3, 0, 2).reshape(12, 4)  # a:2 c:2 b:3 c:2 r:2
        x = x.view(n, 4) @ w2.t()  # n a:2 c:2 b:3
        del w2
        # cut: slice on c:2, b:3 -> d:5
        x = x.view(n * 2, 6, 1)[:, :5].contiguous()  # n a:2 d:5
        x = x.view(n, 10)
        x = torch.nn.functional.pad(x, (0, 6))  # zeros behind
        return x.view(*lead, 16)

    def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        """Return the circuit's matrix, [16, 20], differentiable.

        With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without
        gradients and computed in the dtype of the parameters, and it is returned.
        """
        if add_to is not None:
            if add_to.shape != (16, 20):
                raise ValueError(f"expected [16, 20] to add to, got {list(add_to.shape)}")
            with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):
                return add_to.add_(self.operator(), alpha=scale)
        gates = self.gates
        # phase, fixed
        # a:2 a:4 c:2
        w1 = gates["phase"].contiguous().view(1, 4, 2) * self.constant_fixed.contiguous().view(2, 4, 1)
        # low, phase, fixed
        w1 = w1.view(8, 2).t().reshape(4, 4)  # c:2 a:2 a:4
        w1 = gates["low"]["B"].contiguous().view(4, 6).t() @ w1.t()  # b:3 r:2 c:2 a:2
        # low, mixed, phase, fixed
        # c:2 b:3 c':2 b:3
        w2: torch.Tensor = gates["mixed"].contiguous().view(3, 2, 3, 2).permute(1, 0, 3, 2).reshape(2, 6, 3)
        w1 = w1.view(3, 2, 4).transpose(0, 2).reshape(2, 4, 3)  # c:2 a:2 r:2 b:3
        w2 = torch.bmm(w2, w1.transpose(1, 2))  # c:2 b:3 c':2 a:2 r:2
        del w1
        # again: dense on c:2, b:3
        w2 = gates["mixed"].t() @ w2.view(6, 8)  # c:2 b:3 c':2 a:2 r:2
        # low: lowrank on a:4, b:3
        w2 = w2.view(24, 2) @ gates["low"]["A"]  # c:2 b:3 c':2 a:2 a':4 b':3
        # cut: slice on c:2, b:3 -> d:5
        w2 = w2.view(1, 6, 48)[:, :5].contiguous()  # d:5 c':2 a:2 a':4 b':3
        w2 = w2.view(5, 2, 2, 12).permute(2, 0, 3, 1).reshape(10, 24)  # a:2 d:5 a':4 b':3 c':2
        w2 = w2[:10, :20].contiguous()
        w2 = torch.nn.functional.pad(w2, (0, 0, 0, 6))
        return w2

    def _save_to_state_dict(self, destination: dict[str, object], prefix: str, keep_vars: bool) -> None:
        # torch lists a container's own tensors before nested ones; the file's order is reserved here.
        for key in ("low.B", "low.A", "mixed", "phase"):
            destination[f"{prefix}gates.{key}"] = None
        super()._save_to_state_dict(destination, prefix, keep_vars)
