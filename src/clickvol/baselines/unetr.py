"""UNETR as MONAI implements it.

MONAI takes as long to import as torch, so it is imported where a network is built.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clickvol.baselines.baseline import NUM_CLASSES, Baseline, Triple, require_multiple, require_same, shape_dhw
from clickvol.errors import ConfigError

# Side of a token; MONAI's only choice, and the paper's.
_UNETR_TOKEN = (16, 16, 16)


@dataclass(frozen=True, kw_only=True)
class UnetrConfig:
    """UNETR (Hatamizadeh et al., WACV 2022, arXiv 2103.10504): 12 blocks over tokens of 16^3 voxels.

    The defaults are the paper's.

    Attributes:
        width: of a token.
        mlp_width: inside the blocks.
        num_heads: attention heads.
        decoder_width: channels at full resolution; doubled at every further one.
    """

    kind: Literal["unetr"] = "unetr"
    width: int = 768
    mlp_width: int = 3072
    num_heads: int = 12
    decoder_width: int = 16

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ConfigError(f"width is {self.width}, but num_heads ({self.num_heads}) must divide it")

    def patch_step_dhw(self, patch_shape_dhw: Triple) -> Triple:
        """Return the patch itself: positions are learned for its tokens."""
        require_multiple(patch_shape_dhw, _UNETR_TOKEN, "UNETR")
        return patch_shape_dhw


class Unetr(nn.Module):
    """MONAI's UNETR."""

    def __init__(self, config: UnetrConfig, patch_shape_dhw: Triple, num_channels: int = 1) -> None:
        super().__init__()
        from monai.networks.nets.unetr import UNETR

        self._patch_shape_dhw = config.patch_step_dhw(patch_shape_dhw)
        self.made = UNETR(
            num_channels,
            NUM_CLASSES,
            img_size=patch_shape_dhw,
            feature_size=config.decoder_width,
            hidden_size=config.width,
            mlp_dim=config.mlp_width,
            num_heads=config.num_heads,
        )
        # Norms of a cross-attention that this network does not have: nothing would ever train them.
        for block in self.made.vit.blocks:
            block.norm_cross_attn = nn.Identity()

    def forward(self, patch: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, 2, D, H, W) logits; ConfigError for another shape than its own."""
        require_same(shape_dhw(patch), self._patch_shape_dhw, "UNETR")
        return torch.as_tensor(self.made(patch))


BASELINE = Baseline(
    config_type=UnetrConfig,
    build=Unetr,
    sizes={
        "paper": ((96, 96, 96), UnetrConfig()),
        "small": ((64, 64, 64), UnetrConfig(width=192, mlp_width=768, num_heads=6)),
        "tiny": ((32, 32, 32), UnetrConfig(width=24, mlp_width=48, num_heads=2, decoder_width=4)),
    },
)
