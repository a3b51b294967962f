"""What a click does to a given mask, on arrays of numbers made by hand."""

import numpy as np

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
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


def test_a_correction_covers_the_mask_the_answer_and_the_clicks():
    answer = ScanProbability(VoxelBox((0, 0, 18), (1, 1, 24)), np.full((1, 1, 6), 0.75, np.float32), (), ("w",))
    click = WorldClick(WorldPointRAS(30.4, 0.0, 0.0), True)
    result = corrected_near_clicks(_given(), answer, [click], GRID)
    # The click counts where it is. 11 mm from the mask it reaches 22, of which an answer of 0.75 has 16.5: all
    # that was answered, also in the mask.
    assert (result.box, result.keeps_all_parts, result.warnings) == (
        VoxelBox((0, 0, 5), (1, 1, 31)),
        True,
        ("w",),
    )
    expected = np.zeros(26, np.float32)
    expected[:13] = 1
    expected[13:19] = 0.75
    expected[25] = 1
    assert result.probability.dtype == np.float32
    assert result.probability[0, 0].tolist() == expected.tolist()


def test_without_a_mask_the_answer_counts_within_five_millimetres():
    grid = VolumeGrid((1, 3, 40), np.diag([1.0, 1.0, 2.0, 1.0])[[2, 1, 0, 3]])  # 2 mm along w
    answer = ScanProbability(VoxelBox.whole((1, 3, 40)), np.full((1, 3, 40), 0.9, np.float32), ())
    click = WorldClick(grid.to_world(VoxelPoint(0, 0, 20)), True)
    result = corrected_near_clicks(np.zeros((1, 3, 40), bool), answer, [click], grid)
    # 0.9 of 5 mm: two voxels along w, with up to two mm along h.
    rows = [np.flatnonzero(row).tolist() for row in result.probability[0] > THRESHOLD]
    assert rows == [list(range(18, 23)), list(range(18, 23)), list(range(18, 23))]
    assert result.probability[0, 0, 20] == 1
