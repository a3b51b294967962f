"""The decoder of the 3D methods: feature maps of several depths and the image, joined.

3DSAM-adapter enlarges the maps by interpolation and joins the image itself; ProMISe-3D enlarges them by
transposed convolutions and adds a shallow CNN on the image, whose result is either joined as further
channels (C in the paper's Table 2) or added to every map (R).

The first convolution after the concatenation is a sum over groups of channels. Only the deepest map (and
the drawn prompts, where used) depend on the clicks; the sum over everything else is made once per patch
(`prepare`) and kept. InstanceNorm comes after the sum, so this is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import ImageFeatures
from clickvol.layers.conv3d import DoubleConv, UShape, conv3, convolve
from clickvol.layers.norms import InstanceNormReLU

LevelEnlargement = Literal["transposed", "trilinear"]
ImageFusion = Literal["concatenated", "added", "none"]


@dataclass(frozen=True, kw_only=True)
class MultiLevelDecoderConfig:
    """Sizes of the decoder. The defaults are those of the released ProMISe-3D.

    Attributes:
        width: channels of each level after its two convolutions, and of the joined map.
        image_width: channels of the branch on the image; 0 without one.
        decoder_stride: patch voxels per voxel that the decoder works on; the maps are enlarged by token_stride
            / decoder_stride before they are joined, the logits by decoder_stride at the end.
        level_enlargement: "transposed" convolutions (ProMISe-3D) or "trilinear" interpolation (3DSAM-adapter).
        image_fusion: how the branch on the image is used: "concatenated" (ProMISe-C), "added" to every enlarged
            map (ProMISe-R; the paper does not say to which maps: to all of them, because this needs no further
            parameters), or "none" (3DSAM-adapter). The image itself is always joined.
        num_prompt_maps: channels of drawn clicks and of an earlier mask, joined on the decoder's grid; 0 as
            published.
        joined_scales: widths of further, coarser scales that the joined map passes through before the last
            convolution (a small U-Net, all of it after the click); none as published.
    """

    feature_width: int = 256
    num_levels: int = 4
    width: int = 128
    image_width: int = 128
    token_stride: int = 4
    decoder_stride: int = 2
    level_enlargement: LevelEnlargement = "transposed"
    image_fusion: ImageFusion = "concatenated"
    num_prompt_maps: int = 0
    joined_scales: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.token_stride < self.decoder_stride or self.token_stride % self.decoder_stride:
            raise ConfigError(
                f"token_stride is {self.token_stride}, but the decoder works on every "
                f"{self.decoder_stride}th voxel; it must be a multiple of that"
            )
        wanted = {"concatenated": max(1, self.image_width), "added": self.width, "none": 0}
        if self.image_width != wanted[self.image_fusion]:
            raise ConfigError(
                f"image_width is {self.image_width}, but image_fusion {self.image_fusion!r} asks for "
                f"{wanted[self.image_fusion]}"
            )

    @property
    def num_fixed_image_channels(self) -> int:
        """Joined channels that come from the image: the image itself, and the branch where joined."""
        return 1 + (self.image_width if self.image_fusion == "concatenated" else 0)


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What the decoder needs of a patch and no click changes.

    Attributes:
        partial_sum: (B, width, D/s, H/s, W/s), s the decoder's stride: first joined convolution over all
            channels that no click changes.
    """

    partial_sum: Tensor


class MultiLevelDecoder(nn.Module):
    """Feature maps and image -> logits of background and object, on the patch grid."""

    def __init__(self, config: MultiLevelDecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, levels = config.width, config.num_levels
        factor = config.token_stride // config.decoder_stride
        self.level_convs = nn.ModuleList([DoubleConv(config.feature_width, width) for _ in range(levels)])
        self.level_ups = nn.ModuleList(
            [
                nn.ConvTranspose3d(width, width, kernel_size=factor, stride=factor)
                if config.level_enlargement == "transposed"
                else nn.Upsample(scale_factor=factor, mode="trilinear", align_corners=True)
                for _ in range(levels)
            ]
        )
        self.image_branch = DoubleConv(1, config.image_width) if config.image_width else None
        joined = levels * width + config.num_fixed_image_channels + config.num_prompt_maps
        self.join = conv3(joined, width)
        self.join_norm = InstanceNormReLU()
        self.joined_scales = UShape((width, *config.joined_scales))
        self.classify = conv3(width, 2)

    def prepare(self, features: ImageFeatures, patch: Tensor) -> PreparedImage:
        """Do everything that no click changes, with all maps but the deepest and the (B, 1, D, H, W) patch."""
        image = channels_last(on_decoder_grid(patch, self.config.decoder_stride))
        over_branch, over_image, _ = self._kernels()
        fixed, kernels = [image], [over_image]
        if self.image_branch is not None:
            fixed.insert(0, self.image_branch(image))
            kernels.insert(0, over_branch)
        if self.config.level_enlargement == "transposed":
            fixed.append(torch.ones_like(image))
            kernels.append(self._bias_kernel())
        # The branch may be in a coarser number format than the image; joined they would have the finer.
        fixed = [channels.to(fixed[0].dtype) for channels in fixed]
        total = convolve(torch.cat(fixed, dim=1), torch.cat(kernels, dim=1))
        if shallow := features.maps[:-1]:
            total = self._over_levels(range(len(shallow)), shallow).add_(total)
        return PreparedImage(total)

    def join_maps(self, prepared: PreparedImage, prompted_map: Tensor, prompt_maps: Tensor | None) -> Tensor:
        """Join what the clicks change with what they do not: (B, width, D/s, H/s, W/s).

        `prompted_map` is (B, feature_width, d, h, w), the deepest map after the prompt encoder, `prompt_maps`
        (B, num_prompt_maps, D/s, H/s, W/s), or None where the config has none.
        """
        last = self.config.num_levels - 1
        joined = self._over_levels(range(last, last + 1), [prompted_map])
        joined.add_(prepared.partial_sum)
        if prompt_maps is not None:
            joined.add_(convolve(channels_last(prompt_maps), self._kernels()[2]))
        return torch.as_tensor(self.joined_scales(self.join_norm(joined)))

    def masks(self, joined: Tensor) -> Tensor:
        """Return (B, 2, D, H, W) logits, background first, to be soft-maxed, of a joined map."""
        return F.interpolate(
            self.classify(joined).contiguous(),
            scale_factor=self.config.decoder_stride,
            mode="trilinear",
            align_corners=True,
        )

    def _over_levels(self, levels: range, maps: Sequence[Tensor]) -> Tensor:
        """Return the first joined convolution over the channels of some levels: (B, width, D/s, H/s, W/s).

        Maps are (B, feature_width, d, h, w) each. What the biases of transposed convolutions add is left out.
        """
        width = self.config.width
        small = [self.level_convs[i](fmap) for i, fmap in zip(levels, maps, strict=True)]
        kernel = self.join.weight[:, levels.start * width : levels.stop * width]
        if self.config.level_enlargement == "trilinear":
            large = [self.level_ups[i](fmap) for i, fmap in zip(levels, small, strict=True)]
            return convolve(torch.cat(large, dim=1), kernel)
        # Two linear maps in a row are one. A transposed convolution of kernel and stride f and a
        # 3x3x3 convolution are a transposed convolution of kernel f + 2, which is the full
        # convolution of both kernels: 69 instead of 241 GFLOP per level in the published sizes.
        merged = [
            F.conv3d(cast(Tensor, self.level_ups[i].weight), part, padding=2)
            for i, part in zip(levels, torch.split(kernel, width, dim=1), strict=True)
        ]
        factor = self.config.token_stride // self.config.decoder_stride
        return F.conv_transpose3d(torch.cat(small, dim=1), torch.cat(merged), stride=factor, padding=1)

    def _bias_kernel(self) -> Tensor:
        """Return what the first joined convolution makes of the biases of all transposed convolutions.

        A bias is a constant map, so it is a kernel over a channel of ones: (width, 1, 3, 3, 3). Zeros
        around that channel do at the border what zeros around the enlarged maps do.
        """
        biases = torch.cat([cast(Tensor, up.bias) for up in self.level_ups])
        kernel = self.join.weight[:, : len(biases)]
        return torch.einsum("oidhw,i->odhw", kernel, biases)[:, None]

    def _kernels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first joined convolution's kernels over what is not of a level: branch, image, prompts.

        (width, channels, 3, 3, 3) each; for a branch that is added to the levels, over their sum.
        """
        config = self.config
        joined_branch = config.num_fixed_image_channels - 1
        sizes = [config.width * config.num_levels, joined_branch, 1, config.num_prompt_maps]
        levels, branch, image, prompts = torch.split(self.join.weight, sizes, dim=1)
        if config.image_fusion == "added":
            # Added to every level, also to the one that is not known yet: one convolution over the
            # sum of the levels' weights.
            branch = torch.stack(torch.split(levels, config.width, dim=1)).sum(dim=0)
        return branch, image, prompts


def on_decoder_grid(patch: Tensor, decoder_stride: int) -> Tensor:
    """Shrink a patch, trilinear (at stride 2 the mean of 2x2x2): (B, C, D, H, W) -> (B, C, D/s, H/s, W/s)."""
    return F.interpolate(patch, scale_factor=1 / decoder_stride, mode="trilinear", align_corners=False)


def channels_last(x: Tensor) -> Tensor:
    """Return (B, C, D, H, W) with the channels last in memory.

    Convolutions keep that order and are up to 1.9 times as fast with it; the encoder's maps have it. A
    single channel lies the same either way, only its strides tell what is meant.
    """
    return torch.empty_like(x, memory_format=torch.channels_last_3d).copy_(x)
