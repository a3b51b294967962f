"""Convolution blocks of the decoder."""

import itertools

import torch
from torch import Tensor, nn

from clickvol.layers.norms import InstanceNormReLU


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv3d:
    """Return a 3x3x3 convolution without bias that keeps the size (at stride 1)."""
    return nn.Conv3d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


class DoubleConv(nn.Sequential):
    """Twice: 3x3x3 convolution without bias, InstanceNorm, ReLU. (B, C, ...) -> (B, C', ...)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            conv3(inputs, outputs, stride),
            InstanceNormReLU(),
            conv3(outputs, outputs),
            InstanceNormReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C', D, H, W), with the channels last in memory."""
        first, first_norm, second, second_norm = self
        x = first(x).contiguous(memory_format=torch.channels_last_3d)
        return torch.as_tensor(second_norm(second(first_norm(x))))


class UShape(nn.Module):
    """A small U-Net on a feature map: the output has the shape of the input.

    Args:
        channels: width at each scale, finest first; the first is that of the input. Each further
            scale halves the resolution. One entry: no coarser scale, the map passes unchanged.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList([DoubleConv(a, b, stride=2) for a, b in pairs])
        self.up = nn.ModuleList(
            [nn.ConvTranspose3d(b, a, kernel_size=2, stride=2) for a, b in pairs]
        )
        self.merge = nn.ModuleList([DoubleConv(2 * a, a) for a, _ in pairs])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, D, H, W)."""
        scales = [x]
        for down in self.down:
            scales.append(down(scales[-1]))
        for level in reversed(range(len(self.down))):
            finer = scales[level]
            # An odd length is halved upwards on the way down; the surplus is cut on the way up.
            raised = self.up[level](scales[level + 1])
            raised = raised[:, :, : finer.shape[2], : finer.shape[3], : finer.shape[4]]
            scales[level] = self.merge[level](torch.cat([finer, raised], dim=1))
        return scales[0]
