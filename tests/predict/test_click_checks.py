"""Clicks in air, masks of a few voxels, and where to click next."""

import numpy as np
import pytest

from clickvol import Click, Volume, segment
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.predict.click_checks import clicks_in_air, warnings_at_border, warnings_of_size
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.segmentation import most_uncertain
from clickvol.preprocessing.intensity import IntensityScale, KnottedScale
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
    assert (
        "there is nothing but air around the click at voxel (20, 10, 12); nothing was segmented; click inside"
    ) in nothing.warnings
    something = segment(volume, [Click(VoxelPoint(12, 36, 20))], model)
    assert not any("nothing but air" in warning for warning in something.warnings)
    # At the border of the body there is tissue within 8 mm.
    border = segment(volume, [Click(VoxelPoint(12, 22, 20))], model)
    assert not any("nothing but air" in warning for warning in border.warnings)


def test_a_mask_of_few_voxels_gets_a_warning():
    assert warnings_of_size(0) == warnings_of_size(20) == ()
    for number in (1, 19):
        assert warnings_of_size(number) == (
            f"the object fills {number} voxels, too few to tell its shape; check it slice by slice, "
            "or use a finer scan",
        )


@pytest.mark.parametrize(
    ("modality", "scale", "limit"),
    [
        ("CT", IntensityScale.of_window(-160, 240), -900),
        ("MR", IntensityScale.of_window(100, 500), 120),
        ("MR", KnottedScale((100.0, 500.0, 900.0), (-1.0, 0.0, 1.0), 0.0), 120),
    ],
)
def test_air_is_all_but_a_hundredth_of_what_lies_within_8_mm(modality, scale, limit):
    # A ball of 8 mm is in a box of 9 x 9 x 9 voxels of 2 mm; a 99th percentile of 729 lies above 7 of them.
    array = np.full(GRID.shape_dhw, limit - 1, np.int16)
    place = GRID.to_world(VoxelPoint(12, 16, 20))
    scan = NormalisedScan(volume=Volume(array, GRID), modality=modality, scale=scale)
    assert clicks_in_air(scan, [place]) == [place]
    array[8, 12, 16:23] = 1000
    assert clicks_in_air(scan, [place]) == [place]
    array[8, 12, 23] = 1000
    assert clicks_in_air(scan, [place]) == []
    array[...] = limit
    assert clicks_in_air(scan, [place]) == []


def test_in_a_coarse_scan_air_is_asked_for_a_slice_away():
    array = np.full((5, 20, 20), -1000, np.int16)
    grid = VolumeGrid.axial(array.shape, (12.0, 2.0, 2.0))
    scan = NormalisedScan(volume=Volume(array, grid), modality="CT", scale=IntensityScale.of_window(-160, 240))
    places = [grid.to_world(VoxelPoint(d, 10, 10)) for d in (1, 3)]
    array[4, 8:13, 8:13] = 0
    assert clicks_in_air(scan, places) == places[:1]


def test_the_next_click_is_in_the_middle_of_the_largest_doubt():
    probability = np.zeros((20, 20, 20), dtype=np.float32)
    probability[2:8, 2:8, 2:8] = 1
    probability[12:17, 12:17, 12:17] = 0.5
    assert most_uncertain(probability, np.array([2.0, 2.0, 2.0])) == (14, 14, 14)
    assert most_uncertain(np.ones((5, 5, 5), dtype=np.float32), np.array([1.0, 1.0, 1.0])) is None


def test_an_object_that_the_scan_cuts_off_gets_a_warning_with_the_side():
    inner = VoxelBox.of((1, 1, 1), (23, 47, 47))
    assert warnings_at_border(None, GRID) == warnings_at_border(inner, GRID) == ()
    for start, stop, side in (
        ((0, 1, 1), (5, 9, 9), "foot"),
        ((9, 1, 1), (24, 9, 9), "head"),
        ((1, 0, 1), (5, 9, 9), "front"),
        ((1, 9, 1), (5, 48, 9), "back"),
        ((1, 1, 0), (5, 9, 9), "right"),
        ((1, 1, 9), (5, 9, 48), "left"),
        ((0, 1, 9), (24, 9, 48), "foot, head, left"),
    ):
        (warning,) = warnings_at_border(VoxelBox.of(start, stop), GRID)
        assert warning == f"the object reaches the border of the scan ({side}) and may go on beyond it"
    flat = VolumeGrid.axial((1, 48, 48), (2.0, 2.0, 2.0))
    assert warnings_at_border(VoxelBox.of((0, 1, 1), (1, 9, 9)), flat) == ()
    assert len(warnings_at_border(VoxelBox.of((0, 1, 0), (1, 9, 9)), flat)) == 1
    three = VolumeGrid.axial((3, 48, 48), (0.5, 0.5, 0.5))
    (warning,) = warnings_at_border(VoxelBox.of((0, 1, 1), (1, 9, 9)), three)
    assert "(foot)" in warning


def test_segment_says_when_the_scan_cuts_the_object_off(model):
    array = np.random.default_rng(0).normal(40, 2, (6, 24, 24)).astype(np.float32)
    result = segment(
        Volume(array, VolumeGrid.axial((6, 24, 24), (2.0, 2.0, 2.0)), "CT"),
        [Click(VoxelPoint(3, 12, 12))],
        model,
    )
    touches = result.mask.array[0].any() or result.mask.array[-1].any()
    assert touches == any("border of the scan" in warning for warning in result.warnings)
