"""Our network with seeded weights against numbers of the published implementation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clickvol.methods.lifted_segmenter import EncodedPatch, LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.weights.official_promise3d import from_official
from reference import seeded_official
from reference.golden import GOLDEN

CLICK_SETS = ("centre", "offcentre", "ten", "outside")
TOLERANCE = 2e-4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "promise3d_64.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def network():
    preset = promise3d_recipe("released", "vit_b").network
    encoder = replace(preset.encoder, tokens_dhw=(16, 16, 16))
    with torch.device("meta"):
        built = LiftedSegmenter(replace(preset, encoder=encoder, patch_shape_dhw=(64, 64, 64)))
    state = from_official(
        seeded_official.make_part("encoder_dict", seeded_official.encoder_shapes()),
        seeded_official.make_part("feature_dict3", seeded_official.prompt_shapes()),
        seeded_official.make_part("decoder_dict", seeded_official.decoder_shapes()),
    )
    built.load_state_dict(state, strict=True, assign=True)
    return built.eval()


@pytest.fixture(scope="module")
def outputs(network):
    """Feature maps, and per click set the prompted map and the logits; the patch is encoded once."""
    patch = torch.from_numpy(seeded_official.make_patch())[None, None]
    with torch.inference_mode():
        features = network.image_encoder(patch)
        prepared = network.mask_decoder.prepare(features, patch)
        encoded = EncodedPatch(features.deepest, prepared, (64, 64, 64))
        prompted, logits = {}, {}
        for name, clicks in seeded_official.make_clicks().items():
            labels = torch.ones((1, len(clicks)), dtype=torch.int64)
            prompts = PointPrompts(torch.tensor([clicks], dtype=torch.float32), labels)
            prompted[name] = network.prompt_encoder(encoded.deepest_map, prompts, (64, 64, 64))
            logits[name] = network.decode(encoded, prompts)
    return features.maps, prompted, logits


def in_hwd(feature_map):
    """Return the stored cells of a (1, E, d, h, w) map, turned to the published (h, w, d) order."""
    turned = torch.movedim(feature_map, 2, -1)
    return turned[:, ::8, 1::5, 1::5, 1::5].numpy()


def statistics(array):
    values = array.double()
    figures = (values.mean(), values.std(correction=0), values.min(), values.max(), values.norm())
    return np.array([float(figure) for figure in figures])


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_four_feature_maps_are_the_published_ones(outputs, golden, level):
    found = outputs[0][level]
    assert found.shape == (1, 256, 16, 16, 16)
    np.testing.assert_allclose(in_hwd(found), golden[f"feat{level}"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(
        statistics(found), golden[f"feat{level}_stats"], rtol=1e-4, atol=TOLERANCE
    )


@pytest.mark.parametrize("clicks", CLICK_SETS)
def test_the_prompted_map_is_the_published_one(outputs, golden, clicks):
    found = in_hwd(outputs[1][clicks])
    np.testing.assert_allclose(found, golden[f"{clicks}_prompted"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("clicks", CLICK_SETS)
def test_the_logits_are_the_published_ones(outputs, golden, clicks):
    found = outputs[2][clicks]
    assert found.shape == (1, 2, 64, 64, 64)
    np.testing.assert_allclose(
        found[..., 1::6, 1::6, 1::6].numpy(), golden[f"{clicks}_logits"], rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(
        statistics(found), golden[f"{clicks}_stats"], rtol=1e-4, atol=TOLERANCE
    )


@pytest.mark.parametrize("clicks", CLICK_SETS)
def test_the_foreground_has_the_published_size(outputs, golden, clicks):
    found = outputs[2][clicks]
    foreground = int((found[:, 1] > found[:, 0]).sum())
    assert abs(foreground - int(golden[f"{clicks}_foreground"])) <= 2


def test_the_click_sets_do_not_give_the_same_logits(outputs):
    # Otherwise the four comparisons above would be one.
    logits = outputs[2]
    for other in CLICK_SETS[1:]:
        assert (logits["centre"] - logits[other]).abs().max() > 100 * TOLERANCE
