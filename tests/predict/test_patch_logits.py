"""The bare network on a patch: same numbers as the network itself, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clickvol.errors import ClickError, ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.methods.tags import tags_recipe
from clickvol.predict.patch_logits import patch_logits
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.weights.card import ModelCard
from clickvol.weights.load import LoadedModel
from reference.compare import randomise

CLICKS = [[3, 20, 11], [16, 5, 30]]


def loaded(config, precision=torch.float32):
    network = randomise(LiftedSegmenter(config)).eval()
    card = ModelCard.model_construct(id="tiny")
    return LoadedModel(card, network, torch.device("cpu"), precision)


@pytest.fixture(scope="module")
def signed():
    return loaded(promise3d_recipe("clickvol", "tiny").network)


@pytest.fixture(scope="module")
def automatic():
    return loaded(sam3d_adapter_recipe("automatic", "tiny").network)


@pytest.fixture
def patch():
    return np.random.default_rng(0).standard_normal((32, 24, 40)).astype(np.float32)


def directly(model, patch, clicks, labels):
    prompts = PointPrompts(torch.tensor([clicks], dtype=torch.float32), torch.tensor([labels]))
    with torch.inference_mode():
        return model.network(torch.from_numpy(patch)[None, None], prompts)[0].numpy()


def test_the_answer_is_that_of_the_network_with_every_click_inside(signed, patch):
    result = patch_logits(signed, patch, np.array(CLICKS))
    assert (result.dtype, result.shape) == (np.float32, (2, 32, 24, 40))
    np.testing.assert_array_equal(result, directly(signed, patch, CLICKS, [1, 1]))


def test_labels_reach_the_network(signed, patch):
    result = patch_logits(signed, patch, CLICKS, labels=[1, 0])
    np.testing.assert_array_equal(result, directly(signed, patch, CLICKS, [1, 0]))
    assert np.abs(result - patch_logits(signed, patch, CLICKS)).max() > 1e-3


def test_it_computes_in_float32_whatever_the_model_prefers(signed, patch):
    preferring = replace(signed, precision=torch.bfloat16)
    expected = patch_logits(signed, patch, CLICKS)
    np.testing.assert_array_equal(patch_logits(preferring, patch, CLICKS), expected)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(patch_logits(signed, patch, CLICKS), expected)


def test_the_order_is_d_h_w(signed, patch):
    moved = patch_logits(signed, patch, [[3, 20, 11]])
    other = patch_logits(signed, patch, [[11, 20, 3]])
    assert np.abs(moved - other).max() > 1e-3


def test_other_number_types_and_read_only_views_will_do(signed, patch):
    expected = patch_logits(signed, patch, CLICKS)
    shown = np.asfortranarray(patch.astype(np.float64))
    shown.flags.writeable = False
    np.testing.assert_array_equal(patch_logits(signed, shown, np.array(CLICKS, ">i4")), expected)


def test_an_automatic_network_takes_no_clicks(automatic):
    patch = np.random.default_rng(0).standard_normal((64, 32, 64)).astype(np.float32)
    result = patch_logits(automatic, patch, np.zeros((0, 3)))
    assert result.shape == (2, 64, 32, 64)
    assert result.std() > 0
    with pytest.raises(ClickError, match=r"tiny is automatic .* \(0, 3\)"):
        patch_logits(automatic, patch, [[1, 2, 3]])


@pytest.mark.parametrize("shape", [(32, 32), (2, 32, 32, 32), (32, 30, 32), (0, 32, 32)])
def test_a_patch_of_another_shape(signed, shape):
    with pytest.raises(ConfigError, match=r"\(D, H, W\) is expected, every side a multiple of 4$"):
        patch_logits(signed, np.zeros(shape, np.float32), CLICKS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_patch_with_values_that_are_not_finite(signed, patch, value):
    broken = patch.astype(np.float64)
    broken[3, 4, 5] = value
    with pytest.raises(
        ConfigError, match=r"^the patch has values that are no finite float32 numbers; normalise it first$"
    ):
        patch_logits(signed, broken, CLICKS)


@pytest.mark.parametrize("clicks", [[1, 2, 3], [[1, 2]], [[1, 2, np.nan]], [["a", 1, 2]], [[1], [2]]])
def test_clicks_of_another_shape_or_not_finite(signed, patch, clicks):
    with pytest.raises(
        ClickError, match=r"^clicks_dhw must be finite numbers of shape \(N, 3\), the patch voxels"
    ):
        patch_logits(signed, patch, clicks)


def test_no_click_where_one_is_needed(signed, patch):
    with pytest.raises(ClickError, match=r"^tiny needs at least one click, but clicks_dhw is empty$"):
        patch_logits(signed, patch, np.zeros((0, 3)))


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, -1], [[1, 1]], ["a", "b"]])
def test_wrong_labels(signed, patch, labels):
    with pytest.raises(
        ClickError, match=r"^labels must be 2 numbers, one per click: 1 inside the object, 0 beside it$"
    ):
        patch_logits(signed, patch, CLICKS, labels=labels)


def test_a_network_with_an_organ_channel_takes_it_as_the_second_channel(patch):
    model = loaded(tags_recipe("released", "tiny").network)
    organ = (np.indices(patch.shape).sum(axis=0) < 40).astype(np.float32)
    result = patch_logits(model, np.stack([patch, organ]), CLICKS)
    assert result.shape == (2, *patch.shape)
    assert np.abs(result - patch_logits(model, np.stack([patch, 0 * organ]), CLICKS)).max() > 1e-3
    with pytest.raises(ConfigError, match=r"\(32, 24, 40\), but 2 x \(D, H, W\) is expected"):
        patch_logits(model, patch, CLICKS)
