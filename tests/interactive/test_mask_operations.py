"""Operations on finished masks: exact voxels on arrays made by hand, then what holds of any mask."""

import numpy as np
import pytest

from clickvol.errors import ClickError
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.mask_operations import operated
from clickvol.prompts.packed_mask import EMPTY, PackedMask

GRID = VolumeGrid.axial((9, 12, 12), (4.0, 1.0, 2.0))


def after(mask, operation, mm=0.0, grid=GRID):
    return operated(PackedMask.of(mask), operation, mm, grid).full(grid.shape_dhw)


@pytest.fixture
def empty():
    return np.zeros(GRID.shape_dhw, dtype=bool)


def test_the_largest_part_is_kept_parts_that_touch_at_a_corner_are_one(empty):
    mask = empty.copy()
    mask[2:4, 2:4, 2:4] = True
    mask[4, 4, 4] = True
    expected = mask.copy()
    mask[7, 8:11, 8:10] = True
    np.testing.assert_array_equal(after(mask, "keep_largest"), expected)


def test_holes_in_space_and_on_a_slice_are_filled(empty):
    mask = empty.copy()
    mask[2:7, 2:9, 2:9] = True
    expected = mask.copy()
    mask[4, 5, 5] = False
    np.testing.assert_array_equal(after(mask, "fill_holes"), expected)
    mask[:, 5, 5] = False  # a tunnel is no hole in space, but one on each slice
    np.testing.assert_array_equal(after(mask, "fill_holes"), expected)
    mask[:, 5, :6] = False  # open at one side: no hole
    np.testing.assert_array_equal(after(mask, "fill_holes"), mask)


def test_growing_and_shrinking_measure_mm_along_every_axis(empty):
    mask = empty.copy()
    mask[4, 6, 6] = True
    grown = after(mask, "grow", 2.0)
    # Spacing 4, 1, 2 mm: no slice, two rows, one column; and the corners within 2 mm.
    expected = empty.copy()
    expected[4, 4:9, 6] = True
    expected[4, 6, 5:8] = True
    np.testing.assert_array_equal(grown, expected)
    assert after(mask, "grow", 4.0)[3, 6, 6]
    block = empty.copy()
    block[2:7, 2:10, 2:10] = True
    expected = empty.copy()
    expected[2:7, 4:8, 3:9] = True
    np.testing.assert_array_equal(after(block, "shrink", 2.5), expected)


def test_the_border_of_the_scan_is_no_surface(empty):
    mask = empty.copy()
    mask[:, :6] = True
    shrunk = after(mask, "shrink", 2.0)
    assert shrunk[:, :4].all()
    assert not shrunk[:, 4:].any()
    whole = ~empty
    np.testing.assert_array_equal(after(whole, "shrink", 5.0), whole)
    np.testing.assert_array_equal(after(mask, "smooth", 2.0), mask)


def test_smoothing_takes_a_spike_away_and_keeps_the_number_of_voxels():
    grid = VolumeGrid.axial((24, 24, 24), (1.0, 1.0, 1.0))
    mask = sum((np.ogrid[:24, :24, :24][n] - 12) ** 2 for n in range(3)) <= 36
    spiked = mask.copy()
    spiked[12, 12, 18:24] = True
    smooth = after(spiked, "smooth", 1.5, grid)
    assert not smooth[12, 12, 20:].any()
    assert abs(int(smooth.sum()) - int(spiked.sum())) <= 12


def test_slices_between_are_filled_by_shape(empty):
    mask = empty.copy()
    mask[2, 2:5, 2:5] = True
    mask[6, 2:9, 2:9] = True
    filled = after(mask, "fill_between")
    areas = filled.sum(axis=(1, 2))
    assert (areas[2], areas[6]) == (9, 49)
    assert 9 <= areas[3] <= areas[4] <= areas[5] <= 49
    assert areas[4] > 9
    assert not areas[[0, 1, 7, 8]].any()
    np.testing.assert_array_equal(filled[[2, 6]], mask[[2, 6]])


@pytest.mark.parametrize(
    ("operation", "mm", "words"),
    [("fill_between", 0.0, "no empty slice"), ("shrink", 9.0, "nothing would be left")],
)
def test_what_cannot_be_done_is_refused(empty, operation, mm, words):
    mask = empty.copy()
    mask[3:5, 4:7, 4:7] = True
    with pytest.raises(ClickError, match=words):
        after(mask, operation, mm)


@pytest.mark.parametrize("operation", ["keep_largest", "grow"])
def test_an_empty_mask_is_refused(operation):
    with pytest.raises(ClickError, match="no voxel yet"):
        operated(EMPTY, operation, 1.0, GRID)
