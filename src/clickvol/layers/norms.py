"""Normalisation over the channels of a feature map, and over the places of one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channel axis of (B, C, *places), as in the neck of SAM's image encoder.

    Biased variance, eps 1e-6, learned scale and shift per channel.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, d, h, w) -> (B, C, d, h, w)."""
        variance, mean = torch.var_mean(x.float(), dim=1, keepdim=True, correction=0)
        per_channel = (1, -1) + (1,) * (x.ndim - 2)
        scaled = (x - mean) * torch.rsqrt(variance + self.eps)
        return (scaled * self.weight.view(per_channel) + self.bias.view(per_channel)).to(x.dtype)


class InstanceNormReLU(nn.Module):
    """InstanceNorm (no affine, no running statistics, eps 1e-5) and ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, D, H, W), not negative."""
        return torch.relu(F.instance_norm(x, eps=1e-5))
