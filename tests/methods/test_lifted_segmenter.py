from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from reference.compare import deviation, noise, randomise
from reference.plain_attention import plain_block
from reference.plain_decoder import plain_decoder
from reference.plain_embedding import plain_embedding

PATCH = (16, 32, 24)
POINTS = [[[5.0, 20.0, 12.0], [9.0, 3.0, 20.0]], [[1.0, 30.0, 2.0], [0.0, 0.0, 0.0]]]
LABELS = [[1, 0], [1, -1]]


def tiny(preset="clickvol"):
    return promise3d_recipe(preset, "tiny").network


CONFIGS = {
    "tiny": tiny(),
    "published": tiny("released"),
    "paper": tiny("paper"),
    "3DSAM-adapter": sam3d_adapter_recipe("released", "tiny").network,
    "R": tiny("table2-r"),
}
# Every kind of embedding, block, prompt encoder and decoder; the rest is composed of the same.
FULL = CONFIGS["tiny"]


@pytest.fixture(params=CONFIGS)
def network(request):
    torch.manual_seed(5)
    return randomise(LiftedSegmenter(CONFIGS[request.param]))


@pytest.fixture
def prompts():
    return PointPrompts(torch.tensor(POINTS), torch.tensor(LABELS))


def only(prompts, index):
    return PointPrompts(prompts.points_dhw[index : index + 1], prompts.labels[index : index + 1])


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
    with pytest.raises(ConfigError, match=message):
        replace(FULL, **{part: replace(getattr(FULL, part), **change)})


def test_a_prompt_that_the_decoder_does_not_know_is_refused():
    with pytest.raises(ConfigError, match=r"decoder\.num_prompt_maps is 7"):
        replace(FULL, mask_prompt=False)


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
        result = network(patch, prompts)
    assert deviation(result, network(patch, prompts)) < 1e-4


def test_training_and_evaluation_mode_are_the_same(network, prompts):
    patch = noise(2, 1, *PATCH)
    assert torch.equal(network.train()(patch, prompts), network.eval()(patch, prompts))


PLAIN = ("published", "paper", "3DSAM-adapter", "R")


@pytest.mark.parametrize("name", PLAIN)
def test_the_whole_network_is_the_plain_one(prompts, name):
    # Two heads, tables resampled, windows shifted; 8 tokens a side as the position tables have.
    config = CONFIGS[name]
    config = replace(config, encoder=replace(config.encoder, local_table_window=5))
    network = randomise(LiftedSegmenter(config))
    patch = noise(2, 1, 32, 32, 32)
    maps = plain_maps(network.image_encoder, patch)
    prompted = network.prompt_encoder(maps[-1], prompts, (32, 32, 32))
    expected = plain_decoder(network.mask_decoder, [*maps[:-1], prompted], patch)
    assert deviation(network(patch, prompts), expected) < 1e-4


def test_the_whole_automatic_network_is_the_plain_one(prompts):
    config = sam3d_adapter_recipe("automatic", "tiny").network
    network = randomise(LiftedSegmenter(config))
    patch = noise(2, 1, 64, 64, 64)
    maps = plain_maps(network.image_encoder, patch)
    expected = plain_decoder(network.mask_decoder, maps, patch)
    result = network(patch, prompts)
    assert deviation(result, expected) < 1e-4
    nowhere = PointPrompts(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.int64))
    assert torch.equal(network(patch, nowhere), result)


def plain_maps(encoder, patch):
    """Return the feature maps of a patch of 8 tokens a side, by the plain forms."""
    tokens = plain_embedding(encoder.embedding, patch)
    tokens = tokens + encoder.pos_embed[:, None] + encoder.depth_embed[:, :, None, None]
    maps = []
    for block, neck in zip(encoder.blocks, encoder.necks, strict=True):
        tokens = plain_block(block, tokens)
        maps.append(neck(tokens.movedim(-1, 1)))
    return maps


@pytest.mark.parametrize("shape", [(32, 32, 32), (16, 32, 24), (8, 16, 40)])
def test_an_automatic_batch_is_its_samples(prompts, shape):
    torch.manual_seed(5)
    config = sam3d_adapter_recipe("automatic", "tiny").network
    network = randomise(LiftedSegmenter(config))
    patch = noise(2, 1, *shape)
    together = network(patch, prompts)
    assert together.shape == (2, 2, *shape)
    for index in (0, 1):
        one = slice(index, index + 1)
        assert deviation(together[one], network(patch[one], only(prompts, index))) < 1e-4


def test_only_a_network_without_prompt_encoder_is_automatic():
    assert sam3d_adapter_recipe("automatic", "tiny").network.is_automatic
    assert not any(config.is_automatic for config in CONFIGS.values())


@pytest.mark.parametrize("change", [{"mask_prompt": True}, {"click_radii_voxel": (2.0,)}])
def test_an_automatic_network_with_drawn_prompts_is_refused(change):
    automatic = sam3d_adapter_recipe("automatic", "tiny").network
    with pytest.raises(ConfigError, match="need a prompt encoder; this network has none"):
        replace(automatic, **change)


def test_no_earlier_mask_is_a_mask_that_knows_nothing(prompts):
    network = randomise(LiftedSegmenter(FULL))
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
        name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7 * largest
    }
    # The bias of a key adds the same number to every logit of a row, which softmax ignores.
    expected = {name for name, _ in network.named_parameters() if name.endswith("k_proj.bias")}
    assert without == expected


def test_nothing_derived_is_stored():
    names = set(LiftedSegmenter(FULL).state_dict())
    parameters = {name for name, _ in LiftedSegmenter(tiny()).named_parameters()}
    # The Gaussian matrix of the positions is drawn, not derived.
    assert names - parameters == {"prompt_encoder.positions.gaussian"}


@pytest.mark.parametrize("shape", [(16, 32, 26), (15, 32, 24), (1, 32, 24)])
def test_a_patch_that_is_no_multiple_of_the_stride_is_refused(network, prompts, shape):
    with pytest.raises(ConfigError, match="must be a multiple of 4"):
        network(noise(2, 1, *shape), prompts)
