"""A 2D TinyViT lifted to volumes: it runs slice by slice, and 3D adapters between its stages join them.

The idea is that of the lifted ViT (ProMISe-3D, section 2.2; 3DSAM-adapter, section 3.2): a frozen or tuned 2D
foundation, and small adapters with depth-wise 3D convolutions through which information flows along d.
No paper describes it for TinyViT; what is not taken from there is chosen here and says why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError, DamagedWeightsError
from clickvol.image_encoders.lifted_vit3d import ImageFeatures, channels_of, make_neck
from clickvol.image_encoders.text_alignment import TextAlignment, TextAlignmentConfig
from clickvol.image_encoders.tiny_vit import IMAGE_CHANNELS, TinyVit, TinyVitConfig, TinyVitStages
from clickvol.layers.adapters import Adapter3d, AdapterInitialisation
from clickvol.layers.state import state_faults

# Normalised patches end at -1.6 and 1.6, the middle of their window being 0 (see preprocessing.intensity).
# On CT that is -160..240 HU, the very window that LiteMedSAM was trained on as 0..1.
_NORMALISED_END = 1.6

# An adapter of a narrow stage keeps this many channels, so that it can still tell things apart. Not stated in
# any paper; the published adapters have 384.
_LEAST_ADAPTER_WIDTH = 16

# Pixels that one step of inference works on, so that the fourfold wider maps inside a block of the first stage
# stay below 70 MB whatever the patch.
_CHUNK_PIXELS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class LiftedTinyVitConfig:
    """Sizes of the lifted TinyViT.

    Attributes:
        slice_encoder: the 2D network.
        in_plane_enlargement: how often a slice is enlarged in h and w (bilinear) before the 2D network sees it.
            LiteMedSAM saw whole slices on 256 pixels, so 1.4 to 2 mm each: 1 suits patches of about that voxel
            size.
        slice_steps: how many neighbouring slices are averaged into one before each stage, the first time as
            images, before the embedding. Their product must divide the token stride. (1, 1, 1, 1) takes every
            slice through the whole network; the default thins them as the stages do in the plane, for a fifth
            of the work. With LiteMedSAM's weights on six CT patches its features kept cosines of .95 to .99 to
            those; averaging 8 images at once, (8, 1, 1, 1), left .78 to .88.
        feature_width: channels of the feature maps.
        token_stride: voxels of the patch per cell of the feature maps, in all axes.
        adapter_reduction: width of a stage over the hidden width of its adapter; 2 as published, but at least
            16 channels remain.
        adapter_initialisation: "zero" starts as the 2D network slice by slice.
        adapter_final_relu: False lets an adapter subtract too; the published ones cannot.
        first_adapters: an adapter before each stage, too, as ProMISe-3D has two per block of SAM's; the doubled
            residual of its code is left out, since it would leave the range of the frozen norms.
        channel_sources, alignment: as in `LiftedVitConfig`; the alignment comes after each stage's adapter.
        frozen_norms: keep every BatchNorm at its running statistics, also in training. Right for loaded
            weights, whose statistics come from far more images than a patch has slices. False for a network
            trained from scratch, whose statistics mean nothing yet.
    """

    kind: Literal["lifted_tiny_vit3d"] = "lifted_tiny_vit3d"
    slice_encoder: TinyVitConfig = field(default_factory=TinyVitConfig)
    in_plane_enlargement: int = 1
    slice_steps: tuple[int, ...] = (2, 2, 2, 1)
    feature_width: int = 96
    token_stride: int = 8
    adapter_reduction: int = 2
    adapter_initialisation: AdapterInitialisation = "zero"
    adapter_final_relu: bool = False
    frozen_norms: bool = True
    first_adapters: bool = False
    channel_sources: tuple[int, int, int] = (0, 0, 0)
    alignment: TextAlignmentConfig | None = None

    def __post_init__(self) -> None:
        strides = self.slice_encoder.stage_strides
        if len(self.slice_steps) != len(strides) or min(self.slice_steps) < 1:
            raise ConfigError(
                f"slice_steps {self.slice_steps} must be {len(strides)} numbers from 1, one per stage"
            )
        if self.token_stride % prod(self.slice_steps):
            raise ConfigError(
                f"slice_steps {self.slice_steps} join {prod(self.slice_steps)} slices, which does not "
                f"divide token_stride {self.token_stride}"
            )
        pixels = self.token_stride * self.in_plane_enlargement
        if self.in_plane_enlargement < 1 or any(pixels % stride for stride in strides):
            raise ConfigError(
                f"token_stride {self.token_stride} times in_plane_enlargement "
                f"{self.in_plane_enlargement} must be a multiple of the 2D strides {strides}"
            )
        if self.adapter_reduction < 1:
            raise ConfigError(f"adapter_reduction is {self.adapter_reduction}, but it must be 1 or more")

    @property
    def taps(self) -> tuple[int, ...]:
        """Indices of the stages whose output becomes a feature map: all of them."""
        return tuple(range(len(self.slice_encoder.widths)))

    @property
    def num_channels(self) -> int:
        """Channels of a patch."""
        return channels_of(self.channel_sources)


def images_from_patch(
    patch: Tensor, in_plane_enlargement: int, channel_sources: tuple[int, int, int] = (0, 0, 0)
) -> Tensor:
    """Return what the 2D network sees of a patch (B, C, D, H, W), normalised to -1.6..1.6.

    `channel_sources` says which channel of the patch is each colour.

    Returns:
        (B, D, r H, r W, 3) in 0..1, r the enlargement; values beyond the window are clipped.
    """
    grey = ((patch + _NORMALISED_END) / (2 * _NORMALISED_END)).clamp(0, 1)
    if in_plane_enlargement > 1:
        # The slices stand where channels stand: nothing is interpolated along d.
        grey = torch.stack(
            [
                F.interpolate(one, scale_factor=in_plane_enlargement, mode="bilinear", align_corners=False)
                for one in grey.unbind(1)
            ],
            dim=1,
        )
    if set(channel_sources) == {0}:
        return grey[:, 0, ..., None].expand(-1, -1, -1, -1, IMAGE_CHANNELS)
    return torch.stack([grey[:, source] for source in channel_sources], dim=-1)


def slice_by_slice(function: Callable[[Tensor], Tensor], tokens: Tensor, *, whole: bool) -> Tensor:
    """Apply a function (n, E, h, w) -> (n, E', h', w') to every slice of (B, d, h, w, E): (B, d, h', w', E').

    The only place where slices stand in the batch axis. `whole` applies it to all slices at once, which norms
    with batch statistics need; else it goes piece by piece.
    """
    b, d, h, w, _ = tokens.shape
    images = tokens.flatten(0, 1).permute(0, 3, 1, 2)
    per_piece = max(1, _CHUNK_PIXELS // (h * w))
    if whole or per_piece >= b * d:
        mapped = function(images)
    else:
        mapped = torch.cat([function(piece) for piece in torch.split(images, per_piece)])
    return mapped.permute(0, 2, 3, 1).view(b, d, mapped.shape[2], mapped.shape[3], mapped.shape[1])


def average_blocks(tokens: Tensor, block_dhw: tuple[int, int, int]) -> Tensor:
    """Average blocks of whole cells: (B, d, h, w, E) -> (B, d / kd, h / kh, w / kw, E)."""
    if block_dhw == (1, 1, 1):
        return tokens
    b, d, h, w, e = tokens.shape
    kd, kh, kw = block_dhw
    # Not by avg_pool3d, which copies maps that have their channels last.
    return tokens.reshape(b, d // kd, kd, h // kh, kh, w // kw, kw, e).mean(dim=(2, 4, 6))


class LiftedTinyVit3d(nn.Module):
    """TinyViT over the slices of a patch, joined by 3D adapters: (B, 1, D, H, W) -> ImageFeatures."""

    def __init__(self, config: LiftedTinyVitConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.slice_encoder.widths
        self.slice_encoder = TinyVitStages(config.slice_encoder)
        self.adapters = _adapters(config)
        self.first_adapters = _adapters(config) if config.first_adapters else None
        self.alignments = (
            None
            if config.alignment is None
            else nn.ModuleList([TextAlignment(width, config.alignment) for width in widths])
        )
        self.necks = nn.ModuleList([make_neck(width, config.feature_width) for width in widths])

    def forward(self, patch: Tensor) -> ImageFeatures:
        """Encode a patch (B, C, D, H, W) in -1.6..1.6, the slices along d.

        Returns:
            One map per stage, (B, feature_width, D / stride, H / stride, W / stride).

        Raises:
            ConfigError: when a side is no multiple of the token stride, or it has other channels.
        """
        stride, channels = self.config.token_stride, self.config.num_channels
        if patch.shape[1] != channels or any(n % stride for n in patch.shape[2:]):
            raise ConfigError(
                f"the patch has shape (C, D, H, W) {tuple(patch.shape[1:])}, but C must be {channels} and "
                f"every side must be a multiple of {stride}"
            )
        outputs, aligned = self.stage_outputs(patch)
        return ImageFeatures(
            tuple(
                neck(self._to_grid(tokens, patch).permute(0, 4, 1, 2, 3))
                for neck, tokens in zip(self.necks, outputs, strict=True)
            ),
            tuple(tokens.permute(0, 4, 1, 2, 3) for tokens in aligned),
        )

    def stage_outputs(self, patch: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return what the stages give after their adapters, before the feature maps, and that in text space.

        Returns:
            (B, d_i, h_i, w_i, E_i) each: the patch's slices over the steps so far, and its enlarged
            sides over the 2D stride of the stage; the second ones (B, d_i, h_i, w_i, E_text), none without
            alignment.
        """
        whole = torch.is_grad_enabled() or self.slice_encoder.training
        tokens = images_from_patch(patch, self.config.in_plane_enlargement, self.config.channel_sources)
        steps = self.config.slice_steps
        tokens = average_blocks(tokens, (steps[0], 1, 1))
        tokens = slice_by_slice(self.slice_encoder.patch_embed, tokens, whole=whole)
        outputs: list[Tensor] = []
        aligned: list[Tensor] = []
        for index, stage in enumerate(self.slice_encoder.stages):
            if index:
                tokens = average_blocks(tokens, (steps[index], 1, 1))
            if self.first_adapters is not None:
                tokens = tokens + self.first_adapters[index](tokens)
            tokens = slice_by_slice(stage, tokens, whole=whole)
            tokens = tokens + self.adapters[index](tokens)
            if self.alignments is not None:
                tokens, in_text_space = self.alignments[index](tokens)
                aligned.append(in_text_space)
            outputs.append(tokens)
            tokens = slice_by_slice(stage.leave, tokens, whole=whole)
        return tuple(outputs), tuple(aligned)

    def _to_grid(self, tokens: Tensor, patch: Tensor) -> Tensor:
        """(B, d_i, h_i, w_i, E) -> (B, D / stride, H / stride, W / stride, E) by averaging."""
        stride = self.config.token_stride
        d, h, w = (
            cells * stride // voxels for cells, voxels in zip(tokens.shape[1:4], patch.shape[2:], strict=True)
        )
        return average_blocks(tokens, (d, h, w))

    def train(self, mode: bool = True) -> "LiftedTinyVit3d":  # noqa: FBT001, FBT002
        """Set the mode of all parts; frozen norms stay at their running statistics."""
        super().train(mode)
        if self.config.frozen_norms:
            for part in self.slice_encoder.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self

    def foundation_parameter_names(self) -> tuple[str, ...]:
        """Return the names of the parameters that the 2D weights fill; all others are new."""
        return tuple(name for name, _ in self.named_parameters() if name.startswith("slice_encoder."))

    def load_slice_encoder(self, state: Mapping[str, Tensor]) -> None:
        """Take over a 2D TinyViT, adapters and necks stay as they are; DamagedWeightsError if it is another.

        The state is that of the whole 2D encoder, as LiteMedSAM's file names it without `image_encoder.`. SAM's
        2D neck (`neck.*`) must be there and is left out.
        """
        with torch.device("meta"):
            expected = TinyVit(self.config.slice_encoder).state_dict()
        if faults := state_faults(state, expected):
            raise DamagedWeightsError(
                f"{len(faults)} tensors of the 2D encoder are missing, left over or of another shape "
                f"({'; '.join(faults[:5])}): give a file that fits its configuration"
            )
        own = self.slice_encoder.state_dict()
        self.slice_encoder.load_state_dict({name: state[name] for name in own}, strict=True)


def _adapters(config: LiftedTinyVitConfig) -> nn.ModuleList:
    return nn.ModuleList(
        [
            Adapter3d(
                width,
                max(_LEAST_ADAPTER_WIDTH, width // config.adapter_reduction),
                initialisation=config.adapter_initialisation,
                final_relu=config.adapter_final_relu,
            )
            for width in config.slice_encoder.widths
        ]
    )
