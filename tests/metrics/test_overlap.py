import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from clickvol.metrics.overlap import boundary_f, dice, iou, pixel_error, volume_ml


def test_two_of_three_and_four_voxels_overlap():
    prediction = np.array([1, 1, 1, 0, 0, 0])
    truth = np.array([0, 1, 1, 1, 1, 0])
    assert dice(prediction, truth) == 2 * 2 / (3 + 4)


def test_equal_masks_score_one_and_disjoint_masks_zero():
    mask = np.zeros((2, 3, 4), np.uint8)
    mask[0, 1, 2] = 1
    assert dice(mask, mask) == 1.0
    assert dice(mask, 1 - mask) == 0.0


def test_two_empty_masks_agree_and_one_empty_mask_does_not():
    empty, full = np.zeros((2, 2)), np.ones((2, 2))
    assert dice(empty, empty) == 1.0
    assert dice(empty, full) == 0.0
    assert dice(full, empty) == 0.0


def test_any_non_zero_value_is_object():
    assert dice(np.array([0, 7, -1]), np.array([False, True, True])) == 1.0


def test_counts_do_not_overflow_small_integer_types():
    mask = np.ones(100_000, np.uint8)
    assert dice(mask, mask) == 1.0


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"^the masks have shapes \(2, 2\) and \(4,\), which must be equal$"):
        dice(np.zeros((2, 2)), np.zeros(4))


def test_importing_it_does_not_import_torch():
    code = "import sys, clickvol.metrics.overlap; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_intersection_over_union_of_two_voxels_in_five():
    prediction = np.array([1, 1, 1, 0, 0, 0])
    truth = np.array([0, 1, 1, 1, 1, 0])
    assert iou(prediction, truth) == 2 / 5
    assert iou(truth, truth) == 1.0
    assert iou(np.zeros(6), np.zeros(6)) == 1.0
    assert iou(np.zeros(6), truth) == iou(truth, np.zeros(6)) == 0.0


def test_volumes_are_in_millilitres():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[:2] = 5
    assert volume_ml(truth, (5.0, 2.0, 1.0)) == pytest.approx(0.32)


def square(top, left, side=20, shape_hw=(60, 80)):
    mask = np.zeros(shape_hw, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_pixel_error_is_the_part_of_the_pixels_that_differ():
    assert pixel_error(square(10, 10), square(10, 10)) == 0
    # Two columns of 20 pixels on either side, of 4800 pixels.
    assert pixel_error(square(10, 12), square(10, 10)) == 80 / 4800
    assert pixel_error(np.zeros((60, 80)), square(10, 10)) == 400 / 4800
    with pytest.raises(ValueError, match="shapes"):
        pixel_error(np.zeros((2, 2)), np.zeros((3, 3)))


def test_boundary_f_by_hand():
    truth = square(10, 10)
    assert boundary_f(truth, truth) == 1
    # The diagonal is 100 pixels, so the tolerance is 1: a square that is moved by one pixel has it all.
    assert boundary_f(square(11, 10), truth) == 1
    # Moved down by ten rows: of 76 pixels of either boundary the sides of ten rows are common, one more row on
    # each side is near, and the ends' corners with it.
    moved = boundary_f(square(20, 10), truth)
    edge = truth & ~ndimage.binary_erosion(truth)
    other = np.roll(edge, 10, axis=0)
    near = ndimage.distance_transform_edt(~edge) <= 1
    assert moved == pytest.approx((other & near).sum() / 76)
    assert 0.2 < moved < 0.4
    assert boundary_f(square(35, 50), truth) == 0
    assert boundary_f(np.zeros_like(truth), truth) == 0
    assert boundary_f(np.zeros_like(truth), np.zeros_like(truth)) == 1
    # Where the picture ends there is no boundary: the upper half of a picture has one row.
    upper, lower = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    upper[:30], lower[30:] = True, True
    assert boundary_f(upper, lower) == 1
    # A diagonal of 500 pixels: the tolerance is 4.
    truth, moved = np.zeros((300, 400), bool), np.zeros((300, 400), bool)
    truth[50:200, 60:300] = moved[54:204, 60:300] = True
    assert boundary_f(moved, truth) == 1
    assert boundary_f(np.roll(moved, 1, axis=0), truth) < 1
