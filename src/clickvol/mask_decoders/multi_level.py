"""The decoder of the 3D methods: feature maps of several depths and the image, joined.

3DSAM-adapter enlarges the maps by interpolation and joins the image itself; ProMISe-3D enlarges them by
transposed convolutions and adds a shallow CNN on the image, whose result is either joined as further
channels (C in the paper's Table 2) or added to every map (R).

The first convolution after the concatenation is a sum over groups of channels. Only the deepest map (and
the drawn prompts, where used) depend on the clicks; the sum over everything else is made once per patch
(`prepare`) and kept. InstanceNorm comes after the sum, so this is exact.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import ImageFeatures
from clickvol.layers.conv3d import DoubleConv, UShape, conv3
from clickvol.layers.norms import InstanceNormReLU

LevelEnlargement = Literal["transposed", "trilinear"]
ImageFusion = Literal["concatenated", "added", "none"]


@dataclass(frozen=True, kw_only=True)
class MultiLevelDecoderConfig:
    """Sizes of the decoder. The defaults are those of the released ProMISe-3D.

    Attributes:
        feature_width: channels of the encoder's maps.
        num_levels: number of those maps.
        width: channels of each level after its two convolutions, and of the joined map.
        image_width: channels of the branch on the image; 0 without one.
        token_stride: patch voxels per cell of the maps.
        decoder_stride: patch voxels per voxel that the decoder works on; the maps are enlarged by
            token_stride / decoder_stride before they are joined, the logits by decoder_stride at the end.
        level_enlargement: "transposed" convolutions (ProMISe-3D) or "trilinear" interpolation
            (3DSAM-adapter).
        image_fusion: how the branch on the image is used: "concatenated" (ProMISe-C), "added" to every
            enlarged map (ProMISe-R; the paper does not say to which maps: to all of them, because this
            needs no further parameters), or "none" (3DSAM-adapter). The image itself is always joined.
        num_prompt_maps: channels of drawn clicks and of an earlier mask, joined on the decoder's grid; 0
            as published.
        joined_scales: widths of further, coarser scales that the joined map passes through before the
            last convolution (a small U-Net, all of it after the click); none as published.
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
            msg = (
                f"token_stride is {self.token_stride}, but the decoder works on every "
                f"{self.decoder_stride}th voxel; it must be a multiple of that"
            )
            raise ConfigError(msg)
        wanted = {"concatenated": max(1, self.image_width), "added": self.width, "none": 0}
        if self.image_width != wanted[self.image_fusion]:
            msg = (
                f"image_width is {self.image_width}, but image_fusion {self.image_fusion!r} asks for "
                f"{wanted[self.image_fusion]}"
            )
            raise ConfigError(msg)

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
        self.level_convs = nn.ModuleList(
            [DoubleConv(config.feature_width, width) for _ in range(levels)]
        )
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
        """Do everything that no click changes.

        Args:
            features: the encoder's maps; the deepest is not used here.
            patch: (B, 1, D, H, W) normalised.

        Returns:
            The kept partial sum.
        """
        image = on_decoder_grid(patch, self.config.decoder_stride)
        fixed = [self._level(i, fmap) for i, fmap in enumerate(features.maps[:-1])]
        groups = self._weight_groups()
        partial_sum: Tensor | None = None
        if self.image_branch is not None:
            branch = self.image_branch(image)
            if self.config.image_fusion == "concatenated":
                fixed.append(branch)
            else:
                # Added to every level, also to the one that is not known yet: one convolution over the
                # sum of the levels' weights.
                per_level = torch.stack(torch.split(groups.levels, self.config.width, dim=1)).sum(
                    dim=0
                )
                partial_sum = F.conv3d(branch, per_level, padding=1)
        fixed.append(image)
        over_fixed = F.conv3d(torch.cat(fixed, dim=1), groups.fixed, padding=1)
        return PreparedImage(over_fixed if partial_sum is None else over_fixed + partial_sum)

    def forward(
        self, prepared: PreparedImage, prompted_map: Tensor, prompt_maps: Tensor | None
    ) -> Tensor:
        """Finish the decoding for the clicks at hand.

        Args:
            prepared: from `prepare`.
            prompted_map: (B, feature_width, d, h, w), the deepest map after the prompt encoder.
            prompt_maps: (B, num_prompt_maps, D/s, H/s, W/s), or None where the config has none.

        Returns:
            (B, 2, D, H, W) logits, background first, to be soft-maxed.
        """
        deepest = self._level(self.config.num_levels - 1, prompted_map)
        groups = self._weight_groups()
        changing, changing_weight = deepest, groups.deepest
        if prompt_maps is not None:
            changing = torch.cat([deepest, prompt_maps.to(deepest.dtype)], dim=1)
            changing_weight = torch.cat([changing_weight, groups.prompts], dim=1)
        joined = prepared.partial_sum + F.conv3d(changing, changing_weight, padding=1)
        joined = self.joined_scales(self.join_norm(joined))
        return F.interpolate(
            self.classify(joined),
            scale_factor=self.config.decoder_stride,
            mode="trilinear",
            align_corners=True,
        )

    def _level(self, index: int, feature_map: Tensor) -> Tensor:
        return torch.as_tensor(self.level_ups[index](self.level_convs[index](feature_map)))

    def _weight_groups(self) -> "_WeightGroups":
        """Cut the first joined convolution by what its channels depend on."""
        width, levels = self.config.width, self.config.num_levels
        sizes = (width * (levels - 1), width, self.config.num_fixed_image_channels)
        shallow, deepest, image, prompts = torch.split(
            self.join.weight, [*sizes, self.config.num_prompt_maps], dim=1
        )
        return _WeightGroups(
            levels=torch.cat([shallow, deepest], dim=1),
            fixed=torch.cat([shallow, image], dim=1),
            deepest=deepest,
            prompts=prompts,
        )


@dataclass(frozen=True, slots=True)
class _WeightGroups:
    """Kernels (width, channels, 3, 3, 3) over parts of the joined channels.

    Attributes:
        levels: all levels, shallow to deep.
        fixed: the levels but the deepest, and the image.
        deepest: the deepest level.
        prompts: the drawn prompts.
    """

    levels: Tensor
    fixed: Tensor
    deepest: Tensor
    prompts: Tensor


def on_decoder_grid(patch: Tensor, decoder_stride: int) -> Tensor:
    """Shrink a patch, trilinear with align_corners false: (B, C, D, H, W) -> (B, C, D/s, H/s, W/s).

    At a stride of 2 this is the mean of each 2x2x2 voxels.
    """
    return F.interpolate(
        patch, scale_factor=1 / decoder_stride, mode="trilinear", align_corners=False
    )
