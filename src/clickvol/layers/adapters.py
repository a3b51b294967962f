"""The bottleneck adapter with a depth-wise 3D convolution (3DSAM-adapter, section 3.2; ProMISe-3D, 2.2)."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from clickvol.layers.conv3d import DepthwiseConv3d
from clickvol.layers.matrix_work import autocast_dtype, cast_once
from clickvol.layers.residual import Part, Places, Residual

AdapterInitialisation = Literal["default", "zero"]


class Adapter3d(nn.Module):
    """Token update relu(W2 relu(dwconv(relu(W1 x)))), to be added to x by the caller.

    The last ReLU is in the published code: an adapter can only add amounts that are not negative; without it it
    can subtract. The bottleneck is half the token width in the published networks. The initialisation "zero"
    (ours) starts as no change and drops nothing at the start of training from scratch.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        initialisation: AdapterInitialisation = "default",
        final_relu: bool = True,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.mix = DepthwiseConv3d(hidden)
        self.up = nn.Linear(hidden, width)
        self.final_relu = final_relu
        if initialisation == "zero":
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, d, h, w, E) -> (B, d, h, w, E), the update alone."""
        hidden = torch.relu(self.down(tokens)).permute(0, 4, 1, 2, 3)
        hidden = torch.relu(self.mix(hidden)).permute(0, 2, 3, 4, 1)
        update = self.up(hidden)
        return torch.relu(update) if self.final_relu else update


class AdapterResidual(Residual):
    """tokens -> factor * tokens + adapter(tokens). Its convolution needs all tokens, so it is one part."""

    def __init__(self, adapter: Adapter3d, *, factor: float = 1.0) -> None:
        super().__init__(adapter, factor=factor)
        self.adapter = adapter

    def parts(self, tokens: Tensor, part_tokens: int) -> Iterator[Part]:  # noqa: ARG002 # one part
        """See `Residual`."""

        def update(rows: Tensor) -> Tensor:
            return torch.as_tensor(self.adapter(rows.view(tokens.shape)).flatten(0, 3))

        yield Places(slice(None)), update

    def add_(self, tokens: Tensor, part_tokens: int) -> None:
        """See `Residual`. Only the convolution is done on all tokens at once."""
        adapter = self.adapter
        down, up = (cast_once(linear, tokens.device) for linear in (adapter.down, adapter.up))
        pieces = torch.split(tokens.view(-1, tokens.shape[-1]), part_tokens)
        shape, dtype = (
            (*tokens.shape[:4], adapter.down.out_features),
            autocast_dtype(tokens.device) or tokens.dtype,
        )
        hidden = torch.empty(shape, dtype=dtype, device=tokens.device)
        for rows, place in zip(pieces, torch.split(hidden.flatten(0, 3), part_tokens), strict=True):
            torch.clamp(down(rows), min=0, out=place)
        mixed = adapter.mix(hidden.permute(0, 4, 1, 2, 3)).relu_()
        mixed_rows = mixed.permute(0, 2, 3, 4, 1).flatten(0, 3)
        for rows, mixed_piece in zip(pieces, torch.split(mixed_rows, part_tokens), strict=True):
            update = up(mixed_piece)
            if adapter.final_relu:
                update = update.relu_()
            rows.mul_(self.factor).add_(update)
