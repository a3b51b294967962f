"""Both variants of 3DSAM-adapter: what they are made of, and that they are saved and loaded unchanged."""

import json
from dataclasses import replace

import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.recipe import LossRecipe, TrainingClicks
from clickvol.methods.sam3d_adapter import (
    PRESETS,
    sam3d_adapter_network,
    sam3d_adapter_recipe,
)
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.weights.load import load_model
from reference.compare import deviation, noise, randomise
from reference.random_models import random_model, write_random_model

PROMPTS = PointPrompts(
    torch.tensor([[[5.0, 20.0, 12.0], [9.0, 3.0, 20.0]], [[1.0, 30.0, 2.0], [0.0, 0.0, 0.0]]]),
    torch.tensor([[1, 0], [1, -1]]),
)


def only(index):
    one = slice(index, index + 1)
    return PointPrompts(PROMPTS.points_dhw[one], PROMPTS.labels[one])


def test_the_released_form():
    recipe = sam3d_adapter_recipe("released", "vit_b")
    assert (recipe.method, recipe.preset) == ("sam3d_adapter", "released")
    network = recipe.network
    assert network.encoder.second_adapter == "none"
    assert (network.encoder.enlargement, network.patch_shape_dhw) == (4, (128, 128, 128))
    assert network.decoder.level_enlargement == "trilinear"
    assert (network.decoder.image_fusion, network.decoder.image_width) == ("none", 0)
    assert (network.prompt.signed, network.prompt.positions) == (False, "ignored")
    assert recipe.loss == LossRecipe(dice_weight=0.5, cross_entropy_weight=0.5, boundary=None)
    assert recipe.training_clicks == TrainingClicks(foreground=10, others=20, others_from="everywhere")


def test_the_automatic_form_sees_twice_the_side_with_the_same_tokens():
    released, automatic = (sam3d_adapter_recipe(name, "vit_b") for name in PRESETS)
    assert automatic.network == replace(
        released.network,
        patch_shape_dhw=(256, 256, 256),
        encoder=replace(released.network.encoder, enlargement=2),
        prompt=None,
        decoder=replace(released.network.decoder, token_stride=8, decoder_stride=4),
    )
    assert automatic.network.is_automatic
    assert automatic.training_clicks is None
    assert automatic.loss == released.loss


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_is_its_samples(preset):
    torch.manual_seed(5)
    network = randomise(LiftedSegmenter(sam3d_adapter_recipe(preset, "tiny").network))
    for shape in ((32, 32, 32), (16, 32, 24), (8, 16, 40)):
        patch = noise(2, 1, *shape)
        together = network(patch, PROMPTS)
        assert together.shape == (2, 2, *shape)
        for index in (0, 1):
            alone = network(patch[index : index + 1], only(index))
            assert deviation(together[index : index + 1], alone) < 1e-4


@pytest.mark.parametrize("preset", PRESETS)
def test_saved_and_loaded_it_says_the_same(preset, tmp_path):
    recipe = sam3d_adapter_recipe(preset, "tiny")
    path = write_random_model(recipe, tmp_path)
    loaded = load_model(path, device="cpu")
    assert loaded.network.config == recipe.network
    assert loaded.card.is_automatic == (preset == "automatic")
    assert json.loads(path.read_text())["method"] == "sam3d_adapter"
    patch = noise(2, 1, 16, 32, 24)
    with torch.inference_mode():
        result = loaded.network(patch, PROMPTS)
        expected = random_model(recipe).network(patch, PROMPTS)
    assert torch.equal(result, expected)
    assert result.std() > 0


def test_the_prompted_network_of_another_method_is_the_same():
    assert sam3d_adapter_network("tiny") == sam3d_adapter_recipe("released", "tiny").network


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no preset 'paper'; choose one of released, automatic$"):
        sam3d_adapter_recipe("paper", "tiny")
