"""Sizes told by shapes: the published ones, ours, and what happens where something is missing."""

from dataclasses import replace

import pytest

from clickvol.errors import ConfigError
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.methods.sizes import network_size
from clickvol.weights.official.sizes import (
    OfficialSizes,
    official_config,
    sizes_from_shapes,
    sizes_of_network,
)
from reference import seeded_official as so

TINY_SIZES = OfficialSizes(
    width=48,
    depth=4,
    num_heads=4,
    mlp_width=96,
    tokens=8,
    position_table_side=16,
    window=4,
    local_table_window=5,
    global_table_window=8,
    global_blocks=(2,),
    feature_width=32,
    prompt_mlp_width=64,
    decoder_width=8,
    image_width=8,
)


def shapes(official):
    return so.encoder_shapes(official), so.prompt_shapes(official), so.decoder_shapes(official)


def test_the_published_sizes_are_the_default():
    assert sizes_from_shapes(*shapes(replace(so.PROMISE, tokens=32))) == OfficialSizes()


def test_every_size_is_told_by_a_shape():
    assert sizes_from_shapes(*shapes(so.TINY)) == TINY_SIZES


def test_without_prompt_encoder_and_image_branch_those_sizes_stay():
    encoder, _, decoder = shapes(so.TINY_SAM3D)
    result = sizes_from_shapes(encoder, None, decoder)
    assert result == replace(TINY_SIZES, prompt_mlp_width=2048, image_width=128)


@pytest.mark.parametrize("missing", ["pos_embed", "depth_embed", "blocks.0.attn.rel_pos_h"])
def test_a_missing_tensor_leaves_the_published_size(missing):
    encoder, prompt, decoder = shapes(replace(so.PROMISE, tokens=32))
    del encoder[missing]
    assert sizes_from_shapes(encoder, prompt, decoder).width == 768
    assert sizes_from_shapes(encoder, prompt, decoder).tokens == 32


@pytest.mark.parametrize("shape", [(), (0,), (1, 0, 0)])
def test_shapes_without_that_axis_do_not_matter(shape):
    encoder, prompt, decoder = shapes(replace(so.PROMISE, tokens=32))
    assert sizes_from_shapes(encoder | {"pos_embed": shape}, prompt, decoder) == OfficialSizes()


@pytest.mark.parametrize(
    ("recipe", "method", "automatic"),
    [
        (promise3d_recipe("released"), "promise3d", False),
        (sam3d_adapter_recipe("released"), "sam3d_adapter", False),
        (sam3d_adapter_recipe("automatic"), "sam3d_adapter", True),
    ],
)
def test_the_network_is_that_of_the_released_preset(recipe, method, automatic):
    assert official_config(method, OfficialSizes(), automatic=automatic) == recipe.network


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_the_maps_come_from_the_last_block_of_each_quarter(size):
    ours = promise3d_recipe("released", size).network
    assert official_config("promise3d", sizes_of_network(ours), automatic=False) == ours
    expected = {"vit_b": (2, 5, 8, 11), "vit_l": (5, 11, 17, 23), "vit_h": (7, 15, 23, 31)}
    assert ours.encoder.taps == expected[size]


def test_another_encoder_has_no_official_sizes():
    config = promise3d_recipe("clickvol", "litemedsam").network
    assert network_size("litemedsam").encoder == config.encoder
    with pytest.raises(ConfigError, match="lifted SAM, but this network's encoder is a"):
        sizes_of_network(config)


def test_sizes_that_contradict():
    with pytest.raises(ConfigError, match="not a multiple of num_heads"):
        official_config("promise3d", OfficialSizes(num_heads=7), automatic=False)
