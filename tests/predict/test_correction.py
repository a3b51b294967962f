"""What a click does to a given mask, on arrays of numbers made by hand."""

import numpy as np

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.predict.correction import corrected_near_clicks
from clickvol.predict.placed_prompts import WorldClick
from clickvol.predict.segmentation import THRESHOLD, ScanProbability

GRID = VolumeGrid((1, 1, 40), np.eye(4)[[2, 1, 0, 3]])


def _given():
    mask = np.zeros((1, 1, 40), bool)
    mask[..., 5:20] = True
    return mask


def _corrected(answer, *clicks, sure=0.9):
    probability = np.zeros((1, 1, 40), np.float32)
    for part in answer:
        probability[..., part] = sure
    result = corrected_near_clicks(
        _given(),
        ScanProbability(VoxelBox.whole((1, 1, 40)), probability, ()),
        [WorldClick(WorldPointRAS(float(x), 0.0, 0.0), foreground) for x, foreground in clicks],
        GRID,
    )
    full = np.zeros((1, 1, 40), bool)
    full[result.box.slices] = result.probability > THRESHOLD
    return np.flatnonzero(full).tolist()


def test_a_click_that_agrees_changes_nothing():
    assert _corrected([slice(0, 40)], (10, True), (30, False)) == list(range(5, 20))


def test_a_click_outside_the_mask_adds_what_the_network_says_near_it():
    # 3 mm from the border: a reach of 6 mm, of which an answer of 0.9 has 5.4: to 27.
    assert _corrected([slice(18, 40)], (22, True)) == list(range(5, 28))
    # And one of 0.6 has 3.6: to 25.
    assert _corrected([slice(18, 40)], (22, True), sure=0.6) == list(range(5, 26))


def test_a_click_on_the_background_takes_away_what_the_network_denies_near_it():
    # 2 mm from the border: the least reach of 5 mm, to 13; the network denies from 16 on.
    assert _corrected([slice(0, 16)], (18, False)) == list(range(5, 16))


def test_a_later_click_corrects_what_an_earlier_one_added():
    added = _corrected([slice(18, 26)], (22, True))
    assert added == list(range(5, 26))
    # The voxel 25 is in the mask by the first click alone; the second takes it away, with its neighbours.
    assert _corrected([slice(18, 24), slice(25, 26)], (22, True), (25, False)) == list(range(5, 24))
