"""What prompts come to: clicks, sizes, limits; and how a given mask is corrected."""

import numpy as np
import pytest

from clickvol.errors import ClickError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.predict.correction import corrected_near_clicks
from clickvol.predict.placed_prompts import PlacedPrompts, WorldClick
from clickvol.predict.segmentation import ScanProbability
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Scribble

GRID = VolumeGrid.axial((10, 20, 20), (1.0, 1.0, 1.0))
BOX = VoxelBox.of((2, 4, 6), (5, 10, 16))


def placed(*prompts, knows_hints=False):
    return PlacedPrompts.of(prompts, GRID, knows_hints=knows_hints)


def voxels(clicks):
    return [tuple(np.round(GRID.to_voxel(click.place).as_array(), 6)) for click in clicks]


def test_a_line_is_three_clicks_and_a_size():
    result = placed(Line(VoxelPoint(5, 5, 2), VoxelPoint(5, 5, 12)))
    assert voxels(result.clicks) == [(5, 5, 7), (5, 5, 3), (5, 5, 11)]
    sides = result.extent.high_ras_mm - result.extent.low_ras_mm
    assert (sides.tolist(), result.extent.is_whole) == ([10, 10, 10], False)
    assert result.used[0].used_as == "3 clicks, size"


def test_a_box_in_space_is_a_click_a_whole_size_and_limits():
    result = placed(Box.of(BOX))
    assert voxels(result.clicks) == [(3, 6.5, 10.5)]
    assert sorted((result.extent.high_ras_mm - result.extent.low_ras_mm).tolist()) == [3, 6, 10]
    assert result.extent.is_whole
    expected = np.ones(GRID.shape_dhw, dtype=bool)
    expected[BOX.slices] = False
    np.testing.assert_array_equal(result.excluded, expected)


def test_a_click_takes_the_place_of_the_box_middle():
    assert voxels(placed(Click(VoxelPoint(3, 5, 7)), Box.of(BOX)).clicks) == [(3, 5, 7)]


def test_regions_on_one_slice_limit_that_slice_alone_and_join_there():
    one, two = VoxelBox.of((2, 4, 6), (3, 8, 9)), VoxelBox.of((2, 6, 8), (3, 9, 12))
    result = placed(Box.of(one), Box.of(two))
    expected = np.zeros(GRID.shape_dhw, dtype=bool)
    expected[2] = True
    expected[one.slices] = expected[two.slices] = False
    np.testing.assert_array_equal(result.excluded, expected)
    assert not result.extent.is_whole


def test_what_is_on_the_background_is_left_out():
    area = np.zeros(GRID.shape_dhw, dtype=bool)
    area[2, 4:7, 4:7] = True
    result = placed(Click(VoxelPoint(5, 5, 5)), Lasso(PackedMask.of(area), foreground=False))
    np.testing.assert_array_equal(result.excluded, area)
    assert [click.foreground for click in result.clicks] == [True, False]
    assert voxels(result.clicks)[1] == (2, 5, 5)


def test_a_scribble_is_at_most_four_clicks_along_it():
    stroke = Scribble.along([VoxelPoint(5, 5, 1), VoxelPoint(5, 5, 17)], GRID)
    assert [w for _, _, w in voxels(placed(stroke).clicks)] == [4, 7, 11, 14]


def test_a_network_that_knows_maps_gets_them_and_the_other_says_so():
    box = Box.of(BOX)
    assert placed(box, knows_hints=True).drawn == (box,)
    assert placed(box, knows_hints=True).warnings("m") == ()
    assert placed(box).drawn == ()
    (warning,) = placed(box).warnings("m")
    assert warning.startswith("m knows clicks alone: the box stood for clicks")


def test_prompts_on_the_background_alone_are_refused():
    with pytest.raises(ClickError, match="no click inside"):
        placed(Box.of(BOX, foreground=False))


def test_a_given_mask_alone_is_known_and_asks_for_nothing():
    mask = np.zeros(GRID.shape_dhw, dtype=bool)
    mask[BOX.slices] = True
    result = placed(GivenMask(PackedMask.of(mask)))
    assert (result.clicks, len(result.inside), result.used[0].used_as) == ((), 1, "mask to correct")


def corrected(given, answer, *clicks):
    placed_clicks = [WorldClick(GRID.to_world(VoxelPoint(*at)), sign) for at, sign in clicks]
    whole = ScanProbability(VoxelBox.whole(GRID.shape_dhw), answer.astype(np.float32), ())
    result = corrected_near_clicks(given, whole, placed_clicks, GRID)
    mask = np.zeros(GRID.shape_dhw, dtype=bool)
    mask[result.box.slices] = result.probability > 0.5
    return mask


def test_a_given_mask_changes_near_a_click_that_contradicts_it_and_nowhere_else():
    given, answer = np.zeros(GRID.shape_dhw, dtype=bool), np.zeros(GRID.shape_dhw, dtype=bool)
    given[5, 5, 2:6] = True
    answer[5, 5, 2:20] = True
    answer[0, 19, 19] = True
    agrees = corrected(given, answer, ((5, 5, 3), True), ((5, 15, 3), False))
    np.testing.assert_array_equal(agrees, given)
    # The click lies 4 mm from the mask: less than 8 mm around it count.
    expected = given.copy()
    expected[5, 5, 2:17] = answer[5, 5, 2:17]
    np.testing.assert_array_equal(corrected(given, answer, ((5, 5, 9), True)), expected)


def test_a_click_always_counts_where_it_is():
    given = np.zeros(GRID.shape_dhw, dtype=bool)
    given[BOX.slices] = True
    removed = corrected(given, given, ((3, 6, 8), False))
    assert np.argwhere(removed != given).tolist() == [[3, 6, 8]]
