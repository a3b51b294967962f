"""Clicks in air, masks of a few voxels, and where to click next."""

import numpy as np
import pytest

from clickvol import Click, Volume, segment
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.predict.click_checks import warnings_of_size
from clickvol.predict.segmentation import most_uncertain
from reference.random_models import random_model

GRID = VolumeGrid.axial((24, 48, 48), (2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def model():
    return random_model(promise3d_recipe("clickvol", "tiny"))


@pytest.mark.parametrize(("modality", "air", "body"), [("CT", -1000, 40), ("MR", 3, 400), ("other", 3, 300)])
def test_a_click_in_air_gives_a_warning_and_nothing(model, modality, air, body):
    array = np.random.default_rng(0).normal(air, 2, GRID.shape_dhw).astype(np.float32)
    array[:, 24:] += body - air
    volume = Volume(array, GRID, modality)
    nothing = segment(volume, [Click(VoxelPoint(12, 10, 20))], model)
    assert nothing.mask.num_voxels == 0
    assert any("nothing but air" in warning for warning in nothing.warnings)
    something = segment(volume, [Click(VoxelPoint(12, 36, 20))], model)
    assert not any("nothing but air" in warning for warning in something.warnings)
    # At the border of the body there is tissue within 8 mm.
    border = segment(volume, [Click(VoxelPoint(12, 22, 20))], model)
    assert not any("nothing but air" in warning for warning in border.warnings)


def test_a_mask_of_few_voxels_gets_a_warning():
    assert warnings_of_size(0) == warnings_of_size(20) == ()
    assert warnings_of_size(19)[0].startswith("the object fills 19 voxels")


def test_the_next_click_is_in_the_middle_of_the_largest_doubt():
    probability = np.zeros((20, 20, 20), dtype=np.float32)
    probability[2:8, 2:8, 2:8] = 1
    probability[12:17, 12:17, 12:17] = 0.5
    assert most_uncertain(probability, np.array([2.0, 2.0, 2.0])) == (14, 14, 14)
    assert most_uncertain(np.ones((5, 5, 5), dtype=np.float32), np.array([1.0, 1.0, 1.0])) is None
