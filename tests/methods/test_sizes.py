import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVitConfig
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sizes import network_size, sam_encoder
from reference.compare import num_parameters


def encoder_parameters(width, depth, heads):
    """Count by the description of the published encoder."""
    hidden = width // 2
    adapter = width * hidden + hidden + 27 * hidden + hidden + hidden * width + width
    dense = 4 * width + 3 * width * (width + 1) + width * (width + 1) + 8 * width**2 + 5 * width
    tables = [27] * (depth - 4) + [127] * 4
    blocks = depth * (dense + 2 * adapter + 1) + sum(3 * rows * width // heads for rows in tables)
    embedding = width * (3 * 16 * 16 + 1) + 64 * 64 * width + 32 * width + width * (16 + 1)
    return blocks + embedding + 4 * (256 * width + 256 * 256 * 27 + 2 * 2 * 256)


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads", "taps"),
    [
        ("vit_b", 768, 12, 12, (2, 5, 8, 11)),
        ("vit_l", 1024, 24, 16, (5, 11, 17, 23)),
        ("vit_h", 1280, 32, 16, (7, 15, 23, 31)),
    ],
)
def test_sams_sizes(name, width, depth, heads, taps):
    with torch.device("meta"):
        network = LiftedSegmenter(promise3d_recipe("released", name).network)
    encoder = network.image_encoder
    assert num_parameters(encoder) == encoder_parameters(width, depth, heads)
    assert len(encoder.blocks) == depth
    assert encoder.config.taps == encoder.config.global_blocks == taps
    assert encoder.blocks[0].attn.qkv.weight.shape == (3 * width, width)
    assert encoder.blocks[0].attn.num_heads == heads
    assert encoder.blocks[0].mlp.lin1.weight.shape == (4 * width, width)
    assert encoder.blocks[taps[0]].attn.rel_pos_d.shape == (127, width // heads)
    assert network_size(name).patch_shape_dhw == (128, 128, 128)
    assert network_size(name).joined_scales == ()


def test_the_count_by_description_is_the_published_one():
    assert encoder_parameters(768, 12, 12) == 111_277_324


@pytest.mark.parametrize(
    ("name", "patch_side", "token_stride"),
    [("litemedsam", 48, 8), ("small", 64, 8), ("tiny", 32, 4)],
)
def test_small_sizes(name, patch_side, token_stride):
    parts = network_size(name)
    assert parts.patch_shape_dhw == (patch_side,) * 3
    assert parts.encoder.token_stride == parts.decoder.token_stride == token_stride
    assert parts.encoder.feature_width == parts.prompt.width == parts.decoder.feature_width


def test_the_shipped_size_has_six_to_eight_million_parameters():
    with torch.device("meta"):
        network = LiftedSegmenter(promise3d_recipe("clickvol", "small").network)
    assert 6e6 < num_parameters(network) < 8e6


def test_litemedsams_size_is_the_small_one_around_its_encoder():
    parts, small = network_size("litemedsam"), network_size("small")
    assert parts.encoder == LiftedTinyVitConfig()
    assert (parts.prompt, parts.decoder) == (small.prompt, small.decoder)
    assert parts.joined_scales == small.joined_scales


def test_an_unknown_size_is_refused_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"'vit_x'; choose one of vit_b, vit_l, vit_h, litemedsam, small, tiny$"
    ):
        network_size("vit_x")


def test_a_size_without_sams_blocks_has_no_sam_encoder():
    assert sam_encoder(network_size("tiny"), "any") == network_size("tiny").encoder
    with pytest.raises(ConfigError, match=r"the preset 'paper' is about SAM's .* which this size"):
        sam_encoder(network_size("litemedsam"), "paper")
