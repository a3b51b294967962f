from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from reference.compare import deviation, noise, randomise
from reference.plain_attention import plain_block
from reference.plain_decoder import plain_decoder
from reference.plain_embedding import plain_embedding

PATCH = (16, 32, 24)
POINTS = [[[5.0, 20.0, 12.0], [9.0, 3.0, 20.0]], [[1.0, 30.0, 2.0], [0.0, 0.0, 0.0]]]
LABELS = [[1, 0], [1, -1]]


def published_tiny():
    """The tiny network without the options beyond the published one."""
    tiny = promise3d_recipe("clickvol", "tiny").network
    return replace(
        tiny,
        encoder=replace(
            tiny.encoder,
            second_adapter="doubled",
            adapter_final_relu=True,
            adapter_initialisation="default",
        ),
        prompt=replace(tiny.prompt, signed=False, positions="ignored"),
        decoder=replace(tiny.decoder, num_prompt_maps=0, joined_scales=()),
        click_radii_voxel=(),
        mask_prompt=False,
    )


CONFIGS = {"tiny": promise3d_recipe("clickvol", "tiny").network, "published": published_tiny()}


@pytest.fixture(params=CONFIGS)
def network(request):
    torch.manual_seed(5)
    return randomise(LiftedSegmenter(CONFIGS[request.param]))


@pytest.fixture
def prompts():
    return PointPrompts(torch.tensor(POINTS), torch.tensor(LABELS))


def only(prompts, index):
    return PointPrompts(prompts.points_dhw[index : index + 1], prompts.labels[index : index + 1])


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


def encoder_parameters(width, depth, heads):
    """Count by the description of the published encoder."""
    hidden = width // 2
    adapter = width * hidden + hidden + 27 * hidden + hidden + hidden * width + width
    dense = 4 * width + 3 * width * (width + 1) + width * (width + 1) + 8 * width**2 + 5 * width
    tables = [27] * (depth - 4) + [127] * 4
    blocks = depth * (dense + 2 * adapter + 1) + sum(3 * rows * width // heads for rows in tables)
    embedding = width * (3 * 16 * 16 + 1) + 64 * 64 * width + 32 * width + width * (16 + 1)
    return blocks + embedding + 4 * (256 * width + 256 * 256 * 27 + 2 * 2 * 256)


def test_the_base_preset_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = LiftedSegmenter(promise3d_recipe("released", "vit_b").network)
    assert num_parameters(network.image_encoder) == 111_277_324
    assert encoder_parameters(768, 12, 12) == 111_277_324
    assert num_parameters(network.image_encoder.blocks[0]) == 8_296_513
    assert num_parameters(network.image_encoder.blocks[2]) == 8_315_713
    assert num_parameters(network.image_encoder.necks) == 7_868_416
    assert num_parameters(network.mask_decoder) == 8_501_248
    # Without the parts that the published network stores and never uses.
    assert num_parameters(network.prompt_encoder) == 2_900_736
    assert network.draw_on_features is None
    assert not list(network.buffers())


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads", "taps"),
    [
        ("vit_l", 1024, 24, 16, (5, 11, 17, 23)),
        ("vit_h", 1280, 32, 16, (7, 15, 23, 31)),
    ],
)
def test_the_large_presets_have_sams_sizes(name, width, depth, heads, taps):
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


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"'vit_x'; choose one of vit_b, vit_l, vit_h, litemedsam, small, tiny"
    ):
        promise3d_recipe("released", "vit_x")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("prompt", {"width": 32, "num_heads": 2}, "prompt.width is 32"),
        ("decoder", {"feature_width": 8}, "decoder.feature_width is 8"),
        ("decoder", {"num_levels": 3}, "decoder.num_levels is 3"),
        ("decoder", {"token_stride": 8}, "decoder.token_stride is 8"),
        ("decoder", {"num_prompt_maps": 2}, "decoder.num_prompt_maps is 2"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part, change, message):
    tiny = promise3d_recipe("clickvol", "tiny").network
    with pytest.raises(ConfigError, match=message):
        replace(tiny, **{part: replace(getattr(tiny, part), **change)})


def test_a_prompt_that_the_decoder_does_not_know_is_refused():
    with pytest.raises(ConfigError, match=r"decoder\.num_prompt_maps is 7"):
        replace(promise3d_recipe("clickvol", "tiny").network, mask_prompt=False)


def test_the_defaults_are_the_published_network():
    assert LiftedSegmenterConfig() == promise3d_recipe("released", "vit_b").network


@pytest.mark.parametrize("shape", [(32, 32, 32), PATCH, (8, 16, 40)])
def test_a_batch_is_its_samples(network, prompts, shape):
    patch, prior = noise(2, 1, *shape), noise(2, 1, *shape, seed=1).clamp(-1, 1)
    together = network(patch, prompts, prior)
    assert together.shape == (2, 2, *shape)
    for index in (0, 1):
        one = slice(index, index + 1)
        alone = network(patch[one], only(prompts, index), prior[one])
        assert deviation(together[one], alone) < 1e-4


def test_further_clicks_on_an_encoded_patch_are_whole_passes(network, prompts):
    patch = noise(2, 1, *PATCH)
    encoded = network.encode_image(patch)
    turned = PointPrompts(prompts.points_dhw.flip(0), prompts.labels.flip(0))
    results = []
    for clicks in (prompts, turned, prompts):
        results.append(network.decode(encoded, clicks))
        assert deviation(results[-1], network(patch, clicks)) < 1e-5
    assert torch.equal(results[0], results[2])
    assert deviation(results[0], results[1]) > 1e-2


def test_inference_is_the_path_with_gradient(network, prompts, monkeypatch):
    monkeypatch.setattr("clickvol.layers.vit._CHUNK_TOKENS", 100)
    patch = noise(2, 1, *PATCH)
    with torch.inference_mode():
        found = network(patch, prompts)
    assert deviation(found, network(patch, prompts)) < 1e-4


def test_training_and_evaluation_mode_are_the_same(network, prompts):
    patch = noise(2, 1, *PATCH)
    assert torch.equal(network.train()(patch, prompts), network.eval()(patch, prompts))


def test_the_whole_network_is_the_plain_one(prompts):
    # Two heads, tables resampled, windows shifted; 8 tokens a side as the position tables have.
    config = published_tiny()
    config = replace(config, encoder=replace(config.encoder, local_table_window=5))
    network = randomise(LiftedSegmenter(config))
    patch = noise(2, 1, 32, 32, 32)
    encoder = network.image_encoder
    tokens = plain_embedding(encoder.embedding, patch)
    tokens = tokens + encoder.pos_embed[:, None] + encoder.depth_embed[:, :, None, None]
    maps = []
    for block, neck in zip(encoder.blocks, encoder.necks, strict=True):
        tokens = plain_block(block, tokens)
        maps.append(neck(tokens.movedim(-1, 1)))
    prompted = network.prompt_encoder(maps[-1], prompts, (32, 32, 32))
    expected = plain_decoder(network.mask_decoder, [*maps[:-1], prompted], patch)
    assert deviation(network(patch, prompts), expected) < 1e-4


def test_no_earlier_mask_is_a_mask_that_knows_nothing(prompts):
    network = randomise(LiftedSegmenter(promise3d_recipe("clickvol", "tiny").network))
    patch = noise(2, 1, *PATCH)
    nothing = torch.zeros(2, 1, *PATCH)
    assert deviation(network(patch, prompts), network(patch, prompts, nothing)) < 1e-6
    everything = torch.ones(2, 1, *PATCH)
    assert deviation(network(patch, prompts), network(patch, prompts, everything)) > 1e-2


def test_every_parameter_has_a_gradient(network, prompts):
    patch, prior = noise(2, 1, *PATCH), noise(2, 1, *PATCH, seed=1)
    target = (noise(2, *PATCH, seed=2) > 0).long()
    F.cross_entropy(network(patch, prompts, prior), target).backward()
    largest = max(p.grad.abs().max() for p in network.parameters() if p.grad is not None)
    without = {
        name
        for name, p in network.named_parameters()
        if p.grad is None or p.grad.abs().max() < 1e-7 * largest
    }
    # The bias of a key adds the same number to every logit of a row, which softmax ignores.
    expected = {name for name, _ in network.named_parameters() if name.endswith("k_proj.bias")}
    assert without == expected


def test_nothing_derived_is_stored():
    names = set(LiftedSegmenter(promise3d_recipe("clickvol", "tiny").network).state_dict())
    parameters = {
        name
        for name, _ in LiftedSegmenter(
            promise3d_recipe("clickvol", "tiny").network
        ).named_parameters()
    }
    # The Gaussian matrix of the positions is drawn, not derived.
    assert names - parameters == {"prompt_encoder.positions.gaussian"}


@pytest.mark.parametrize("shape", [(16, 32, 26), (15, 32, 24), (1, 32, 24)])
def test_a_patch_that_is_no_multiple_of_the_stride_is_refused(network, prompts, shape):
    with pytest.raises(ConfigError, match="must be a multiple of 4"):
        network(noise(2, 1, *shape), prompts)
