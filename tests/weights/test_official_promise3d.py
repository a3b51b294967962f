"""The table of official names, on tensors without values or of a few numbers."""

import pytest
import torch

from clickvol.errors import DamagedWeightsError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.weights.official_promise3d import from_official
from reference import seeded_official


def without_values(shapes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.fixture
def parts():
    """The three state dicts of an official checkpoint, as shapes."""
    return (
        without_values(seeded_official.encoder_shapes()),
        without_values(seeded_official.prompt_shapes()),
        without_values(seeded_official.decoder_shapes()),
    )


def test_every_name_and_shape_is_ours_afterwards(parts):
    with torch.device("meta"):
        ours = LiftedSegmenter(promise3d_recipe("released", "vit_b").network).state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    # The seeded checkpoint is that of a 64^3 patch, with 16 tokens a side.
    expected["image_encoder.depth_embed"] = (1, 16, 768)
    assert {name: tuple(t.shape) for name, t in from_official(*parts).items()} == expected


def test_shift_masks_gaussian_matrix_and_unused_attention_are_dropped(parts):
    state = from_official(*parts)
    dropped = sum(len(part) for part in parts) - len(state)
    # Six masks, one Gaussian matrix, eight tensors of token-to-image attention in each of two layers.
    assert dropped == 6 + 1 + 2 * 8


def test_cls_hao_is_an_older_name_of_head(parts):
    encoder, prompt, decoder = parts
    renamed = {key.replace("head.", "cls_hao."): t for key, t in decoder.items() if key[0] == "h"}
    assert sorted(renamed) == ["cls_hao.0.weight", "cls_hao.3.weight"]
    rest = {key: tensor for key, tensor in decoder.items() if key[0] != "h"}
    assert from_official(encoder, prompt, rest | renamed).keys() == from_official(*parts).keys()


@pytest.mark.parametrize("part", [0, 1, 2])
def test_an_unknown_key_is_named(parts, part):
    parts[part]["blocks.0.attn.novelty"] = torch.zeros(1)
    with pytest.raises(DamagedWeightsError, match=r"not ProMISe-3D's: blocks\.0\.attn\.novelty$"):
        from_official(*parts)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_known_name_with_something_after_it_is_unknown(parts, part):
    key = sorted(parts[part])[0]
    parts[part][key + ".x"] = torch.zeros(1)
    with pytest.raises(DamagedWeightsError, match="x"):
        from_official(*parts)


def test_all_unknown_keys_are_listed(parts):
    parts[0]["zz"] = parts[2]["aa"] = torch.zeros(1)
    with pytest.raises(DamagedWeightsError, match="aa, zz"):
        from_official(*parts)


def test_kernels_are_turned_from_hwd_to_dhw(parts):
    kernel = torch.zeros(1, 1, 3, 3, 3)
    kernel[0, 0, 0, 1, 2] = 1.0  # h 0, w 1, d 2
    parts[0]["blocks.3.adapter.conv.weight"] = kernel
    turned = from_official(*parts)["image_encoder.blocks.3.adapter.mix.weight"]
    assert turned.nonzero().tolist() == [[0, 0, 2, 0, 1]]
    assert turned.is_contiguous()


def test_the_slice_embedding_ends_up_along_d(parts):
    state = from_official(*parts)
    assert state["image_encoder.embedding.slice_embed.weight"].shape == (768, 1, 16, 1, 1)


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("mlahead.head2.0.weight", "level_convs.0.0.weight"),
        ("mlahead.head5.3.weight", "level_convs.3.2.weight"),
        ("mlahead.up4.bias", "level_ups.2.bias"),
        ("image_feature_extractor.3.weight", "image_branch.2.weight"),
        ("head.3.weight", "classify.weight"),
    ],
)
def test_decoder_names(official, ours):
    state = from_official({}, {}, {official: torch.ones(1)})
    assert list(state) == [f"mask_decoder.{ours}"]
