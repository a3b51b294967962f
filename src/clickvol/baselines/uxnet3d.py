"""3D UX-Net: a U-Net whose encoder has depth-wise convolutions of 7^3 in the places of attention.

Lee et al., ICLR 2023, arXiv 2209.15076; written from the paper. 53.0 M parameters (its table 1).
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.baselines.baseline import NUM_CLASSES, Baseline, Triple, require_multiple, require_side
from clickvol.baselines.residual_conv import RaiseAndMerge, ResidualConv
from clickvol.errors import ConfigError
from clickvol.layers.norms import ChannelLayerNorm

# Section 3.2: kernels of 7^3, in the first projection as in the blocks; channels are scaled by 4 inside.
_KERNEL = 7
_SCALING = 4

# The first projection and three further halvings.
_STEP = (16, 16, 16)


@dataclass(frozen=True, kw_only=True)
class UxNet3dConfig:
    """The whole network. The defaults are the paper's.

    Attributes:
        width: channels at full and at half resolution; doubled at every further one.
        depths: blocks per resolution, from half resolution on.
    """

    kind: Literal["uxnet3d"] = "uxnet3d"
    width: int = 48
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)

    def __post_init__(self) -> None:
        if self.width < 1 or min(self.depths) < 1:
            raise ConfigError(
                f"width is {self.width} and depths are {self.depths}, but numbers from 1 on are expected"
            )

    def patch_step_dhw(self, patch_shape_dhw: Triple) -> Triple:
        """Return 16 per axis, four halvings; ConfigError for a patch that shrinks to one cell."""
        require_side(patch_shape_dhw, 2 * _STEP[0], "3D UX-Net")
        return _STEP


class UxBlock(nn.Module):
    """Large-kernel convolution and scaling, each of one channel at a time, each behind a norm and added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_places = ChannelLayerNorm(channels)
        self.places = nn.Conv3d(channels, channels, kernel_size=_KERNEL, padding=_KERNEL // 2, groups=channels)
        self.norm_scaling = ChannelLayerNorm(channels)
        self.enlarge = nn.Conv3d(channels, _SCALING * channels, kernel_size=1, groups=channels)
        self.reduce = nn.Conv3d(_SCALING * channels, channels, kernel_size=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, d, h, w) -> (B, C, d, h, w)."""
        x = x + self.places(self.norm_places(x))
        return torch.as_tensor(x + self.reduce(F.gelu(self.enlarge(self.norm_scaling(x)))))


class UxNet3d(nn.Module):
    """The network."""

    def __init__(self, config: UxNet3dConfig, num_channels: int = 1) -> None:
        super().__init__()
        width = config.width
        widths = [width * 2**level for level in range(4)]
        self.shrink = nn.ModuleList(
            [nn.Conv3d(num_channels, width, kernel_size=_KERNEL, stride=2, padding=_KERNEL // 2)]
        )
        for a, b in itertools.pairwise(widths):
            halve = nn.Conv3d(a, b, kernel_size=2, stride=2)
            self.shrink.append(nn.Sequential(ChannelLayerNorm(a), halve))
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*[UxBlock(channels) for _ in range(depth)])
                for channels, depth in zip(widths, config.depths, strict=True)
            ]
        )
        self.norms = nn.ModuleList([ChannelLayerNorm(channels) for channels in widths])
        # What the decoder takes: the patch itself, and every resolution with its channels doubled.
        self.kept = nn.ModuleList([ResidualConv(num_channels, width)])
        self.kept.extend([ResidualConv(channels, 2 * channels) for channels in widths])
        levels = [*reversed(widths)]
        self.merge = nn.ModuleList([RaiseAndMerge(2 * a, a) for a in levels])
        self.last = ResidualConv(width, width)
        self.classify = nn.Conv3d(width, NUM_CLASSES, kernel_size=1)

    def forward(self, patch: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, 2, D, H, W) logits; sides are multiples of 16, else ConfigError."""
        d, h, w = patch.shape[2:]
        require_multiple((d, h, w), _STEP, "3D UX-Net")
        first, *rest = self.kept
        kept, x = [first(patch)], patch
        for shrink, stage, norm, keep in zip(self.shrink, self.stages, self.norms, rest, strict=True):
            x = stage(shrink(x))
            kept.append(keep(norm(x)))
        x = kept.pop()
        for merge, skip in zip(self.merge, reversed(kept), strict=True):
            x = merge(x, skip)
        return torch.as_tensor(self.classify(self.last(x)))


BASELINE = Baseline(
    config_type=UxNet3dConfig,
    build=lambda config, _, num_channels: UxNet3d(config, num_channels),
    sizes={
        "paper": ((96, 96, 96), UxNet3dConfig()),
        "small": ((64, 64, 64), UxNet3dConfig(width=16)),
        "tiny": ((32, 32, 32), UxNet3dConfig(width=4, depths=(1, 1, 1, 1))),
    },
)
