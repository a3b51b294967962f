"""The sizes that the 3D methods come in; what a method is made of is on its own page."""

from dataclasses import dataclass, replace

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVitConfig
from clickvol.image_encoders.lifted_vit3d import LiftedVitConfig
from clickvol.image_encoders.sam_vit2d import SAM_SIZES
from clickvol.layers.vit import SecondAdapter
from clickvol.mask_decoders.multi_level import MultiLevelDecoderConfig
from clickvol.prompt_encoders.feature_sampling import FeatureSamplingConfig

EncoderConfig = LiftedVitConfig | LiftedTinyVitConfig

_SMALL_ENCODER = LiftedVitConfig(
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
)


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """The three parts with every option as released, the patch (D, H, W), and scales after the click."""

    patch_shape_dhw: tuple[int, int, int]
    encoder: EncoderConfig
    prompt: FeatureSamplingConfig
    decoder: MultiLevelDecoderConfig
    joined_scales: tuple[int, ...]


def network_size(name: str) -> NetworkSize:
    """Return a size by name; ConfigError for another.

    They are "vit_b", "vit_l", "vit_h" (SAM's), "litemedsam" (LiteMedSAM's TinyViT, lifted), "small" (the
    shipped CPU models) and "tiny" (tests).
    """
    if name in SAM_SIZES:
        return _sam_size(*SAM_SIZES[name])
    if name == "litemedsam":  # a smaller patch pays for its encoder
        return replace(_small_size(), patch_shape_dhw=(48, 48, 48), encoder=LiftedTinyVitConfig())
    sizes = {"litemedsam": _small_size, "small": _small_size, "tiny": _tiny_size}
    if name not in sizes:
        raise ConfigError(f"there is no size {name!r}; choose one of {', '.join((*SAM_SIZES, *sizes))}")
    return sizes[name]()


def published_encoder(parts: NetworkSize, second_adapter: SecondAdapter) -> EncoderConfig:
    """Return the encoder of a size with adapters as published; "none" is one adapter per block.

    For LiteMedSAM's stages any other gives each stage an adapter before it, too; the doubled residual of the
    released code is about SAM's blocks alone.
    """
    if isinstance(parts.encoder, LiftedVitConfig):
        return replace(parts.encoder, second_adapter=second_adapter)
    return replace(
        parts.encoder,
        first_adapters=second_adapter != "none",
        adapter_initialisation="default",
        adapter_final_relu=True,
    )


def _sam_size(width: int, depth: int, num_heads: int, taps: tuple[int, ...]) -> NetworkSize:
    """Return one of SAM's sizes; SAM's global blocks are the taps."""
    return NetworkSize(
        patch_shape_dhw=(128, 128, 128),
        encoder=LiftedVitConfig(width=width, depth=depth, num_heads=num_heads, taps=taps, global_blocks=taps),
        prompt=FeatureSamplingConfig(),
        decoder=MultiLevelDecoderConfig(),
        joined_scales=(),
    )


def _small_size() -> NetworkSize:
    """Return the size of the shipped CPU models: 64^3 patch, 8^3 tokens, 6 to 8 M parameters."""
    return NetworkSize(
        patch_shape_dhw=(64, 64, 64),
        encoder=_SMALL_ENCODER,
        prompt=FeatureSamplingConfig(width=96, num_heads=6, mlp_width=384),
        # With the image itself, 32 channels: convolutions over multiples of 16 are the fast ones.
        decoder=MultiLevelDecoderConfig(
            feature_width=96, num_levels=4, width=32, image_width=31, token_stride=8
        ),
        joined_scales=(64, 96, 128),
    )


def _tiny_size() -> NetworkSize:
    """Return a size for tests: 32^3 patch, two blocks of width 24."""
    small = _small_size()
    return NetworkSize(
        patch_shape_dhw=(32, 32, 32),
        encoder=replace(
            _SMALL_ENCODER,
            width=24,
            depth=2,
            num_heads=2,
            enlargement=4,
            window=4,
            shift_windows=True,
            local_table_window=4,
            taps=(0, 1),
            feature_width=16,
        ),
        prompt=replace(small.prompt, width=16, num_heads=2, mlp_width=32),
        decoder=replace(small.decoder, feature_width=16, num_levels=2, width=8, image_width=8, token_stride=4),
        joined_scales=(16,),
    )
