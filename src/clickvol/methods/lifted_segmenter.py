"""The network that ProMISe-3D, 3DSAM-adapter and TAGS share.

A pretrained 2D encoder lifted to volumes, clicks that sample its deepest feature map, and a decoder over
several depths and the image. Which parts and options make which method is said on the methods' own pages.

Options beyond the published networks, all off by default: signed clicks, positions in the prompt encoder
(drawn in ProMISe-3D's figure 3, unused in its released code), clicks drawn as maps, an earlier mask as a
prompt, and coarser scales after the click. The shipped models use them.
"""

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVit3d, LiftedTinyVitConfig
from clickvol.image_encoders.lifted_vit3d import LiftedVit3d, LiftedVitConfig
from clickvol.mask_decoders.candidates import CandidateHead, Candidates
from clickvol.mask_decoders.multi_level import MultiLevelDecoder, MultiLevelDecoderConfig, PreparedImage
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.prompt_encoders.click_maps import draw_clicks
from clickvol.prompt_encoders.feature_sampling import FeatureSampling, FeatureSamplingConfig, PointPrompts

EncoderConfig = Annotated[LiftedVitConfig | LiftedTinyVitConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class LiftedSegmenterConfig:
    """The whole network. The defaults are the released ProMISe-3D.

    Attributes:
        patch_shape_dhw: (D, H, W) of the patch it is made for; other shapes work where every side
            is a multiple of the token stride.
        encoder, prompt, decoder: the three parts. Widths that must agree are checked. Without a prompt
            encoder the network is automatic: it takes no clicks.
        click_radii_voxel: radii of the drawn clicks, patch voxels; none as published.
        mask_prompt: take an earlier mask as a prompt; False as published.
        num_hints: channels of drawn hints (`PointPrompts.hints`: scribbles, boxes, a diameter); 0 as published.
        num_candidates: further masks beside the first, with a predicted Dice for each; 0 as published.
    """

    patch_shape_dhw: tuple[int, int, int] = (128, 128, 128)
    encoder: EncoderConfig = field(default_factory=LiftedVitConfig)
    prompt: FeatureSamplingConfig | None = field(default_factory=FeatureSamplingConfig)
    decoder: MultiLevelDecoderConfig = field(default_factory=MultiLevelDecoderConfig)
    click_radii_voxel: tuple[float, ...] = ()
    mask_prompt: bool = False
    num_hints: int = 0
    num_candidates: int = 0

    @property
    def is_automatic(self) -> bool:
        """Tell whether the network takes no clicks."""
        return self.prompt is None

    @property
    def num_channels(self) -> int:
        """Channels of a patch."""
        return self.encoder.num_channels

    @property
    def patch_step_dhw(self) -> tuple[int, int, int]:
        """What every side of a patch must be a multiple of: the token stride."""
        stride = self.encoder.token_stride
        return (stride, stride, stride)

    @property
    def num_prompt_maps(self) -> int:
        """Channels that the prompts are drawn on: two signs per radius, the earlier mask, the hints."""
        return 2 * len(self.click_radii_voxel) + int(self.mask_prompt) + self.num_hints

    def __post_init__(self) -> None:
        if self.prompt is None and self.num_prompt_maps:
            raise ConfigError(
                "click_radii_voxel, mask_prompt and num_hints need a prompt encoder; this network has none"
            )
        prompt_width = self.encoder.feature_width if self.prompt is None else self.prompt.width
        pairs = (
            ("prompt.width", prompt_width, self.encoder.feature_width),
            ("decoder.feature_width", self.decoder.feature_width, self.encoder.feature_width),
            ("decoder.num_levels", self.decoder.num_levels, len(self.encoder.taps)),
            ("decoder.token_stride", self.decoder.token_stride, self.encoder.token_stride),
            ("decoder.num_prompt_maps", self.decoder.num_prompt_maps, self.num_prompt_maps),
        )
        for name, value, expected in pairs:
            if value != expected:
                raise ConfigError(
                    f"{name} is {value}, but the other parts of the configuration ask for {expected}"
                )


@dataclass(frozen=True, slots=True)
class EncodedPatch:
    """A patch after everything that no click changes; kept for further clicks.

    Attributes:
        deepest_map: (B, E, d, h, w), what the clicks act on.
        prepared: the decoder's share.
        patch_shape_dhw: (D, H, W).
        aligned: each (B, E_text, d, h, w), tokens in text space; empty but for TAGS.
    """

    deepest_map: Tensor
    prepared: PreparedImage
    patch_shape_dhw: tuple[int, int, int]
    aligned: tuple[Tensor, ...] = ()


class LiftedSegmenter(VolumeSegmenter[EncodedPatch]):
    """Patch and clicks -> two-class logits, everything in (d, h, w) order."""

    config: LiftedSegmenterConfig

    def __init__(self, config: LiftedSegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder: LiftedVit3d | LiftedTinyVit3d = (
            LiftedVit3d(config.encoder)
            if isinstance(config.encoder, LiftedVitConfig)
            else LiftedTinyVit3d(config.encoder)
        )
        self.prompt_encoder = None if config.prompt is None else FeatureSampling(config.prompt)
        self.mask_decoder = MultiLevelDecoder(config.decoder)
        self.candidates = (
            CandidateHead(config.decoder.width, config.num_candidates) if config.num_candidates else None
        )
        self.draw_on_features = (
            nn.Conv3d(config.num_prompt_maps, config.encoder.feature_width, kernel_size=1)
            if config.num_prompt_maps
            else None
        )

    def encode_image(self, patch: Tensor) -> EncodedPatch:
        """See `VolumeSegmenter`; further channels of the patch are what the encoder's `channel_sources` say."""
        features = self.image_encoder(patch)
        shape = (patch.shape[2], patch.shape[3], patch.shape[4])
        prepared = self.mask_decoder.prepare(features, patch[:, :1])
        return EncodedPatch(features.deepest, prepared, shape, features.aligned)

    def decode(self, encoded: EncodedPatch, prompts: PointPrompts, prior: Tensor | None = None) -> Tensor:
        """See `VolumeSegmenter`."""
        return self.mask_decoder.masks(self.joined_map(encoded, prompts, prior))

    def decode_candidates(
        self, encoded: EncodedPatch, prompts: PointPrompts, prior: Tensor | None = None
    ) -> tuple[Tensor, Candidates]:
        """Answer the prompts with several masks: what `decode` returns, and candidates, else ConfigError."""
        if self.candidates is None:
            raise ConfigError("this network has no candidates; train one with num_candidates above 0")
        joined = self.joined_map(encoded, prompts, prior)
        logits = self.mask_decoder.masks(joined)
        return logits, self.candidates(joined, logits, self.config.decoder.decoder_stride)

    def joined_map(self, encoded: EncodedPatch, prompts: PointPrompts, prior: Tensor | None = None) -> Tensor:
        """Return what all answers to these prompts are read from: (B, width, D/s, H/s, W/s)."""
        if self.prompt_encoder is None:
            return self.mask_decoder.join_maps(encoded.prepared, encoded.deepest_map, None)
        prompted = self.prompt_encoder(encoded.deepest_map, prompts, encoded.patch_shape_dhw)
        if self.draw_on_features is None:
            return self.mask_decoder.join_maps(encoded.prepared, prompted, None)
        d, h, w = (int(n) for n in prompted.shape[2:])
        prompted = prompted + self.draw_on_features(self._draw(encoded, prompts, prior, (d, h, w)))
        stride = self.config.decoder.decoder_stride
        d, h, w = (n // stride for n in encoded.patch_shape_dhw)
        drawn = self._draw(encoded, prompts, prior, (d, h, w))
        return self.mask_decoder.join_maps(encoded.prepared, prompted, drawn)

    def _draw(
        self,
        encoded: EncodedPatch,
        prompts: PointPrompts,
        prior: Tensor | None,
        map_shape_dhw: tuple[int, int, int],
    ) -> Tensor:
        """Draw clicks, earlier mask and hints on a grid over the patch: (B, num_prompt_maps, d, h, w)."""
        config = self.config
        maps = draw_clicks(prompts, map_shape_dhw, encoded.patch_shape_dhw, config.click_radii_voxel)
        drawn = [maps]
        for channels, given in ((int(config.mask_prompt), prior), (config.num_hints, prompts.hints)):
            if channels and given is None:
                drawn.append(maps.new_zeros((maps.shape[0], channels, *map_shape_dhw)))
            elif channels and given is not None:
                drawn.append(F.adaptive_avg_pool3d(given.to(maps.dtype), map_shape_dhw))
        return torch.cat(drawn, dim=1)
