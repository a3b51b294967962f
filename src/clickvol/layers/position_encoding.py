"""Random Fourier features of places in a patch."""

import math

import torch
from torch import Tensor, nn


class FourierPositions(nn.Module):
    """sin and cos of random projections of a place (SAM's encoding with a third axis).

    A place c in [0, 1] per axis becomes 2 c - 1, in the order (w, h, d), is multiplied by a fixed
    Gaussian matrix and by 3 pi, and its sines and cosines are joined.

    Args:
        width: length of the code; even.
    """

    gaussian: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("gaussian", torch.randn(3, width // 2))

    def forward(self, place_dhw: Tensor) -> Tensor:
        """(..., 3) in [0, 1], order (d, h, w) -> (..., width) in [-1, 1]."""
        angle = 3 * math.pi * (2 * place_dhw.flip(-1) - 1) @ self.gaussian
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def cell_centres(shape_dhw: tuple[int, int, int], *, like: Tensor) -> Tensor:
    """Return the centres of a map's cells as parts of its side: (d, h, w, 3) in (0, 1)."""
    axes = [(torch.arange(n, device=like.device, dtype=torch.float32) + 0.5) / n for n in shape_dhw]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
