import numpy as np
import pytest

from clickvol.geometry.coordinates import PatchPoint
from clickvol.prompts.simulate import (
    ErrorClick,
    Region,
    components,
    deepest_voxel,
    edge_voxels,
    inside_voxels,
    largest_error_click,
    outside_voxels,
)

FIRST = PatchPoint(12.25, 12, 12)


def _ball(radius=6, side=24):
    place = np.indices((side,) * 3) - 12
    return (place**2).sum(axis=0) <= radius**2


ONE_MM = np.ones(3)


def mask_of(shape, *boxes):
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[tuple(slice(a, b) for a, b in box)] = True
    return mask


def as_set(voxels):
    return {tuple(voxel) for voxel in voxels.tolist()}


def test_an_empty_mask_has_no_region():
    assert Region.of(np.zeros((3, 3, 3), bool)) is None


def test_a_region_keeps_its_place_and_has_an_empty_margin():
    region = Region.of(mask_of((5, 6, 7), [(0, 2), (3, 6), (4, 5)]), (10, 20, 30))
    assert region.start_dhw == (9, 22, 33)
    assert region.inside.shape == (4, 5, 3)
    assert region.num_voxels == 6
    assert as_set(region.voxels(region.inside)) == {(d, h, 34) for d in (10, 11) for h in (23, 24, 25)}


def test_components_are_26_connected_and_come_largest_first():
    mask = mask_of((8, 8, 8), [(0, 1), (0, 1), (0, 1)], [(5, 8), (5, 8), (5, 8)])
    mask[1, 1, 1] = True  # joined to (0, 0, 0) by a corner
    parts = components(Region.of(mask))
    assert [part.num_voxels for part in parts] == [27, 2]
    assert as_set(parts[1].voxels(parts[1].inside)) == {(0, 0, 0), (1, 1, 1)}


def test_two_parts_in_one_box_are_told_apart():
    mask = mask_of((5, 5, 5), [(0, 5), (0, 5), (0, 1)], [(0, 1), (0, 1), (2, 5)])
    mask[2, 2, 3] = True  # inside the box of neither alone, but of both
    assert [part.num_voxels for part in components(Region.of(mask))] == [25, 3, 1]


def test_the_deepest_voxel_is_measured_in_millimetres():
    # 5 x 5 x 9 voxels; along w a voxel is 0.5 mm, so that the box is 5 x 5 x 4.5 mm.
    region = Region.of(mask_of((7, 7, 11), [(1, 6), (1, 6), (1, 10)]))
    assert deepest_voxel(region, np.array([1.0, 1.0, 0.5])) == (3, 3, 5)
    # With thick slices only the plane matters: many are as deep, and the one in their middle is earlier.
    assert deepest_voxel(region, np.array([9.0, 1.0, 1.0])) == (3, 3, 5)


def test_beyond_the_scan_counts_as_outside():
    region = Region.of(np.ones((5, 5, 5), bool))
    assert deepest_voxel(region, ONE_MM) == (2, 2, 2)


def test_earlier_clicks_are_avoided_until_nothing_is_left():
    region = Region.of(mask_of((3, 3, 9), [(1, 2), (1, 2), (1, 8)]))
    earlier = []
    for _ in range(7):
        voxel = deepest_voxel(region, np.array([9.0, 9.0, 1.0]), earlier)
        assert voxel not in earlier
        earlier.append(voxel)
    assert earlier[0] == (1, 1, 4)  # the middle of the line
    assert earlier[1] == (1, 1, 2)  # the middle of its first half
    assert deepest_voxel(region, ONE_MM, earlier) is None


def test_inside_is_at_least_half_as_deep_as_the_deepest():
    region = Region.of(mask_of((9, 9, 9), [(1, 8), (1, 8), (1, 8)]))  # depths 1 to 4
    assert as_set(inside_voxels(region, ONE_MM)) == {
        (d, h, w) for d in range(2, 7) for h in range(2, 7) for w in range(2, 7)
    }


@pytest.mark.parametrize(("spacing", "core"), [(1.0, 3), (3.0, 5)])
def test_the_edge_is_two_millimetres_or_one_voxel_wide(spacing, core):
    mask = mask_of((9, 9, 9), [(1, 8), (1, 8), (1, 8)])
    edge = as_set(edge_voxels(Region.of(mask), np.full(3, spacing)))
    assert len(edge) == 7**3 - core**3
    assert (1, 4, 4) in edge
    assert (4, 4, 4) not in edge


def test_outside_is_two_to_five_millimetres_away_and_in_the_scan():
    mask = mask_of((20, 20, 20), [(0, 1), (10, 11), (10, 11)])
    outside = as_set(outside_voxels(Region.of(mask), ONE_MM, mask.shape))
    expected = {
        tuple(voxel)
        for voxel in np.argwhere(np.ones(mask.shape, bool)).tolist()
        if 4 <= (np.array(voxel) - (0, 10, 10)) @ (np.array(voxel) - (0, 10, 10)) <= 25
    }
    assert outside == expected


def test_outside_has_the_nearest_where_voxels_are_large():
    mask = mask_of((3, 3, 3), [(1, 2), (1, 2), (1, 2)])
    outside = as_set(outside_voxels(Region.of(mask), np.array([6.0, 8.0, 8.0]), mask.shape))
    assert outside == {(0, 1, 1), (2, 1, 1)}


def test_nothing_is_beside_an_object_that_fills_the_scan():
    mask = np.ones((3, 3, 3), bool)
    assert len(outside_voxels(Region.of(mask), ONE_MM, mask.shape)) == 0


def test_the_error_click_of_evaluation_is_the_deepest_voxel_of_the_largest_error_in_mm():
    truth = mask_of((7, 7, 20), [(1, 6), (1, 6), (1, 10)])
    predicted = mask_of((7, 7, 20), [(2, 5), (2, 5), (14, 17)])
    assert largest_error_click(predicted, truth, np.array([1.0, 1.0, 0.5])) == ErrorClick((3, 3, 5), True, 225)
    # Without the missed part, what is too much is the largest error.
    assert largest_error_click(truth | predicted, truth, ONE_MM) == ErrorClick((3, 3, 15), False, 27)
    assert largest_error_click(truth, truth, ONE_MM) is None


def test_of_equally_large_errors_the_missed_one_is_clicked_and_then_the_other():
    truth, predicted = (
        mask_of((3, 3, 9), [(1, 2), (1, 2), (6, 7)]),
        mask_of((3, 3, 9), [(1, 2), (1, 2), (2, 3)]),
    )
    first = largest_error_click(predicted, truth, ONE_MM)
    assert first == ErrorClick((1, 1, 6), True, 1)
    second = largest_error_click(predicted, truth, ONE_MM, [first.voxel_dhw])
    assert second == ErrorClick((1, 1, 2), False, 1)
    assert largest_error_click(predicted, truth, ONE_MM, [first.voxel_dhw, second.voxel_dhw]) is None
