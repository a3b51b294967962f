"""SAM's image encoder: a plain ViT on one 2D image, frozen in every method that uses it.

Segment Anything (Kirillov et al. 2023, arXiv 2304.02643), appendix A. Parameters have the names of SAM's own
files.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.layers.norms import ChannelLayerNorm
from clickvol.layers.vit2d import VitBlock2d

SAM_SIZES = {
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}
"""Width, depth, heads and global blocks of SAM's encoders (its paper, appendix A, and the released build)."""


@dataclass(frozen=True, kw_only=True)
class SamVit2dConfig:
    """Sizes of the encoder. The defaults are those of SAM ViT-B.

    Attributes:
        image_side: side of the square image in pixels; a multiple of patch_side. SAM has 1024; the tables are
            made for it, so it is the only side that a network takes.
        taps: indices of the blocks whose output is returned beside the embedding, shallow to deep.
        feature_width: channels of the embedding, after the neck.
    """

    kind: Literal["sam_vit2d"] = "sam_vit2d"
    image_side: int = 1024
    patch_side: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    window: int = 14
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    taps: tuple[int, ...] = (2, 5, 8, 11)
    feature_width: int = 256

    def __post_init__(self) -> None:
        if self.image_side < 1 or self.image_side % self.patch_side:
            raise ConfigError(f"image_side {self.image_side} is not a multiple of patch_side {self.patch_side}")
        if self.width % self.num_heads:
            raise ConfigError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.window < 1:
            raise ConfigError(f"window is {self.window}, but a window has at least one token")
        for name, blocks in (("taps", self.taps), ("global_blocks", self.global_blocks)):
            if list(blocks) != sorted(set(blocks) & set(range(self.depth))):
                raise ConfigError(f"{name} {blocks} must be increasing block indices below depth {self.depth}")

    @property
    def grid_side(self) -> int:
        """Tokens, and cells of the embedding, per side."""
        return self.image_side // self.patch_side


class PatchEmbedding(nn.Module):
    """Square patches of the image to tokens, by one convolution."""

    def __init__(self, patch_side: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_side, stride=patch_side)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, h, w, E)."""
        return torch.as_tensor(self.proj(image)).permute(0, 2, 3, 1)


class SamVit2d(nn.Module):
    """Image -> embedding and taps."""

    def __init__(self, config: SamVit2dConfig) -> None:
        super().__init__()
        self.config = config
        side, width = config.grid_side, config.feature_width
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.width))
        self.patch_embed = PatchEmbedding(config.patch_side, config.width)
        self.blocks = nn.ModuleList(
            [
                VitBlock2d(
                    config.width,
                    config.num_heads,
                    mlp_ratio=config.mlp_ratio,
                    window=0 if index in config.global_blocks else config.window,
                    grid_side=side,
                )
                for index in range(config.depth)
            ]
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.width, width, kernel_size=1, bias=False),
            ChannelLayerNorm(width),
            nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
            ChannelLayerNorm(width),
        )

    def forward(self, image: Tensor) -> SliceFeatures:
        """Encode normalised images (B, 3, S, S), S being image_side, else ConfigError.

        Returns:
            The embedding (B, feature_width, s, s) and the taps (B, width, s, s), s being grid_side.
        """
        side = self.config.image_side
        if tuple(image.shape[1:]) != (3, side, side):
            raise ConfigError(
                f"the image has shape {tuple(image.shape)}, but this encoder takes (B, 3, {side}, {side}); "
                "resize and pad it first"
            )
        tokens = self.patch_embed(image) + self.pos_embed
        taps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.config.taps:
                taps.append(tokens.permute(0, 3, 1, 2))
        return SliceFeatures(embedding=self.neck(tokens.permute(0, 3, 1, 2)), taps=tuple(taps))
