"""TinyViT as the image encoder of LiteMedSAM: a 2D image to a map for SAM's mask decoder.

Wu et al., "TinyViT", ECCV 2022, in the form that MobileSAM (Zhang et al. 2023, arXiv 2306.14289) gave it:
the last two stages share a grid, and SAM's neck follows. State-dict names are those of the published
weights (`image_encoder.*` of LiteMedSAM) without their prefix.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.slice_features import SliceFeatures
from clickvol.layers.norms import ChannelLayerNorm
from clickvol.layers.tiny_vit import ConvNorm2d, InvertedBottleneck, PatchMerging, TinyVitBlock

IMAGE_CHANNELS = 3
"""Channels of the input; a grey image is copied to all of them."""

# Hidden over outer channels of the blocks of the first stage; from the shapes of the published weights.
_MBCONV_EXPANSION = 4


@dataclass(frozen=True, kw_only=True)
class TinyVitConfig:
    """Sizes of a TinyViT. The defaults are LiteMedSAM's, read off the shapes of its weights.

    Attributes:
        image_side: side of the square image that the published weights were trained on, in pixels; others are
            possible.
        num_heads: attention heads of the stages; the first is not used.
        windows: side of the attention windows of the stages in tokens; the first is not used.
        embedding_kernel: side of both kernels of the embedding: 1 in LiteMedSAM (its weights' shapes), 3 in
            TinyViT and MobileSAM.
        embedding_stride: step of both convolutions of the embedding: 1 in LiteMedSAM, 2 in TinyViT and
            MobileSAM. Weights do not state it; 1 makes of 256 pixels the 64 places that LiteMedSAM's prompt
            encoder has, and its running means fit the features of real slices better.
        merging_strides: step between one stage and the next; the step to the width 320 keeps the grid in
            MobileSAM.
    """

    kind: Literal["tiny_vit"] = "tiny_vit"
    image_side: int = 256
    widths: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    windows: tuple[int, ...] = (7, 7, 14, 7)
    embedding_kernel: int = 1
    embedding_stride: int = 1
    merging_strides: tuple[int, ...] = (2, 2, 1)
    mlp_ratio: float = 4.0
    feature_width: int = 256

    def __post_init__(self) -> None:
        stages = len(self.widths)
        lengths = {len(self.depths), len(self.num_heads), len(self.windows)}
        if stages < 1 or lengths != {stages} or len(self.merging_strides) != stages - 1:
            raise ConfigError(
                f"widths {self.widths}, depths {self.depths}, num_heads {self.num_heads} and windows "
                f"{self.windows} must have one value per stage, and merging_strides "
                f"{self.merging_strides} one fewer"
            )
        for width, heads in zip(self.widths[1:], self.num_heads[1:], strict=True):
            if width % heads:
                raise ConfigError(f"width {width} is not a multiple of num_heads {heads} in its stage")
        if self.widths[0] % 2:
            raise ConfigError(f"the first width is {self.widths[0]}, but the embedding halves it: make it even")
        if self.embedding_kernel % 2 == 0:
            raise ConfigError(
                f"embedding_kernel is {self.embedding_kernel}, but it must be odd, such as 1 or 3"
            )

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """Pixels per token and axis in each stage: (1, 2, 4, 4) in LiteMedSAM."""
        first = self.embedding_stride**2
        steps = self.merging_strides
        return tuple(first * prod(steps[:stage]) for stage in range(len(self.widths)))


class PatchEmbedding(nn.Module):
    """Two normalised convolutions with GELU between: (B, 3, H, W) -> (B, E, h, w)."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        width, kernel, stride = config.widths[0], config.embedding_kernel, config.embedding_stride
        self.seq = nn.Sequential(
            ConvNorm2d(IMAGE_CHANNELS, width // 2, kernel=kernel, stride=stride),
            nn.GELU(),
            ConvNorm2d(width // 2, width, kernel=kernel, stride=stride),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, E, h, w)."""
        embedded: Tensor = self.seq(image)
        return embedded


class TinyVitStage(nn.Module):
    """Blocks of one width, and the step to the next stage where there is one."""

    def __init__(self, config: TinyVitConfig, stage: int) -> None:
        super().__init__()
        width = config.widths[stage]
        self.blocks = nn.Sequential(*[_make_block(config, stage, width) for _ in range(config.depths[stage])])
        is_last = stage + 1 == len(config.widths)
        self.downsample = (
            None
            if is_last
            else PatchMerging(width, config.widths[stage + 1], stride=config.merging_strides[stage])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks: (B, E, h, w) -> (B, E, h, w)."""
        return torch.as_tensor(self.blocks(x))

    def leave(self, x: Tensor) -> Tensor:
        """Step to the next stage: (B, E, h, w) -> (B, E_next, h', w'); the last stage changes nothing."""
        return x if self.downsample is None else torch.as_tensor(self.downsample(x))


def _make_block(config: TinyVitConfig, stage: int, width: int) -> nn.Module:
    if stage == 0:
        return InvertedBottleneck(width, _MBCONV_EXPANSION * width)
    return TinyVitBlock(
        width, config.num_heads[stage], window=config.windows[stage], hidden=int(width * config.mlp_ratio)
    )


class TinyVitStages(nn.Module):
    """The embedding and the stages, without SAM's neck; whoever holds it runs the stages in turn."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config)
        self.layers = nn.ModuleList([TinyVitStage(config, i) for i in range(len(config.widths))])

    @property
    def stages(self) -> list[TinyVitStage]:
        """The stages in order."""
        return cast("list[TinyVitStage]", list(self.layers))


class TinyVit(TinyVitStages):
    """An image to SAM's embedding and the outputs of the stages."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__(config)
        self.neck = nn.Sequential(
            nn.Conv2d(config.widths[-1], config.feature_width, kernel_size=1, bias=False),
            ChannelLayerNorm(config.feature_width),
            nn.Conv2d(config.feature_width, config.feature_width, kernel_size=3, padding=1, bias=False),
            ChannelLayerNorm(config.feature_width),
        )

    def forward(self, image: Tensor) -> SliceFeatures:
        """Encode images (B, 3, H, W) in 0..1; grey images have three equal channels.

        The published weights saw sides of 256, the longer side of the image filling it, the rest zero at the
        far end.

        Returns:
            The embedding (B, feature_width, H / s, W / s), s being the last of `config.stage_strides`, and one
            tap per stage: what its blocks give, before the step to the next one. Sides that are no multiple of
            the stride are rounded up.
        """
        x = self.patch_embed(image)
        taps: list[Tensor] = []
        for stage in self.stages:
            taps.append(stage(x))
            x = stage.leave(taps[-1])
        return SliceFeatures(embedding=self.neck(x), taps=tuple(taps))
