"""The decoder of ProMISe-3D: feature maps of several depths and a shallow CNN on the image, joined.

The first convolution after the concatenation is a sum over groups of channels. Only the deepest map (and
the drawn prompts, where used) depend on the clicks; the sum over everything else is made once per patch
(`prepare`) and kept. InstanceNorm comes after the sum, so this is exact.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import ImageFeatures
from clickvol.layers.conv3d import DoubleConv, UShape, conv3
from clickvol.layers.norms import InstanceNormReLU


@dataclass(frozen=True, kw_only=True)
class MultiLevelDecoderConfig:
    """Sizes of the decoder. The defaults are the published ones.

    Attributes:
        feature_width: channels of the encoder's maps.
        num_levels: number of those maps.
        width: channels of each level after its two convolutions, and of the joined map.
        image_width: channels of the branch on the image.
        token_stride: patch voxels per cell of the maps; the decoder works on every second voxel, so
            the transposed convolutions enlarge by token_stride / 2.
        num_prompt_maps: channels of drawn clicks and of an earlier mask, joined at half resolution; 0 as
            published.
        joined_scales: widths of further, coarser scales that the joined map passes through before the
            last convolution (a small U-Net, all of it after the click); none as published.
    """

    feature_width: int = 256
    num_levels: int = 4
    width: int = 128
    image_width: int = 128
    token_stride: int = 4
    num_prompt_maps: int = 0
    joined_scales: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.token_stride < 2 or self.token_stride % 2:
            msg = (
                f"token_stride is {self.token_stride}, but the decoder works on every second voxel; "
                "it must be even"
            )
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What the decoder needs of a patch and no click changes.

    Attributes:
        partial_sum: (B, width, D/2, H/2, W/2): first joined convolution over all fixed channels.
    """

    partial_sum: Tensor


class MultiLevelDecoder(nn.Module):
    """Feature maps and image -> logits of background and object, on the patch grid."""

    def __init__(self, config: MultiLevelDecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, levels = config.width, config.num_levels
        factor = config.token_stride // 2
        self.level_convs = nn.ModuleList(
            [DoubleConv(config.feature_width, width) for _ in range(levels)]
        )
        self.level_ups = nn.ModuleList(
            [
                nn.ConvTranspose3d(width, width, kernel_size=factor, stride=factor)
                for _ in range(levels)
            ]
        )
        self.image_branch = DoubleConv(1, config.image_width)
        joined = levels * width + config.image_width + 1 + config.num_prompt_maps
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
        half = half_resolution(patch)
        fixed = [self._level(i, fmap) for i, fmap in enumerate(features.maps[:-1])]
        fixed += [self.image_branch(half), half]
        weight = self.join.weight
        before = self.config.width * (self.config.num_levels - 1)
        after = before + self.config.width
        num_image = self.config.image_width + 1
        fixed_weight = torch.cat([weight[:, :before], weight[:, after : after + num_image]], dim=1)
        return PreparedImage(F.conv3d(torch.cat(fixed, dim=1), fixed_weight, padding=1))

    def forward(
        self, prepared: PreparedImage, prompted_map: Tensor, prompt_maps: Tensor | None
    ) -> Tensor:
        """Finish the decoding for the clicks at hand.

        Args:
            prepared: from `prepare`.
            prompted_map: (B, feature_width, d, h, w), the deepest map after the prompt encoder.
            prompt_maps: (B, num_prompt_maps, D/2, H/2, W/2), or None where the config has none.

        Returns:
            (B, 2, D, H, W) logits, background first, to be soft-maxed.
        """
        deepest = self._level(self.config.num_levels - 1, prompted_map)
        weight = self.join.weight
        before = self.config.width * (self.config.num_levels - 1)
        after = before + self.config.width
        changing, changing_weight = deepest, weight[:, before:after]
        if prompt_maps is not None:
            changing = torch.cat([deepest, prompt_maps.to(deepest.dtype)], dim=1)
            prompt_weight = weight[:, after + self.config.image_width + 1 :]
            changing_weight = torch.cat([changing_weight, prompt_weight], dim=1)
        joined = prepared.partial_sum + F.conv3d(changing, changing_weight, padding=1)
        joined = self.joined_scales(self.join_norm(joined))
        return F.interpolate(
            self.classify(joined), scale_factor=2, mode="trilinear", align_corners=True
        )

    def _level(self, index: int, feature_map: Tensor) -> Tensor:
        return torch.as_tensor(self.level_ups[index](self.level_convs[index](feature_map)))


def half_resolution(patch: Tensor) -> Tensor:
    """Return the mean of each 2x2x2 voxels: trilinear at factor 1/2 with align_corners false."""
    return F.avg_pool3d(patch, kernel_size=2)
