"""Networks without clicks behind the shared interface: from a recipe over a card to a mask."""

import json

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from clickvol import Click, InteractiveSession, load_model, segment
from clickvol.cli.app import main
from clickvol.errors import ConfigError, DamagedWeightsError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.volume import Volume
from clickvol.methods.baselines import (
    BaselineConfig,
    BaselineSegmenter,
    baseline_network,
    baseline_recipe,
)
from clickvol.methods.recipe import LossRecipe
from clickvol.methods.registry import baseline_ids
from clickvol.predict.patch_logits import patch_logits
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from reference.compare import deviation, noise
from reference.grids import make_grid
from reference.random_models import random_model, write_random_model

# Other patches than the one it is made for, where a network takes them.
OTHER_SHAPES = {
    "dynunet": (16, 24, 32),
    "swin_unetr": (32, 64, 96),
    "unetr": None,
    "uxnet3d": (16, 32, 48),
    "nnformer": None,
}
VOXEL_MM = 4.0


def tiny(kind):
    return baseline_recipe(kind, "automatic", "tiny")


@pytest.fixture(scope="module")
def random():
    return {kind: random_model(tiny(kind)) for kind in baseline_ids()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the path of a card by id."""
    return {kind: write_random_model(tiny(kind), tmp_path_factory.mktemp(kind)) for kind in baseline_ids()}


def scan():
    shape = (20, 24, 28)
    array = np.random.default_rng(0).normal(40, 80, shape).astype(np.float32)
    return Volume(array, make_grid(shape, (VOXEL_MM,) * 3, order=(2, 1, 0), signs=(1, 1, 1)), "CT")


def prompts(points):
    return PointPrompts(
        torch.tensor(points, dtype=torch.float32).reshape(1, -1, 3),
        torch.ones(1, len(points), dtype=torch.int64),
    )


@pytest.mark.parametrize("kind", baseline_ids())
def test_a_recipe_has_the_common_loss_and_no_clicks(kind):
    recipe = tiny(kind)
    assert (recipe.method, recipe.preset, recipe.network.body.kind) == (kind, "automatic", kind)
    assert recipe.loss == LossRecipe(dice_weight=0.5, cross_entropy_weight=0.5)
    assert recipe.training_clicks is None
    assert recipe.network.is_automatic


@pytest.mark.parametrize("kind", baseline_ids())
def test_every_sample_of_a_batch_has_its_own_logits(random, kind):
    network = random[kind].network
    shape = OTHER_SHAPES[kind] or network.config.patch_shape_dhw
    patch = noise(2, 1, *shape)
    logits = network(patch, prompts([]))
    assert logits.shape == (2, 2, *shape)
    assert deviation(logits[:1], logits[1:]) > 1e-3
    assert deviation(network(patch[1:], prompts([])), logits[1:]) < 1e-4


@pytest.mark.parametrize("kind", baseline_ids())
def test_clicks_and_an_earlier_mask_change_nothing(random, kind):
    network = random[kind].network
    patch = noise(1, 1, *network.config.patch_shape_dhw)
    encoded = network.encode_image(patch)
    plain = network.decode(encoded, prompts([]))
    clicked = network.decode(encoded, prompts([(3, 4, 5)]), torch.ones_like(patch))
    assert torch.equal(plain, clicked)


@pytest.mark.parametrize("kind", baseline_ids())
def test_a_patch_of_another_shape_is_refused(random, kind):
    network = random[kind].network
    d, h, w = network.config.patch_shape_dhw
    with pytest.raises(ConfigError, match=rf"a patch of \({d}, {h}, {w + 4}\) does not suit"):
        network.encode_image(torch.zeros(1, 1, d, h, w + 4))


@pytest.mark.parametrize("kind", baseline_ids())
def test_gradients_reach_every_weight(kind):
    network = BaselineSegmenter(tiny(kind).network)
    torch.manual_seed(1)
    logits = network(noise(2, 1, *network.config.patch_shape_dhw), prompts([]))
    (logits * noise(*logits.shape, seed=2)).sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("kind", baseline_ids())
def test_every_weight_has_one_name(random, kind):
    """What a state dict names twice would be written twice, and averaged once."""
    network = random[kind].network
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("kind", baseline_ids())
def test_a_saved_model_is_the_one_that_was_written(random, saved, kind):
    loaded = load_model(saved[kind], device="cpu")
    assert loaded.card.is_automatic
    assert loaded.card.method == kind
    assert loaded.network.config == tiny(kind).network
    patch = noise(*loaded.network.config.patch_shape_dhw).numpy()
    expected = patch_logits(random[kind], patch, np.zeros((0, 3)))
    assert np.abs(patch_logits(loaded, patch, np.zeros((0, 3))) - expected).max() < 1e-5


@pytest.mark.parametrize("kind", baseline_ids())
def test_it_segments_a_whole_scan_and_clicks_choose_parts(random, kind):
    volume, model = scan(), random[kind]
    whole = segment(volume, [], model)
    assert whole.mask.array.shape == volume.array.shape
    labels, count = ndimage.label(whole.mask.array, np.ones((3, 3, 3)))
    assert count > 0
    place = tuple(np.argwhere(labels == 1)[0])
    kept = segment(volume, [Click(VoxelPoint(*map(float, place)))], model)
    np.testing.assert_array_equal(kept.mask.array > 0, labels == 1)


def test_no_session_is_opened_with_a_model_without_clicks(random):
    with pytest.raises(ConfigError, match="is automatic and takes no clicks"):
        InteractiveSession(random["dynunet"]).set_volume(scan())


def test_the_command_line_segments_without_a_click(saved, tmp_path, capfd):
    volume = scan()
    image = nibabel.Nifti1Image(volume.array.transpose(2, 1, 0), np.diag([VOXEL_MM] * 3 + [1]))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    words = ["segment", tmp_path / "scan.nii.gz", "-o", tmp_path / "mask.nii.gz"]
    words += ["--model", saved["dynunet"], "--modality", "CT"]
    code = main([str(word) for word in words])
    assert code == 0, capfd.readouterr().err
    mask = np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj)
    assert mask.shape == (28, 24, 20)


def test_a_card_with_an_unknown_option_of_a_network_is_refused(saved, tmp_path):
    content = json.loads(saved["unetr"].read_text())
    content["network"]["body"]["depth"] = 13
    card = tmp_path / "random.json"
    card.write_text(json.dumps(content))
    with pytest.raises(DamagedWeightsError, match=r"unknown option body\.depth"):
        load_model(card, device="cpu")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: baseline_recipe("unet"), "there is no baseline 'unet'; choose one of dynunet"),
        (lambda: baseline_network("unetr", "vast"), "there is no size 'vast'; choose one of paper"),
        (lambda: BaselineConfig(num_channels=0, body=tiny("unetr").network.body), "num_channels is 0"),
        (
            lambda: BaselineConfig(patch_shape_dhw=(64, 64, 65), body=tiny("swin_unetr").network.body),
            "does not suit swin_unetr",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
