"""Seeded weights in an official file, imported and run, against numbers of the published implementation."""

import numpy as np
import pytest
import torch

from clickvol import load_model, patch_logits
from clickvol.cli.app import main
from clickvol.prompt_encoders.feature_sampling import PointPrompts
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
def model(tmp_path_factory):
    """The seeded checkpoint as a model, by the way that a user goes."""
    folder = tmp_path_factory.mktemp("official")
    file = folder / "best.pth.tar"
    torch.save(seeded_official.make_checkpoint(seeded_official.PROMISE), file)
    words = ["models", "import", str(file), "--method", "promise3d", "-o", str(folder / "model")]
    assert main(words) == 0
    file.unlink()
    return load_model(folder / "model", device="cpu")


@pytest.fixture(scope="module")
def patch():
    return seeded_official.make_patch()


@pytest.fixture(scope="module")
def features(model, patch):
    """The four maps of the encoder."""
    with torch.inference_mode():
        return model.network.image_encoder(torch.from_numpy(patch)[None, None])


@pytest.fixture(scope="module")
def prompted(model, features):
    """Per click set, the deepest map after the prompt encoder."""
    maps = {}
    for name, clicks in seeded_official.make_clicks().items():
        labels = torch.ones((1, len(clicks)), dtype=torch.int64)
        prompts = PointPrompts(torch.tensor([clicks], dtype=torch.float32), labels)
        with torch.inference_mode():
            maps[name] = model.network.prompt_encoder(features.deepest, prompts, (64, 64, 64))
    return maps


@pytest.fixture(scope="module")
def logits(model, patch, features):
    """Per click set, what the public function returns; the maps of the one patch are computed once."""
    with pytest.MonkeyPatch.context() as change:
        change.setattr(model.network.image_encoder, "forward", lambda _patch: features)
        return {
            name: torch.from_numpy(patch_logits(model, patch, np.array(clicks)))[None]
            for name, clicks in seeded_official.make_clicks().items()
        }


def in_hwd(feature_map):
    """Return the stored cells of a (1, E, d, h, w) map, turned to the published (h, w, d) order."""
    turned = torch.movedim(feature_map, 2, -1)
    return turned[:, ::8, 1::5, 1::5, 1::5].numpy()


def statistics(array):
    values = array.double()
    figures = (values.mean(), values.std(correction=0), values.min(), values.max(), values.norm())
    return np.array([float(figure) for figure in figures])


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_four_feature_maps_are_the_published_ones(features, golden, level):
    result = features.maps[level]
    assert result.shape == (1, 256, 16, 16, 16)
    np.testing.assert_allclose(in_hwd(result), golden[f"feat{level}"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(statistics(result), golden[f"feat{level}_stats"], rtol=1e-4, atol=TOLERANCE)


@pytest.mark.parametrize("clicks", CLICK_SETS)
def test_the_prompted_map_is_the_published_one(prompted, golden, clicks):
    result = in_hwd(prompted[clicks])
    np.testing.assert_allclose(result, golden[f"{clicks}_prompted"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("clicks", CLICK_SETS)
def test_the_logits_are_the_published_ones(logits, golden, clicks):
    result = logits[clicks]
    assert result.shape == (1, 2, 64, 64, 64)
    np.testing.assert_allclose(
        result[..., 1::6, 1::6, 1::6].numpy(), golden[f"{clicks}_logits"], rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(statistics(result), golden[f"{clicks}_stats"], rtol=1e-4, atol=TOLERANCE)


@pytest.mark.parametrize("clicks", CLICK_SETS)
def test_the_foreground_has_the_published_size(logits, golden, clicks):
    result = logits[clicks]
    foreground = int((result[:, 1] > result[:, 0]).sum())
    assert abs(foreground - int(golden[f"{clicks}_foreground"])) <= 2


def test_the_click_sets_do_not_give_the_same_logits(logits):
    # Otherwise the four comparisons above would be one.
    for other in CLICK_SETS[1:]:
        assert (logits["centre"] - logits[other]).abs().max() > 100 * TOLERANCE
