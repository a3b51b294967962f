import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import FoldedEmbedding
from clickvol.methods.freezing import freeze_foundation, num_parameters
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.registry import find_recipe
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.methods.tags import PRESETS, tags_recipe, with_text_width
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.alignment_loss import alignment_loss
from clickvol.weights.card import FieldOfViewPlan, ModelCard
from clickvol.weights.load import load_model, network_content
from clickvol.weights.safe_file import write_weights
from reference.compare import deviation, noise, randomise
from reference.plain_embedding import plain_embedding

PATCH = (16, 32, 24)
PROMPTS = PointPrompts(
    torch.tensor([[[5.0, 20.0, 12.0], [9.0, 3.0, 20.0]], [[1.0, 30.0, 2.0], [0.0, 0.0, 0.0]]]),
    torch.tensor([[1, 0], [1, -1]]),
)


def only(index):
    one = slice(index, index + 1)
    return PointPrompts(PROMPTS.points_dhw[one], PROMPTS.labels[one])


def tiny(preset="released", text_width=40):
    return with_text_width(tags_recipe(preset, "tiny"), text_width)


def build(recipe, seed=5):
    torch.manual_seed(seed)
    return randomise(LiftedSegmenter(recipe.network))


@pytest.fixture(params=["released", "clickvol"])
def network(request):
    return build(tiny(request.param))


def scan_and_organ(shape=PATCH, batch=2):
    organ = (noise(batch, 1, *shape, seed=7) > 0).float()
    return torch.cat([noise(batch, 1, *shape), organ], dim=1)


def test_the_released_form():
    recipe = find_recipe("tags", "released", "vit_b")
    encoder = recipe.network.encoder
    assert (recipe.method, recipe.preset) == ("tags", "released")
    assert encoder.channel_sources == (0, 0, 1)
    assert encoder.taps == (2, 5, 8, 11)
    assert (encoder.alignment.text_width, encoder.alignment.blend) == (768, 0.2)
    assert encoder.second_adapter == "none"
    loss, clicks = recipe.loss, recipe.training_clicks
    assert (loss.dice_weight, loss.cross_entropy_weight, loss.boundary) == (0.5, 0.5, None)
    assert loss.alignment.weight == 1.0
    assert (loss.alignment.focal_input, loss.alignment.object_word) == ("softmax_again", "dataset")
    assert (clicks.foreground, clicks.others, clicks.others_from) == (10, 20, "everywhere")


def test_our_form_undoes_the_quirks():
    recipe = tags_recipe("clickvol", "vit_b")
    assert recipe.network.encoder.channel_sources == (0, 0, 1)
    assert (recipe.loss.alignment.focal_input, recipe.loss.alignment.object_word) == (
        "scores",
        "organ",
    )
    assert recipe.training_clicks.others_from == "background"
    assert recipe.network.prompt.signed
    assert recipe.network.encoder.alignment == tags_recipe().network.encoder.alignment


def test_the_ablations_take_the_text_the_mask_or_both():
    released = tags_recipe("released", "vit_b")
    no_text, no_mask, neither = (tags_recipe(name, "vit_b") for name in ("no-text", "no-organ-mask", "neither"))
    assert no_text.network.encoder == replace(released.network.encoder, alignment=None)
    assert no_text.loss.alignment is None
    assert no_mask.network.encoder == replace(released.network.encoder, channel_sources=(0, 0, 0))
    assert no_mask.loss == released.loss
    adapter = sam3d_adapter_recipe("released", "vit_b")
    assert neither.network == adapter.network
    assert neither.loss == adapter.loss
    assert neither.training_clicks == adapter.training_clicks


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_built(preset):
    recipe = tags_recipe(preset, "tiny")
    network = LiftedSegmenter(recipe.network)
    has_text = recipe.loss.alignment is not None
    assert (network.image_encoder.alignments is not None) == has_text


@pytest.mark.parametrize(
    ("preset", "size", "message"),
    [
        ("best", "vit_b", "TAGS has no preset 'best'; choose one of released, clickvol"),
        ("released", "vit_x", "there is no size 'vit_x'"),
    ],
)
def test_what_does_not_exist_is_refused(preset, size, message):
    with pytest.raises(ConfigError, match=message):
        tags_recipe(preset, size)


@pytest.mark.parametrize(("preset", "prompt"), [("released", 2_900_736), ("clickvol", None)])
def test_the_base_size_has_the_published_number_of_trained_parameters(preset, prompt):
    with torch.device("meta"):
        network = LiftedSegmenter(tags_recipe(preset, "vit_b").network)
    freeze_foundation(network)
    # 3DSAM-adapter's encoder, 15.21 M trained of 104.06 M, and four 768 x 768 matrices without bias.
    assert num_parameters(network.image_encoder.alignments) == (2_359_296, 2_359_296)
    assert num_parameters(network.image_encoder) == (106_415_884, 17_569_280)
    assert num_parameters(network.mask_decoder) == (7_088_256, 7_088_256)
    if prompt is not None:
        assert num_parameters(network.prompt_encoder) == (prompt, prompt)
        # "27.8 M" counts 0.26 M of prompt encoder that the released code stores and never uses.
        assert num_parameters(network) == (116_404_876, 27_558_272)


def test_a_larger_sam_has_a_way_to_the_texts_and_back():
    with torch.device("meta"):
        network = LiftedSegmenter(tags_recipe("released", "vit_l").network)
    assert num_parameters(network.image_encoder.alignments)[0] == 4 * 2 * 1024 * 768


@pytest.mark.parametrize("shape", [(32, 32, 32), PATCH, (8, 16, 40)])
def test_a_batch_is_its_samples(network, shape):
    patch = scan_and_organ(shape)
    encoded = network.encode_image(patch)
    together = network.decode(encoded, PROMPTS)
    assert together.shape == (2, 2, *shape)
    assert [a.shape for a in encoded.aligned] == [(2, 40, *(n // 4 for n in shape))] * 2
    for index in (0, 1):
        one = slice(index, index + 1)
        assert deviation(together[one], network(patch[one], only(index))) < 1e-4


def test_inference_is_the_path_with_gradient(network):
    patch = scan_and_organ()
    with torch.inference_mode():
        result = network.encode_image(patch)
    expected = network.encode_image(patch)
    for ours, theirs in zip(result.aligned, expected.aligned, strict=True):
        assert deviation(ours, theirs) < 1e-4
    assert deviation(result.deepest_map, expected.deepest_map) < 1e-4


def test_gradients_reach_exactly_the_trained_set(network):
    freeze_foundation(network)
    encoder = network.image_encoder
    frozen = {f"image_encoder.{name}" for name in encoder.foundation_parameter_names()}
    assert any("qkv" in name for name in frozen)
    assert not any("alignments" in name for name in frozen)
    term = tiny().loss.alignment
    text = F.normalize(noise(40, 2), dim=0)
    label = (noise(2, 1, *PATCH, seed=3) > 0).long()
    encoded = network.encode_image(scan_and_organ())
    logits = network.decode(encoded, PROMPTS)
    loss = F.cross_entropy(logits, label[:, 0]) + alignment_loss(encoded.aligned, text, label, term)
    loss.backward()
    reached = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    everything = {name for name, _ in network.named_parameters()}
    assert everything - reached - frozen <= {
        # The bias of a key adds the same number to every logit of a row, which softmax ignores.
        name
        for name in everything
        if name.endswith("k_proj.bias")
    }
    assert not reached & frozen


@pytest.mark.parametrize("text_width", [24, 40])
def test_without_blend_the_output_is_that_of_3dsam_adapter(text_width):
    """Blend 0, weight 0 and a scan in every channel, with the same parameters."""
    recipe = tiny("no-organ-mask", text_width)
    encoder = recipe.network.encoder
    encoder = replace(encoder, alignment=replace(encoder.alignment, blend=0.0))
    ours = build(replace(recipe, network=replace(recipe.network, encoder=encoder)))
    plain = LiftedSegmenter(sam3d_adapter_recipe("released", "tiny").network)
    shared = plain.state_dict().keys()
    plain.load_state_dict({n: t for n, t in ours.state_dict().items() if n in shared})
    assert {n.split(".")[1] for n in ours.state_dict().keys() - shared} == {"alignments"}
    scan = noise(2, 1, *PATCH)
    assert torch.equal(ours(scan, PROMPTS), plain(scan, PROMPTS))
    # The scan three times is what a network with a mask sees without one.
    masked = LiftedSegmenter(replace(ours.config, encoder=replace(encoder, channel_sources=(0, 0, 1))))
    masked.load_state_dict(ours.state_dict())
    assert deviation(masked(scan.expand(-1, 2, -1, -1, -1), PROMPTS), ours(scan, PROMPTS)) < 1e-4


def test_the_blend_changes_the_output():
    with_text = build(tiny())
    encoder = with_text.config.encoder
    still = replace(encoder, alignment=replace(encoder.alignment, blend=0.0))
    without = LiftedSegmenter(replace(with_text.config, encoder=still))
    without.load_state_dict(with_text.state_dict())
    patch = scan_and_organ()
    assert deviation(with_text(patch, PROMPTS), without(patch, PROMPTS)) > 1e-3


@pytest.mark.parametrize("enlargement", [1, 4])
def test_the_folded_embedding_of_two_channels_is_the_plain_one_of_three(enlargement):
    config = replace(tiny().network.encoder, width=5, num_heads=1, enlargement=enlargement)
    embedding = randomise(FoldedEmbedding(config))
    stride = 16 // enlargement
    patch = scan_and_organ((2 * stride, 3 * stride, 4 * stride))
    result = embedding(patch)
    assert result.shape == (2, 2, 3, 4, 5)
    assert deviation(result, plain_embedding(embedding, patch)) < 1e-5


def test_the_organ_mask_reaches_the_logits(network):
    patch = scan_and_organ()
    other = patch.clone()
    other[:, 1] = 1 - other[:, 1]
    assert deviation(network(patch, PROMPTS), network(other, PROMPTS)) > 1e-2


def test_an_organ_in_a_corner_is_seen_in_that_corner():
    """No two axes are swapped on the way of the mask: the first map changes most where the mask does."""
    encoder = build(tiny("no-text")).image_encoder
    shape = (16, 24, 32)
    patch = torch.cat([noise(1, 1, *shape), torch.zeros(1, 1, *shape)], dim=1)
    with_blob = patch.clone()
    with_blob[:, 1, 0:4, 8:12, 24:28] = 1
    tokens, changed = encoder.embedding(patch), encoder.embedding(with_blob)
    change = (changed - tokens).abs().sum(-1)[0]
    assert change.argmax() == torch.arange(4 * 6 * 8).view(4, 6, 8)[0, 2, 6]


def test_a_patch_without_the_channel_is_refused(network):
    with pytest.raises(ConfigError, match="the patch has 1 channels, but this network takes 2"):
        network(noise(2, 1, *PATCH), PROMPTS)


def test_another_text_width_changes_nothing_else():
    recipe = tags_recipe("released", "vit_b")
    other = with_text_width(recipe, 384)
    assert other.network.encoder.alignment.text_width == 384
    assert with_text_width(other, 768) == recipe
    plain = tags_recipe("neither", "vit_b")
    assert with_text_width(plain, 384) is plain


def test_saved_and_loaded_it_gives_the_same(network, tmp_path):
    weights = tmp_path / "t.safetensors"
    sha256, size = write_weights(network.state_dict(), weights, dtype=torch.float32)
    card = ModelCard(
        id="t",
        title="t",
        method="tags",
        network=network_content("tags", network.config),
        fields_of_view=FieldOfViewPlan(first_voxel_mm=3, finest_voxel_mm=1, coarsest_voxel_mm=6),
        modalities=["CT"],
        training_data=[],
        training_command="",
        licence="Apache-2.0",
        num_parameters=sum(p.numel() for p in network.parameters()),
        dtype="float32",
        bytes=size,
        sha256=sha256,
        weights_file=weights.name,
        clickvol_version="0",
    )
    (tmp_path / "t.json").write_text(json.dumps(card.model_dump(mode="json")))
    loaded = load_model(tmp_path / "t.json", device="cpu").network
    assert loaded.config == network.config
    patch = scan_and_organ()
    with torch.inference_mode():
        # The weights to the bit; the arithmetic follows where they lie in memory, on some processors.
        saved, state = network.state_dict(), loaded.state_dict()
        assert all(torch.equal(state[name], value) for name, value in saved.items())
        assert deviation(loaded(patch, PROMPTS), network(patch, PROMPTS)) < 1e-5
