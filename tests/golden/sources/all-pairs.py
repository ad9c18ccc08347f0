# Written by quanta-compiler. SHA-256 of what follows, to tell whether it was edited: dc98306055b55f116f83de38a31119d37a16e9ebdbf5ef86a89e60a6af1c5915
"""Circuit all-pairs: 4096 -> 4096 features.

Layout 16 x 8 x 8 x 4, 6 gates, 43008 trainable parameters; circuit d93b6d80e672f041.
Planned for 2048 tokens a batch: any other batch gives the same result, if not at the least cost.
In the comments `n` is the number of tokens, and `axis:size` are the dimensions in the order of memory;
in `operator`, `axis'` is the input side of an axis.
"""

import torch


class Circuit(torch.nn.Module):
    """Maps [..., 4096] to [..., 4096]."""

    in_features: int = 4096
    out_features: int = 4096
    circuit: str = (
        '{"version": 1, "name": "all-pairs", "layout": [16, 8, 8, 4], "in_features": 4096, "out_features": '
        '4096, "gates": [{"name": "g0", "axes": [2, 3], "kind": "dense", "init": "kaiming_uniform"}, {"name'
        '": "g1", "axes": [1, 3], "kind": "dense", "init": "kaiming_uniform"}, {"name": "g2", "axes": [0, 3'
        '], "kind": "dense", "init": "kaiming_uniform"}, {"name": "g3", "axes": [1, 2], "kind": "dense", "i'
        'nit": "kaiming_uniform"}, {"name": "g4", "axes": [0, 2], "kind": "dense", "init": "kaiming_uniform'
        '"}, {"name": "g5", "axes": [0, 1], "kind": "dense", "init": "kaiming_uniform"}], "output": [0, 1, '
        '2, 3], "plan": {"tokens": 2048, "optimizer": "auto"}}'
    )
    """The circuit with everything written out, as JSON; `quanta_compiler.load_spec` reads it."""

    def __init__(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Make the parameters and draw them from torch's global generator."""
        super().__init__()
        self.gates = torch.nn.ParameterDict()
        gates = self.gates
        # dense on 2:8, 3:4
        gates["g0"] = torch.nn.Parameter(torch.empty(32, 32, device=device, dtype=dtype))
        # dense on 1:8, 3:4
        gates["g1"] = torch.nn.Parameter(torch.empty(32, 32, device=device, dtype=dtype))
        # dense on 0:16, 3:4
        gates["g2"] = torch.nn.Parameter(torch.empty(64, 64, device=device, dtype=dtype))
        # dense on 1:8, 2:8
        gates["g3"] = torch.nn.Parameter(torch.empty(64, 64, device=device, dtype=dtype))
        # dense on 0:16, 2:8
        gates["g4"] = torch.nn.Parameter(torch.empty(128, 128, device=device, dtype=dtype))
        # dense on 0:16, 1:8
        gates["g5"] = torch.nn.Parameter(torch.empty(128, 128, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters in float32 on the CPU, in file order: a seed means the same everywhere."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        gates = self.gates
        self._uniform(gates["g0"], 0.17677669529663687, generator)
        self._uniform(gates["g1"], 0.17677669529663687, generator)
        self._uniform(gates["g2"], 0.125, generator)
        self._uniform(gates["g3"], 0.125, generator)
        self._uniform(gates["g4"], 0.08838834764831843, generator)
        self._uniform(gates["g5"], 0.08838834764831843, generator)

    @staticmethod
    def _uniform(tensor: torch.Tensor, bound: float, generator: torch.Generator | None) -> None:
        drawn = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
        tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the circuit: [..., 4096] -> [..., 4096]."""
        if x.shape[-1:] != (4096,):
            raise ValueError(f"expected [..., 4096], got {list(x.shape)}")
        gates = self.gates
        lead = x.shape[:-1]
        x = x.reshape(-1, 4096).contiguous()
        n = x.shape[0]
        # g0: dense on 2:8, 3:4
        x = x.view(n * 128, 32) @ gates["g0"].t()  # n 0:16 1:8 2:8 3:4
        # g1: dense on 1:8, 3:4
        x = x.view(n, 16, 8, 8, 4).permute(1, 3, 0, 2, 4).reshape(n * 128, 32)  # 0:16 2:8 n 1:8 3:4
        w1 = gates["g1"].contiguous().view(8, 4, 32).transpose(0, 1).reshape(32, 32)  # 3:4 1:8 1:8 3:4
        x = x @ w1.t()  # 0:16 2:8 n 3:4 1:8
        del w1
        # g3: dense on 1:8, 2:8
        x = x.view(16, 8, n, 4, 8).permute(0, 3, 2, 4, 1).reshape(n * 64, 64)  # 0:16 3:4 n 1:8 2:8
        x = x @ gates["g3"].t()  # 0:16 3:4 n 1:8 2:8
        # g2: dense on 0:16, 3:4
        x = x.view(64, n * 64).t() @ gates["g2"].t()  # n 1:8 2:8 0:16 3:4
        # g4: dense on 0:16, 2:8
        x = x.view(n, 8, 8, 16, 4).permute(1, 0, 4, 3, 2).reshape(n * 32, 128)  # 1:8 n 3:4 0:16 2:8
        x = x @ gates["g4"].t()  # 1:8 n 3:4 0:16 2:8
        # g5: dense on 0:16, 1:8
        x = x.view(8, n * 4, 16, 8).permute(1, 3, 2, 0).reshape(n * 32, 128)  # n 3:4 2:8 0:16 1:8
        x = x @ gates["g5"].t()  # n 3:4 2:8 0:16 1:8
        x = x.view(n, 4, 8, 128).transpose(1, 3).reshape(n, 4096)  # n 0:16 1:8 2:8 3:4
        return x.view(*lead, 4096)

    def operator(self, *, add_to: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        """Return the circuit's matrix, [4096, 4096], differentiable.

        It is built in 16 slices, each written to its place: no second matrix is made.
        Nothing of a slice is kept for backward, which makes it again.

        With `add_to`, a matrix of that shape, `scale` times the operator is added to it in place, without
        gradients and computed in the dtype of the parameters, and it is returned.
        """
        if add_to is not None:
            if add_to.shape != (4096, 4096):
                raise ValueError(f"expected [4096, 4096] to add to, got {list(add_to.shape)}")
            with torch.no_grad(), torch.autocast(add_to.device.type, enabled=False):
                parts = self._operator_parts()
                for i in range(16):
                    self._Slices.place(add_to, i).add_(self._Slices.make(i, *parts), alpha=scale)
            return add_to
        # A compiler would unroll the loop; torch.func and forward differentiation know nothing of slices.
        is_forward = torch.autograd.forward_ad._current_level >= 0
        if is_forward or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return self._operator_at_once()
        parts = self._operator_parts()
        result: torch.Tensor = self._Slices.apply(*parts)  # type: ignore[no-untyped-call, unused-ignore]
        return result

    def _operator_at_once(self) -> torch.Tensor:
        """Return the same matrix, built without a loop."""
        gates = self.gates
        # g4, g5
        w1: torch.Tensor = gates["g5"].contiguous().view(2048, 8).t().reshape(1024, 16)  # 1:8 0:16 1:8 0:16
        w1 = gates["g4"].contiguous().view(16, 1024).t() @ w1.t()  # 2:8 0:16 2:8 1:8 0:16 1:8
        # g3: dense on 1:8, 2:8
        w1 = w1.view(8, 16, 8, 8, 128).permute(1, 0, 4, 3, 2).reshape(16384, 64)  # 0:16 2:8 0:16 1:8 1:8 2:8
        w1 = w1 @ gates["g3"]  # 0:16 2:8 0:16 1:8 1:8 2:8
        # g2: dense on 0:16, 3:4
        w1 = w1.view(16, 65536).t() @ gates["g2"].contiguous().view(16, 256)  # 2:8 0:16 1:8 1:8 2:8 3:4 0':16 3:4
        # g1: dense on 1:8, 3:4
        # 2:8 2:8 0:16 1:8 3:4 0':16 1:8 3:4
        w1 = w1.view(1024, 8, 8, 64, 4).permute(2, 0, 3, 1, 4).reshape(524288, 32)
        w1 = w1 @ gates["g1"]  # 2:8 2:8 0:16 1:8 3:4 0':16 1':8 3:4
        # g0: dense on 2:8, 3:4
        # 0:16 1:8 2:8 3:4 0':16 1':8 2:8 3:4
        w1 = w1.view(8, 8, 128, 512, 4).permute(2, 1, 3, 0, 4).reshape(524288, 32)
        w1 = w1 @ gates["g0"]  # 0:16 1:8 2:8 3:4 0':16 1':8 2':8 3':4
        w1 = w1.view(4096, 4096)
        return w1

    def _operator_parts(self) -> tuple[torch.Tensor, ...]:
        """Return what every slice of the operator is made from: the arguments of `_Slices.make`."""
        gates = self.gates
        return gates["g5"], gates["g4"], gates["g3"], gates["g2"], gates["g1"], gates["g0"]

    class _Slices(torch.autograd.Function):
        """The operator in 16 slices, one for each index of 0:16."""

        @staticmethod
        def make(
            i: int,
            gate_g5: torch.Tensor,
            gate_g4: torch.Tensor,
            gate_g3: torch.Tensor,
            gate_g2: torch.Tensor,
            gate_g1: torch.Tensor,
            gate_g0: torch.Tensor,
        ) -> torch.Tensor:
            """Return slice `i`, with the dimensions of its place."""
            # g4, g5
            w1 = gate_g5.contiguous().view(16, 1024)[i]  # 1:8 0:16 1:8
            w1 = w1.view(128, 8).t().reshape(64, 16)  # 1:8 1:8 0:16
            w1 = gate_g4.contiguous().view(16, 1024).t() @ w1.t()  # 2:8 0:16 2:8 1:8 1:8
            # g3: dense on 1:8, 2:8
            w1 = w1.view(8, 16, 8, 8, 8).permute(1, 0, 4, 3, 2).reshape(1024, 64)  # 0:16 2:8 1:8 1:8 2:8
            w1 = w1 @ gate_g3  # 0:16 2:8 1:8 1:8 2:8
            # g2: dense on 0:16, 3:4
            w1 = w1.view(16, 4096).t() @ gate_g2.contiguous().view(16, 256)  # 2:8 1:8 1:8 2:8 3:4 0':16 3:4
            # g1: dense on 1:8, 3:4
            w1 = w1.view(64, 8, 8, 64, 4).permute(2, 0, 3, 1, 4).reshape(32768, 32)  # 2:8 2:8 1:8 3:4 0':16 1:8 3:4
            w1 = w1 @ gate_g1  # 2:8 2:8 1:8 3:4 0':16 1':8 3:4
            # g0: dense on 2:8, 3:4
            w1 = w1.view(8, 8, 8, 512, 4).permute(2, 1, 3, 0, 4).reshape(32768, 32)  # 1:8 2:8 3:4 0':16 1':8 2:8 3:4
            w1 = w1 @ gate_g0  # 1:8 2:8 3:4 0':16 1':8 2':8 3':4
            return w1.view(256, 4096)

        @staticmethod
        def place(matrix: torch.Tensor, i: int) -> torch.Tensor:
            """Return a view of where slice `i` stands in the matrix."""
            return matrix.view(16, 256, 4096)[i]

        @staticmethod
        def forward(*parts: torch.Tensor) -> torch.Tensor:
            slices = Circuit._Slices
            result = parts[0].new_empty(4096, 4096)
            for i in range(16):
                slices.place(result, i).copy_(slices.make(i, *parts))
            return result

        @staticmethod
        def setup_context(
            ctx: torch.autograd.function.BackwardCFunction,
            inputs: tuple[torch.Tensor, ...],
            output: torch.Tensor,
        ) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(
            ctx: torch.autograd.function.BackwardCFunction,
            gradient: torch.Tensor,
        ) -> tuple[torch.Tensor | None, ...]:
            slices = Circuit._Slices
            twice = torch.is_grad_enabled()  # gradients of the gradients are wanted
            needed = ctx.needs_input_grad
            with torch.enable_grad():
                # Views of their own, so that what a part was made from is not differentiated here.
                parts = [part.view_as(part) for part in ctx.saved_tensors]
                wanted = [part for part, is_needed in zip(parts, needed) if is_needed]
                # A sum of many slices is rounded once.
                wide = [torch.promote_types(part.dtype, torch.float32) for part in wanted]
                sums = [torch.zeros_like(part, dtype=dtype) for part, dtype in zip(wanted, wide)]
                for i in range(16):
                    place = slices.place(gradient, i)
                    found = torch.autograd.grad(slices.make(i, *parts), wanted, place, create_graph=twice)
                    sums = [total + more for total, more in zip(sums, found)]
            gradients = (total.to(part.dtype) for total, part in zip(sums, wanted))
            return tuple(next(gradients) if is_needed else None for is_needed in needed)
