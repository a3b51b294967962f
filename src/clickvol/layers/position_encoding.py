"""Random Fourier features of places in a patch or image."""

import math

import torch
from torch import Tensor, nn


class FourierPositions(nn.Module):
    """sin and cos of random projections of a place (SAM's encoding with a third axis).

    A place c in [0, 1] per axis becomes 2 c - 1, in the order (w, h, d), is multiplied by a fixed Gaussian
    matrix and by 3 pi, and its sines and cosines are joined.
    """

    gaussian: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("gaussian", torch.randn(3, width // 2))

    def forward(self, place_dhw: Tensor) -> Tensor:
        """(..., 3) in [0, 1], order (d, h, w) -> (..., width) in [-1, 1]."""
        angle = 3 * math.pi * (2 * place_dhw.flip(-1) - 1) @ self.gaussian
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class PlanarFourierPositions(nn.Module):
    """The same for places in an image: (x, y), and 2 pi (SAM's own, with the name of its buffer)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        matrix = torch.randn(2, width // 2)
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)

    def forward(self, place_xy: Tensor) -> Tensor:
        """(..., 2) float32 in [0, 1], order (x, y) -> (..., width) float32 in [-1, 1]."""
        matrix = self.positional_encoding_gaussian_matrix.to(torch.float32)
        angle = 2 * math.pi * (2 * place_xy - 1) @ matrix
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def cell_centres(shape_dhw: tuple[int, int, int], *, like: Tensor) -> Tensor:
    """Return the centres of a map's cells as parts of its side: (d, h, w, 3) in (0, 1)."""
    axes = [(torch.arange(n, device=like.device, dtype=torch.float32) + 0.5) / n for n in shape_dhw]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
