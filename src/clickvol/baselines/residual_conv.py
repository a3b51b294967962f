"""The convolution blocks that the decoders of the UNETR family share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.layers.conv3d import conv3

# As in nnU-Net and in the networks of the UNETR family.
_NEGATIVE_SLOPE = 0.01


class ResidualConv(nn.Module):
    """Two 3x3x3 convolutions with InstanceNorm beside a shortcut; LeakyReLU behind each and the sum.

    Where the channels differ the shortcut is a 1x1x1 convolution with its own norm.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = conv3(inputs, outputs)
        self.second = conv3(outputs, outputs)
        self.shortcut = nn.Conv3d(inputs, outputs, kernel_size=1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C', D, H, W)."""
        straight = x if self.shortcut is None else F.instance_norm(self.shortcut(x))
        x = F.leaky_relu(F.instance_norm(self.first(x)), _NEGATIVE_SLOPE)
        return F.leaky_relu(F.instance_norm(self.second(x)) + straight, _NEGATIVE_SLOPE)


class RaiseAndMerge(nn.Module):
    """Double the resolution of a coarse map, and merge it with a finer one, whose channels result."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose3d(coarse, fine, kernel_size=2, stride=2, bias=False)
        self.merge = ResidualConv(2 * fine, fine)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, d, h, w) and (B, C', 2d, 2h, 2w) -> (B, C', 2d, 2h, 2w)."""
        return torch.as_tensor(self.merge(torch.cat([self.enlarge(x), skip], dim=1)))
