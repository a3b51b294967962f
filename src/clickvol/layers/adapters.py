"""The bottleneck adapter with a depth-wise 3D convolution (3DSAM-adapter, section 3.2; ProMISe-3D, 2.2)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clickvol.layers.matrix_work import cast_linears

AdapterInitialisation = Literal["default", "zero"]


class Adapter3d(nn.Module):
    """Token update relu(W2 relu(dwconv(relu(W1 x)))), to be added to x by the caller.

    The last ReLU is in the published code: an adapter can only add amounts that are not negative.

    Args:
        width: width of the tokens.
        hidden: width of the bottleneck; half the token width in the published networks.
        initialisation: "default" as published (PyTorch's own); "zero" starts as no change, and
            drops nothing at the start of training from scratch.
        final_relu: False leaves out the last ReLU, so that an adapter can also subtract.
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
        self.mix = nn.Conv3d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
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

    def add_to_(self, tokens: Tensor, *, step_tokens: int, factor: float = 1.0) -> None:
        """Set tokens to factor * tokens + update, in place and in steps, without gradients.

        Args:
            tokens: (B, d, h, w, E), contiguous; overwritten.
            step_tokens: tokens that one step works on.
            factor: what the tokens are multiplied with.
        """
        rows = tokens.view(-1, tokens.shape[-1])
        down, up = cast_linears(self.down), cast_linears(self.up)
        pieces = torch.split(rows, step_tokens)
        hidden = torch.cat([functional_call(self.down, down, (piece,)).relu_() for piece in pieces])
        mixed = self.mix(hidden.view(*tokens.shape[:4], -1).permute(0, 4, 1, 2, 3)).relu_()
        mixed_rows = mixed.permute(0, 2, 3, 4, 1).reshape(len(rows), -1)
        for piece, mixed_piece in zip(pieces, torch.split(mixed_rows, step_tokens), strict=True):
            update = functional_call(self.up, up, (mixed_piece,))
            piece.mul_(factor).add_(update.relu_() if self.final_relu else update)
