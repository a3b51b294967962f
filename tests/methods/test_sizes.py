import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVit3d, LiftedTinyVitConfig, images_from_patch
from clickvol.image_encoders.sam_vit2d import SAM_SIZES
from clickvol.methods import sam3d_adapter, tags
from clickvol.methods.freezing import freeze_foundation
from clickvol.methods.lift import lift_foundation
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.registry import find_recipe
from clickvol.methods.sam2d import Sam2d, sam2d_preset
from clickvol.methods.sizes import network_size
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from reference.compare import noise, num_parameters

WITH_ORGANS = {("tags", preset) for preset in ("released", "clickvol", "no-text")}


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


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h", "litemedsam", "small", "tiny"])
@pytest.mark.parametrize(
    ("method", "preset"),
    [
        *(("promise3d", preset) for preset in ("released", "paper", "clickvol", "table2-r", "table2-up-conv")),
        *(("sam3d_adapter", preset) for preset in sam3d_adapter.PRESETS),
        *(("tags", preset) for preset in tags.PRESETS),
    ],
)
def test_every_preset_is_there_around_every_image_encoder(method, preset, size):
    recipe = find_recipe(method, preset, size)
    with torch.device("meta"):
        network = LiftedSegmenter(recipe.network)
    encoder = network.image_encoder
    if size != "litemedsam":
        second = method == "promise3d" and preset != "table2-baseline"
        assert (encoder.config.second_adapter != "none") == second
        return
    assert isinstance(encoder, LiftedTinyVit3d)
    assert len(encoder.adapters) == 4
    # A second adapter in the published ProMISe-3D alone; ours has one after each stage.
    assert (encoder.first_adapters is not None) == (method == "promise3d" and preset != "clickvol")
    assert recipe.network.num_channels == (2 if (method, preset) in WITH_ORGANS else 1)


@pytest.mark.parametrize(
    ("method", "preset"),
    [
        ("promise3d", "released"),
        ("promise3d", "table2-r"),
        ("sam3d_adapter", "automatic"),
        ("tags", "clickvol"),
    ],
)
def test_a_published_form_on_litemedsam_computes_and_learns_beside_its_frozen_part(method, preset):
    torch.manual_seed(0)
    recipe = find_recipe(method, preset, "litemedsam")
    network = LiftedSegmenter(recipe.network)
    freeze_foundation(network)
    patch = noise(1, recipe.network.num_channels, 16, 24, 16, seed=1)
    points = PointPrompts(torch.tensor([[[3.0, 9.0, 4.0]]]), torch.tensor([[1]]))
    encoded = network.encode_image(patch)
    logits = network.decode(encoded, points)
    assert logits.shape == (1, 2, 16, 24, 16)
    assert [m.shape[1] for m in encoded.aligned] == ([768] * 4 if method == "tags" else [])
    (logits.square().mean() + sum(m.square().mean() for m in encoded.aligned)).backward()
    for name, parameter in network.image_encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith("slice_encoder."), name


def test_litemedsam_sees_an_organ_mask_in_its_third_colour():
    patch = torch.stack([torch.full((2, 8, 8), 0.8), torch.ones(2, 8, 8)])[None]
    images = images_from_patch(patch, 1, (0, 0, 1))
    torch.testing.assert_close(images[0, 0, 0, 0], torch.tensor([0.75, 0.75, 0.8125]))
    encoder = LiftedTinyVitConfig(channel_sources=(0, 0, 1))
    assert encoder.num_channels == 2
    with pytest.raises(ConfigError, match="without a gap"):
        _ = LiftedTinyVitConfig(channel_sources=(0, 0, 2)).num_channels


def test_a_foundation_is_added_as_the_page_says(monkeypatch):
    """docs/how-to/foundations.md: a ViT of SAM's kind is one line of sizes; everything else follows."""
    line = (48, 4, 4, (0, 1, 2, 3))
    monkeypatch.setitem(SAM_SIZES, "mine", line)
    foundation = Sam2d(sam2d_preset("mine"))
    for method, preset in (("promise3d", "released"), ("sam3d_adapter", "automatic"), ("tags", "released")):
        network = LiftedSegmenter(find_recipe(method, preset, "mine").network)
        lift_foundation(foundation, network)
        state = network.image_encoder.state_dict()
        theirs = foundation.image_encoder.state_dict()
        for block in range(4):
            name = f"blocks.{block}.attn.qkv.weight"
            assert torch.equal(state[name], theirs[name])
