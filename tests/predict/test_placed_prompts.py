"""What prompts come to: clicks, sizes, limits; and how a given mask is corrected."""

import numpy as np
import pytest

from clickvol.errors import ClickError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.correction import corrected_near_clicks
from clickvol.predict.hint_maps import draw_hints
from clickvol.predict.placed_prompts import PlacedPrompts, WorldClick, innermost_on_slice
from clickvol.predict.segmentation import ScanProbability
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Scribble

GRID = VolumeGrid.axial((10, 20, 20), (1.0, 1.0, 1.0))
BOX = VoxelBox.of((2, 4, 6), (5, 10, 16))
ALL = "box, line and scribble"


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


def area_of(box):
    mask = np.zeros(GRID.shape_dhw, dtype=bool)
    mask[box.slices] = True
    return PackedMask.of(mask)


@pytest.mark.parametrize("knows_hints", [False, True])
def test_what_each_prompt_was_used_as(knows_hints):
    on_slice = area_of(VoxelBox.of((3, 4, 6), (4, 9, 11)))
    cases = [
        ([Click(VoxelPoint(3, 5, 7))], ["click: one click"]),
        ([Line(VoxelPoint(5, 5, 2), VoxelPoint(5, 5, 12))], ["line: 3 clicks, size, map"]),
        ([Box.of(BOX)], ["box: one click, size, limits, map"]),
        ([Lasso(on_slice)], ["lasso: one click, size, limits, map"]),
        ([Scribble(on_slice)], ["scribble: 4 clicks, map"]),
        ([GivenMask(on_slice)], ["mask: mask to correct"]),
        (
            [Click(VoxelPoint(3, 5, 7)), Box.of(BOX), Lasso(on_slice), GivenMask(on_slice)],
            [
                "click: one click",
                "box: size, limits, map",
                "lasso: size, limits, map",
                "mask: one click, mask to correct",
            ],
        ),
        (
            [GivenMask(on_slice), Box.of(BOX, foreground=False), Lasso(on_slice, foreground=False)],
            [
                "mask: one click, mask to correct",
                *(f"{n}: one click, voxels left out, map" for n in ("box", "lasso")),
            ],
        ),
    ]
    for prompts, expected in cases:
        used = placed(*prompts, knows_hints=knows_hints).used
        assert [use.foreground for use in used] == [prompt.foreground for prompt in prompts]
        lines = [f"{use.kind}: {use.used_as}" for use in used]
        assert lines == [line if knows_hints else line.removesuffix(", map") for line in expected]


@pytest.mark.parametrize(
    ("prompts", "low", "high", "is_whole"),
    [
        ([Box.of(BOX)], [-15.5, -9.5, 1.5], [-5.5, -3.5, 4.5], True),
        # A click beyond the box says that the object is larger, a line in it nothing more.
        ([Box.of(BOX), Click(VoxelPoint(3, 5, 18))], [-18, -9.5, 1.5], [-5.5, -3.5, 4.5], False),
        ([Box.of(BOX), Click(VoxelPoint(1, 3, 7))], [-15.5, -9.5, 1], [-5.5, -3, 4.5], False),
        (
            [Line(VoxelPoint(3, 5, 8), VoxelPoint(3, 5, 14)), Box.of(BOX)],
            [-15.5, -9.5, 1.5],
            [-5.5, -3.5, 4.5],
            True,
        ),
        ([Line(VoxelPoint(5, 5, 2), VoxelPoint(5, 5, 12))], [-12, -10, 0], [-2, 0, 10], False),
        # Of several the last counts; what is on the background has no size.
        (
            [Box.of(BOX), Box.of(VoxelBox.of((1, 3, 5), (6, 11, 17)))],
            [-16.5, -10.5, 0.5],
            [-4.5, -2.5, 5.5],
            True,
        ),
        (
            [Box.of(VoxelBox.of((0, 0, 0), (2, 2, 2)), foreground=False), Box.of(BOX)],
            [-15.5, -9.5, 1.5],
            [-5.5, -3.5, 4.5],
            True,
        ),
        ([GivenMask(area_of(BOX))], [-15.5, -9.5, 1.5], [-5.5, -3.5, 4.5], True),
        ([Lasso(area_of(VoxelBox.of((3, 4, 6), (4, 9, 11))))], [-10.5, -8.5, 2.5], [-5.5, -3.5, 3.5], False),
    ],
)
def test_the_size_that_prompts_tell(prompts, low, high, is_whole):
    extent = placed(*prompts).extent
    assert (extent.low_ras_mm.tolist(), extent.high_ras_mm.tolist(), extent.is_whole) == (low, high, is_whole)


def test_a_click_and_a_scribble_tell_no_size():
    stroke = Scribble.along([VoxelPoint(5, 5, 1), VoxelPoint(5, 5, 17)], GRID)
    assert placed(Click(VoxelPoint(3, 5, 7)), stroke).extent is None


def test_voxels_of_other_objects_and_of_the_background_are_left_out_together():
    others = np.zeros(GRID.shape_dhw, dtype=bool)
    others[0] = True
    click, left_out = Click(VoxelPoint(5, 5, 5)), VoxelBox.of((4, 8, 9), (6, 10, 12))
    assert PlacedPrompts.of([click], GRID, knows_hints=False, excluded=others).excluded is others
    assert placed(click).excluded is None
    prompts = [click, Box.of(left_out, foreground=False), Box.of(BOX)]
    result = PlacedPrompts.of(prompts, GRID, knows_hints=False, excluded=others)
    expected = np.ones(GRID.shape_dhw, dtype=bool)
    expected[BOX.slices] = False
    expected[left_out.slices] = True
    np.testing.assert_array_equal(result.excluded, expected)
    assert others.sum() == 400


def test_a_lasso_on_any_axis_leaves_out_the_rest_of_its_slice():
    area = area_of(VoxelBox.of((2, 7, 3), (6, 8, 9)))
    expected = np.zeros(GRID.shape_dhw, dtype=bool)
    expected[:, 7] = True
    expected[2:6, 7, 3:9] = False
    np.testing.assert_array_equal(placed(Lasso(area)).excluded, expected)


def test_of_a_lasso_its_area_counts_and_not_its_box():
    area = np.zeros(GRID.shape_dhw, dtype=bool)
    area[2, [4, 4, 5, 6], [6, 7, 6, 6]] = True
    expected = np.zeros(GRID.shape_dhw, dtype=bool)
    expected[2] = ~area[2]
    np.testing.assert_array_equal(placed(Lasso(PackedMask.of(area))).excluded, expected)
    other = np.zeros_like(area)
    other[2, [4, 6, 7], [5, 7, 7]] = True  # its box holds voxels of the first
    both = [Lasso(PackedMask.of(part)) for part in (area, other)]
    expected[2] = ~(area | other)[2]
    np.testing.assert_array_equal(placed(*both).excluded, expected)
    parts = [Lasso(PackedMask.of(part), foreground=False) for part in (area, other)]
    click, others = Click(VoxelPoint(5, 5, 5)), np.zeros_like(area)
    others[0] = True
    left_out = PlacedPrompts.of([click, *parts], GRID, knows_hints=False, excluded=others).excluded
    np.testing.assert_array_equal(left_out, area | other | others)


def test_the_innermost_voxel_of_an_area_is_that_of_its_slice():
    assert innermost_on_slice(area_of(VoxelBox.of((3, 4, 6), (4, 9, 11)))) == VoxelPoint(3, 6, 8)
    assert innermost_on_slice(area_of(VoxelBox.of((1, 7, 3), (6, 8, 8)))) == VoxelPoint(3, 7, 5)
    # Of two slices every voxel lies at the border: the first counts.
    assert innermost_on_slice(area_of(VoxelBox.of((3, 4, 6), (8, 6, 11)))) == VoxelPoint(3, 4, 6)
    with pytest.raises(ValueError, match=r"^an empty area has no innermost voxel$"):
        innermost_on_slice(PackedMask.of(np.zeros(GRID.shape_dhw)))


def test_of_given_masks_the_last_counts_and_other_prompts_ask_with_its_middle():
    first, last = area_of(BOX), area_of(VoxelBox.of((1, 1, 1), (4, 4, 4)))
    result = placed(GivenMask(first), GivenMask(last))
    assert result.given == last
    assert voxels(result.clicks) == [(3, 5, 7), (2, 2, 2)]
    assert voxels([WorldClick(place, True) for place in placed(GivenMask(last)).inside]) == [(2, 2, 2)]
    assert placed(Click(VoxelPoint(3, 5, 7))).given is None


@pytest.mark.parametrize(("length", "at"), [(1, [3]), (2, [3, 4]), (3, [3, 4, 5]), (5, [4, 5, 5, 6])])
def test_a_short_scribble_is_a_click_a_voxel(length, at):
    stroke = Scribble(area_of(VoxelBox.of((5, 5, 3), (6, 6, 3 + length))))
    assert voxels(placed(stroke).clicks) == [(5, 5, w) for w in at]


def test_clicks_follow_a_scribble_that_goes_to_and_fro_along_its_longest_side():
    stroke = np.zeros(GRID.shape_dhw, dtype=bool)
    stroke[[5, 4, 5, 4, 5, 4], range(2, 8), 3] = True
    clicks = placed(Scribble(PackedMask.of(stroke))).clicks
    assert voxels(clicks) == [(4, 3, 3), (5, 4, 3), (4, 5, 3), (5, 6, 3)]


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
    assert placed(Click(VoxelPoint(3, 5, 7))).warnings("m") == ()
    line, stroke = Line(VoxelPoint(3, 5, 8), VoxelPoint(3, 5, 14)), Scribble(area_of(BOX))
    for prompts, names in (((box,), "box"), ((line, box, line), "box and line"), ((stroke, line, box), ALL)):
        assert placed(*prompts).warnings("m") == (
            f"m knows clicks alone: the {names} stood for clicks, a size and limits "
            "(--model promise3d-lesions was trained with them)",
        )


def test_a_box_that_overhangs_counts_within_the_scan_and_says_so():
    box = Box.of(VoxelBox.of((-1, 4, 6), (5, 10, 16)))
    beyond = "the box reaches beyond the scan; its part in the scan counts"
    assert placed(box, knows_hints=True).warnings("m") == (beyond,)
    assert placed(box).warnings("m")[0] == beyond
    assert len(placed(box).warnings("m")) == 2


def test_maps_are_drawn_for_prompts_other_than_clicks():
    field = FieldOfView(GRID.to_world(VoxelPoint(4, 7, 11)), 1.0, (4, 4, 4))
    click, box = Click(VoxelPoint(3, 5, 7)), Box.of(BOX)
    assert placed(click, knows_hints=True).hints_on(field) is None
    np.testing.assert_array_equal(
        placed(click, box, knows_hints=True).hints_on(field), draw_hints([box], field, GRID)
    )


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
