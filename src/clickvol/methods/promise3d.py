"""ProMISe-3D: prompt-driven 3D segmentation with a pretrained image foundation model.

Li et al., ISBI 2024, arXiv 2310.19721. A lifted SAM ViT with two adapters per block, clicks that sample
its deepest feature map, and a decoder over four depths and the image.

Options beyond the published network, all off by default: signed clicks, positions in the prompt encoder
(drawn in the paper's figure 3, unused in the released code), clicks drawn as maps, an earlier mask as a
prompt, and coarser scales after the click. The shipped models use them.
"""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import LiftedVit3d, LiftedVitConfig
from clickvol.mask_decoders.multi_level import (
    MultiLevelDecoder,
    MultiLevelDecoderConfig,
    PreparedImage,
)
from clickvol.prompt_encoders.click_maps import draw_clicks
from clickvol.prompt_encoders.feature_sampling import (
    FeatureSampling,
    FeatureSamplingConfig,
    PointPrompts,
)


@dataclass(frozen=True, kw_only=True)
class Promise3dConfig:
    """The whole network.

    Attributes:
        patch_shape_dhw: (D, H, W) of the patch it is made for; other shapes work where every side
            is a multiple of the token stride.
        encoder, prompt, decoder: the three parts. Widths that must agree are checked.
        click_radii_voxel: radii of the drawn clicks, patch voxels; none as published.
        mask_prompt: take an earlier mask as a prompt; False as published.
    """

    patch_shape_dhw: tuple[int, int, int] = (128, 128, 128)
    encoder: LiftedVitConfig = field(default_factory=LiftedVitConfig)
    prompt: FeatureSamplingConfig = field(default_factory=FeatureSamplingConfig)
    decoder: MultiLevelDecoderConfig = field(default_factory=MultiLevelDecoderConfig)
    click_radii_voxel: tuple[float, ...] = ()
    mask_prompt: bool = False

    @property
    def num_prompt_maps(self) -> int:
        """Channels that the prompts are drawn on: two signs per radius, and the earlier mask."""
        return 2 * len(self.click_radii_voxel) + int(self.mask_prompt)

    def __post_init__(self) -> None:
        pairs = (
            ("prompt.width", self.prompt.width, self.encoder.feature_width),
            ("decoder.feature_width", self.decoder.feature_width, self.encoder.feature_width),
            ("decoder.num_levels", self.decoder.num_levels, len(self.encoder.taps)),
            ("decoder.token_stride", self.decoder.token_stride, self.encoder.token_stride),
            ("decoder.num_prompt_maps", self.decoder.num_prompt_maps, self.num_prompt_maps),
        )
        for name, value, expected in pairs:
            if value != expected:
                msg = f"{name} is {value}, but the other parts of the configuration ask for {expected}"
                raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class EncodedPatch:
    """A patch after everything that no click changes; kept for further clicks.

    Attributes:
        deepest_map: (B, E, d, h, w), what the clicks act on.
        prepared: the decoder's share.
        patch_shape_dhw: (D, H, W).
    """

    deepest_map: Tensor
    prepared: PreparedImage
    patch_shape_dhw: tuple[int, int, int]


class Promise3d(nn.Module):
    """Patch and clicks -> two-class logits, everything in (d, h, w) order."""

    def __init__(self, config: Promise3dConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = LiftedVit3d(config.encoder)
        self.prompt_encoder = FeatureSampling(config.prompt)
        self.mask_decoder = MultiLevelDecoder(config.decoder)
        self.draw_on_features = (
            nn.Conv3d(config.num_prompt_maps, config.prompt.width, kernel_size=1)
            if config.num_prompt_maps
            else None
        )

    def encode_image(self, patch: Tensor) -> EncodedPatch:
        """Do the costly part, once per patch: (B, 1, D, H, W) normalised -> EncodedPatch."""
        features = self.image_encoder(patch)
        shape = (patch.shape[2], patch.shape[3], patch.shape[4])
        return EncodedPatch(features.deepest, self.mask_decoder.prepare(features, patch), shape)

    def decode(
        self, encoded: EncodedPatch, prompts: PointPrompts, prior: Tensor | None = None
    ) -> Tensor:
        """Answer the prompts.

        Args:
            encoded: from `encode_image`.
            prompts: clicks, (B, N).
            prior: (B, 1, D, H, W) in [-1, 1]: 2 p - 1 of an earlier mask's probability p, 0 where
                nothing is known. None: nothing is known anywhere.

        Returns:
            (B, 2, D, H, W) logits, background first.
        """
        prompted = self.prompt_encoder(encoded.deepest_map, prompts, encoded.patch_shape_dhw)
        if self.draw_on_features is None:
            return torch.as_tensor(self.mask_decoder(encoded.prepared, prompted, None))
        d, h, w = (int(n) for n in prompted.shape[2:])
        prompted = prompted + self.draw_on_features(self._draw(encoded, prompts, prior, (d, h, w)))
        d, h, w = (n // 2 for n in encoded.patch_shape_dhw)
        drawn = self._draw(encoded, prompts, prior, (d, h, w))
        return torch.as_tensor(self.mask_decoder(encoded.prepared, prompted, drawn))

    def forward(self, patch: Tensor, prompts: PointPrompts, prior: Tensor | None = None) -> Tensor:
        """(B, 1, D, H, W) and (B, N) clicks -> (B, 2, D, H, W) logits."""
        return self.decode(self.encode_image(patch), prompts, prior)

    def _draw(
        self,
        encoded: EncodedPatch,
        prompts: PointPrompts,
        prior: Tensor | None,
        map_shape_dhw: tuple[int, int, int],
    ) -> Tensor:
        """Draw clicks and earlier mask on a grid over the patch: (B, num_prompt_maps, d, h, w)."""
        radii = self.config.click_radii_voxel
        maps = draw_clicks(prompts, map_shape_dhw, encoded.patch_shape_dhw, radii)
        if not self.config.mask_prompt:
            return maps
        if prior is None:
            known = maps.new_zeros((maps.shape[0], 1, *map_shape_dhw))
        else:
            known = F.adaptive_avg_pool3d(prior.to(maps.dtype), map_shape_dhw)
        return torch.cat([maps, known], dim=1)


def _vit_preset(width: int, depth: int, num_heads: int, taps: tuple[int, ...]) -> Promise3dConfig:
    """Return a published-form network of one of SAM's sizes; SAM's global blocks are the taps."""
    encoder = LiftedVitConfig(
        width=width, depth=depth, num_heads=num_heads, taps=taps, global_blocks=taps
    )
    return Promise3dConfig(encoder=encoder)


def _small_preset() -> Promise3dConfig:
    """Return the network of the shipped CPU model: 64^3 patch, 8^3 tokens, 6.7 M parameters."""
    radii = (2.0, 6.0, 18.0)
    encoder = LiftedVitConfig(
        width=160,
        depth=8,
        num_heads=5,
        enlargement=2,
        tokens_dhw=(8, 8, 8),
        position_table_side=8,
        window=8,
        shift_windows=False,
        local_table_window=8,
        global_table_window=8,
        global_blocks=(),
        taps=(1, 3, 5, 7),
        feature_width=96,
        second_adapter="plain",
        adapter_initialisation="zero",
        adapter_final_relu=False,
        depth_position_start=0.0,
    )
    prompt = FeatureSamplingConfig(
        width=96, num_heads=6, mlp_width=384, signed=True, positions="fourier"
    )
    decoder = MultiLevelDecoderConfig(
        feature_width=96,
        num_levels=4,
        width=32,
        # With the image itself, 32 channels: convolutions over multiples of 16 are the fast ones.
        image_width=31,
        token_stride=8,
        num_prompt_maps=2 * len(radii) + 1,
        joined_scales=(64, 96, 128),
    )
    return Promise3dConfig(
        patch_shape_dhw=(64, 64, 64),
        encoder=encoder,
        prompt=prompt,
        decoder=decoder,
        click_radii_voxel=radii,
        mask_prompt=True,
    )


def _tiny_preset() -> Promise3dConfig:
    """Return a network for tests: 32^3 patch, two blocks of width 24."""
    small = _small_preset()
    encoder = replace(
        small.encoder,
        width=24,
        depth=2,
        num_heads=2,
        enlargement=4,
        tokens_dhw=(8, 8, 8),
        position_table_side=8,
        window=4,
        shift_windows=True,
        local_table_window=4,
        taps=(0, 1),
        feature_width=16,
    )
    return replace(
        small,
        patch_shape_dhw=(32, 32, 32),
        encoder=encoder,
        prompt=replace(small.prompt, width=16, num_heads=2, mlp_width=32),
        decoder=replace(
            small.decoder,
            feature_width=16,
            num_levels=2,
            width=8,
            image_width=8,
            token_stride=4,
            joined_scales=(16,),
        ),
    )


def promise3d_preset(name: str) -> Promise3dConfig:
    """Return a configuration by name.

    Args:
        name: "vit_b", "vit_l", "vit_h" (SAM's sizes, published form), "small" (the shipped CPU model)
            or "tiny" (tests).

    Raises:
        ConfigError: for another name.
    """
    presets = {
        # Segment Anything, appendix A, and the released build: width, depth, heads, global blocks.
        "vit_b": lambda: _vit_preset(768, 12, 12, (2, 5, 8, 11)),
        "vit_l": lambda: _vit_preset(1024, 24, 16, (5, 11, 17, 23)),
        "vit_h": lambda: _vit_preset(1280, 32, 16, (7, 15, 23, 31)),
        "small": _small_preset,
        "tiny": _tiny_preset,
    }
    if name not in presets:
        msg = f"there is no preset {name!r}; choose one of {', '.join(presets)}"
        raise ConfigError(msg)
    return presets[name]()
