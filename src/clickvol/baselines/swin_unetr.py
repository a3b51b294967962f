"""Swin UNETR as MONAI implements it.

MONAI takes as long to import as torch, so it is imported where a network is built.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clickvol.baselines.baseline import NUM_CLASSES, Baseline, Triple, require_multiple, require_side, shape_dhw
from clickvol.errors import ConfigError

# The patch embedding and four mergings, each halving every axis.
_SWIN_STEP = (32, 32, 32)


@dataclass(frozen=True, kw_only=True)
class SwinUnetrConfig:
    """Swin UNETR (Hatamizadeh et al., BrainLes 2021, arXiv 2201.01266). The defaults are the paper's.

    Attributes:
        width: channels at half resolution; doubled at every further one.
        depths: transformer blocks per resolution.
        num_heads: attention heads per resolution.
        window: side of an attention window, tokens.
    """

    kind: Literal["swin_unetr"] = "swin_unetr"
    width: int = 48
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    num_heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7

    def __post_init__(self) -> None:
        # 12: MONAI's own condition.
        if self.width % 12 or any(self.width * 2**level % heads for level, heads in enumerate(self.num_heads)):
            raise ConfigError(
                f"width is {self.width}, but Swin UNETR needs a multiple of 12 that num_heads "
                f"({self.num_heads}) divide"
            )

    def patch_step_dhw(self, patch_shape_dhw: Triple) -> Triple:
        """Return 32 per axis, five halvings; ConfigError for a patch that shrinks to one cell."""
        require_side(patch_shape_dhw, 2 * _SWIN_STEP[0], "Swin UNETR")
        return _SWIN_STEP


class SwinUnetr(nn.Module):
    """MONAI's Swin UNETR."""

    def __init__(self, config: SwinUnetrConfig, num_channels: int = 1) -> None:
        super().__init__()
        from monai.networks.nets.swin_unetr import SwinUNETR

        # MONAI computes with numbers while it builds, which no meta device can.
        with torch.device("cpu"):
            self.made = SwinUNETR(
                num_channels,
                NUM_CLASSES,
                feature_size=config.width,
                depths=config.depths,
                num_heads=config.num_heads,
                window_size=config.window,
            )
        # What follows from the configuration is no weight.
        for module in self.made.modules():
            index = getattr(module, "relative_position_index", None)
            if index is not None:
                module.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, patch: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, 2, D, H, W) logits; sides of 32 n, one at least 64, else ConfigError."""
        require_multiple(shape_dhw(patch), _SWIN_STEP, "Swin UNETR")
        return torch.as_tensor(self.made(patch))


BASELINE = Baseline(
    config_type=SwinUnetrConfig,
    build=lambda config, _, num_channels: SwinUnetr(config, num_channels),
    sizes={
        "paper": ((96, 96, 96), SwinUnetrConfig()),
        # Its widths are multiples of 12 only; windows of 7^3 tokens alone would take four times as long as all
        # the rest.
        "small": ((64, 64, 64), SwinUnetrConfig(width=24, window=4)),
        "tiny": ((32, 32, 64), SwinUnetrConfig(width=12, num_heads=(1, 2, 2, 4), window=4)),
    },
)
