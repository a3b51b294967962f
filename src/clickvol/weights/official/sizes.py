"""Which network an official ProMISe-3D or 3DSAM-adapter checkpoint belongs to, told by the shapes in it.

The files do not say their sizes. What no shape tells is fixed, as in the published code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import LiftedVitConfig
from clickvol.mask_decoders.multi_level import MultiLevelDecoderConfig
from clickvol.methods.lifted_segmenter import LiftedSegmenterConfig
from clickvol.prompt_encoders.feature_sampling import FeatureSamplingConfig

OfficialMethod = Literal["promise3d", "sam3d_adapter"]
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# Published: four feature maps, each from the last block of a quarter of the network.
_NUM_LEVELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialSizes:
    """What the shapes of a checkpoint tell. The defaults are the published ones.

    Attributes:
        position_table_side: of the table of in-plane positions.
        local_table_window, global_table_window: window that the relative tables of ordinary blocks and of those
            that are global in SAM were made for.
        global_blocks: indices of the latter.
        image_width: channels of ProMISe-3D's branch on the image.
    """

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    tokens: int = 32
    position_table_side: int = 64
    window: int = 8
    local_table_window: int = 14
    global_table_window: int = 64
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    feature_width: int = 256
    prompt_depth: int = 2
    prompt_mlp_width: int = 2048
    num_queries: int = 10
    decoder_width: int = 128
    image_width: int = 128


def sizes_from_shapes(encoder: Shapes, prompt: Shapes | None, decoder: Shapes) -> OfficialSizes:
    """Return the sizes of a checkpoint; where a tensor that would tell one is missing, the published one."""
    default = OfficialSizes()
    prompt = prompt or {}
    width = _side(encoder, "pos_embed", -1, default.width)
    head_width = _side(encoder, "blocks.0.attn.rel_pos_h", 1, default.width // default.num_heads)
    places = _side(encoder, "blocks.0.attn_mask", -1, default.window**3)
    depth = _count(encoder, "blocks.{}.norm1.weight")
    rows = [
        _side(encoder, f"blocks.{index}.attn.rel_pos_h", 0, 2 * default.local_table_window - 1)
        for index in range(depth)
    ]
    shortest = min(rows, default=2 * default.local_table_window - 1)
    longest = max(rows, default=2 * default.global_table_window - 1)
    return OfficialSizes(
        width=width,
        depth=depth,
        num_heads=max(1, width // head_width),
        mlp_width=_side(encoder, "blocks.0.mlp.lin1.weight", 0, 4 * width),
        tokens=_side(encoder, "depth_embed", 1, default.tokens),
        position_table_side=_side(encoder, "pos_embed", 1, default.position_table_side),
        window=round(places ** (1 / 3)),
        local_table_window=(shortest + 1) // 2,
        global_table_window=(longest + 1) // 2,
        global_blocks=tuple(i for i, n in enumerate(rows) if n > shortest),
        feature_width=_side(encoder, "neck_3d.0.0.weight", 0, default.feature_width),
        prompt_depth=_count(prompt, "transformer.layers.{}.global_query") or default.prompt_depth,
        prompt_mlp_width=_side(prompt, "transformer.layers.0.mlp.lin1.weight", 0, default.prompt_mlp_width),
        num_queries=_side(prompt, "transformer.layers.0.global_query", 1, default.num_queries),
        decoder_width=_side(decoder, "mlahead.head2.0.weight", 0, default.decoder_width),
        image_width=_side(decoder, "image_feature_extractor.0.weight", 0, default.image_width),
    )


def sizes_of_network(config: LiftedSegmenterConfig) -> OfficialSizes:
    """Return the sizes of a network of ours; its options are not looked at."""
    encoder, decoder = lifted_sam(config), config.decoder
    prompt = config.prompt or FeatureSamplingConfig()
    return OfficialSizes(
        width=encoder.width,
        depth=encoder.depth,
        num_heads=encoder.num_heads,
        mlp_width=int(encoder.width * encoder.mlp_ratio),
        tokens=encoder.tokens_dhw[0],
        position_table_side=encoder.position_table_side,
        window=encoder.window,
        local_table_window=encoder.local_table_window,
        global_table_window=encoder.global_table_window,
        global_blocks=encoder.global_blocks,
        feature_width=encoder.feature_width,
        prompt_depth=prompt.depth,
        prompt_mlp_width=prompt.mlp_width,
        num_queries=prompt.num_queries,
        decoder_width=decoder.width,
        # A network without the branch has none of its sizes.
        image_width=decoder.image_width or OfficialSizes().image_width,
    )


def lifted_sam(config: LiftedSegmenterConfig) -> LiftedVitConfig:
    """Return the encoder of a network; ConfigError when it is no lifted SAM."""
    if isinstance(config.encoder, LiftedVitConfig):
        return config.encoder
    kind = config.encoder.kind
    raise ConfigError(f"the official layouts hold a lifted SAM, but this network's encoder is a {kind}")


def official_config(method: OfficialMethod, sizes: OfficialSizes, *, automatic: bool) -> LiftedSegmenterConfig:
    """Return the published network in these sizes; ConfigError when they contradict each other.

    The published networks have `tokens` per side whatever the patch. Prompted they enlarge it by 4, so that a
    token covers 4 voxels; the automatic variant of 3DSAM-adapter enlarges it by 2.
    """
    promise = method == "promise3d"
    stride = 8 if automatic else 4
    side = sizes.tokens * stride
    taps = tuple(sizes.depth * quarter // _NUM_LEVELS - 1 for quarter in range(1, _NUM_LEVELS + 1))
    encoder = LiftedVitConfig(
        width=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.num_heads,
        mlp_ratio=sizes.mlp_width / sizes.width,
        enlargement=16 // stride,
        tokens_dhw=(sizes.tokens, sizes.tokens, sizes.tokens),
        position_table_side=sizes.position_table_side,
        window=sizes.window,
        local_table_window=sizes.local_table_window,
        global_table_window=sizes.global_table_window,
        global_blocks=sizes.global_blocks,
        taps=taps,
        feature_width=sizes.feature_width,
        second_adapter="doubled" if promise else "none",
    )
    prompt = FeatureSamplingConfig(
        width=sizes.feature_width,
        depth=sizes.prompt_depth,
        mlp_width=sizes.prompt_mlp_width,
        num_queries=sizes.num_queries,
    )
    decoder = MultiLevelDecoderConfig(
        feature_width=sizes.feature_width,
        num_levels=_NUM_LEVELS,
        width=sizes.decoder_width,
        image_width=sizes.image_width if promise else 0,
        token_stride=stride,
        decoder_stride=stride // 2,
        level_enlargement="transposed" if promise else "trilinear",
        image_fusion="concatenated" if promise else "none",
    )
    return LiftedSegmenterConfig(
        patch_shape_dhw=(side, side, side),
        encoder=encoder,
        prompt=None if automatic else prompt,
        decoder=decoder,
    )


def _side(shapes: Shapes, key: str, axis: int, otherwise: int) -> int:
    """Return the length of a tensor's axis, or the other number where there is no such axis."""
    shape = shapes.get(key, ())
    there = -len(shape) <= axis < len(shape)
    return shape[axis] if there and shape[axis] > 0 else otherwise


def _count(shapes: Shapes, key: str) -> int:
    """Return how many numbers from 0 on make a key that is there."""
    number = 0
    while key.format(number) in shapes:
        number += 1
    return number
