# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: 7eb3992f1afa1caef5f44857677e35b83f2c6a4704ab734f8a1c2e6483617c39
"""Circuit monarch: 64 -> 64 features.

Layout 8 x 8, 2 gates, 1024 trainable parameters; circuit e71022d1b0d517a2.
Planned for 2048 tokens a batch: any other batch gives the same result, if not at the least cost.
In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;
in `operator`, `axis'` is the input side of an axis.
"""

import torch


class Circuit(torch.nn.Module):
    """Maps [..., 64] to [..., 64]."""

    in_features: int = 64
    out_features: int = 64
    circuit: str = (
        '{"version": 1, "name": "monarch", "layout": {"a": 8, "b": 8}, "in_features": 64, "out_features": 6'
        '4, "gates": [{"name": "L", "axes": ["b"], "per": ["a"], "kind": "dense", "init": "kaiming_uniform"'
        '}, {"name": "R", "axes": ["a"], "per": ["b"], "kind": "dense", "init": "kaiming_uniform"}], "outpu'
        't": ["a", "b"], "plan": {"tokens": 2048, "optimizer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        # dense on b:8 per a:8
        gates["L"] = torch.nn.Parameter(torch.empty(8, 8, 8, device=device, dtype=dtype))
        # dense on a:8 per b:8
        gates["R"] = torch.nn.Parameter(torch.empty(8, 8, 8, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        gates = self.gates
        self._uniform(gates["L"], 0.35355339059327373, generator)
        self._uniform(gates["R"], 0.35355339059327373, generator)

    @staticmethod
    def _uniform(tensor: torch.Tensor, bound: float, generator: torch.Generator | None) -> None:
        drawn = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
        tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the circuit: [..., 64] -> [..., 64]."""
        if x.shape[-1:] != (64,):
            raise ValueError(f"expected [..., 64], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 64).contiguous()
        n = x.shape[0]
        # L: dense on b:8 per a:8
        x = torch.bmm(gates["L"], x.view(n, 8, 8).permute(1, 2, 0))  # a:8 b:8 n
        # R: dense on a:8 per b:8
        x = torch.bmm(x.permute(1, 2, 0), gates["R"].transpose(1, 2))  # b:8 n a:8
        x = x.permute(1, 2, 0).reshape(n, 64)  # n a:8 b:8
        return x.view(*lead, 64)

    def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        """Return the circuit's matrix, [64, 64], differentiable.

        With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without
        gradients and computed in the dtype of the parameters, and it is returned.
        """
        if add_to is not None:
            if add_to.shape != (64, 64):
                raise ValueError(f"expected [64, 64] to add to, got {list(add_to.shape)}")
            with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):
                return add_to.add_(self.operator(), alpha=scale)
        gates = self.gates
        # L, R
        w1: torch.Tensor = gates["R"].contiguous().view(64, 8).t().reshape(64, 8)  # a':8 b:8 a:8
        w1 = gates["L"].contiguous().view(64, 8, 1) * w1.view(64, 1, 8)  # a':8 b:8 b':8 a:8
        w1 = w1.view(8, 8, 8, 8).permute(3, 1, 0, 2).reshape(64, 64)  # a:8 b:8 a':8 b':8
        return w1
