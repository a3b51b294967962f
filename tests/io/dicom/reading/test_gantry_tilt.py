import math

import numpy as np
import pytest

from clickvol.errors import DicomSeriesError, ScanTooLargeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.reading.gantry_tilt import rectangular_grid, resample_tilted, tilt_degrees
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.formats import read_volume


def tilted_grid(shift_hw=(0.5, 0.0), shape_dhw=(4, 5, 6)):
    """Slices 3 mm apart, pixels of 0.8 x 0.5 mm, each slice shifted by so many pixels."""
    affine = np.eye(4)
    affine[:3, 1], affine[:3, 2] = [0, -0.8, 0], [-0.5, 0, 0]
    affine[:3, 0] = [-0.5 * shift_hw[1], -0.8 * shift_hw[0], 3]
    affine[:3, 3] = [100, 50, 20]
    return VolumeGrid(shape_dhw=shape_dhw, affine_ras_mm=affine)


def centres(grid):
    """Return the (D, H, W, 3) RAS mm of every voxel centre."""
    indices = np.stack(np.meshgrid(*map(np.arange, grid.shape_dhw), indexing="ij"), axis=-1)
    return indices @ grid.affine_ras_mm[:3, :3].T + grid.affine_ras_mm[:3, 3]


def field(grid):
    """Return a linear function of place, which linear interpolation gives exactly."""
    return centres(grid) @ [0.7, -1.3, 2.1] + 5


def is_in_a_slice(straight, grid):
    """Tell of each voxel of the straight grid whether it lies between pixels of the slice in its plane."""
    positions = (centres(straight) - grid.affine_ras_mm[:3, 3]) @ np.linalg.inv(grid.affine_ras_mm[:3, :3]).T
    last = np.array(grid.shape_dhw) - 1
    return ((positions >= -1e-6) & (positions <= last + 1e-6)).all(axis=-1)


def test_the_angle_is_the_one_between_step_and_normal():
    assert tilt_degrees(tilted_grid((0, 0))) == 0
    assert tilt_degrees(tilted_grid((0.5, 0))) == pytest.approx(math.degrees(math.atan(0.4 / 3)))
    assert tilt_degrees(tilted_grid((0.001, 0))) == 0  # 0.015 degrees


def test_whole_pixels_are_moved_and_not_changed():
    array = np.arange(2 * 2 * 3, dtype=np.int16).reshape(2, 2, 3) + 10
    straight, grid = resample_tilted(array, tilted_grid((1.0, 0), (2, 2, 3)), "ct")
    assert straight.dtype == np.int16
    expected = [
        [[10, 11, 12], [13, 14, 15], [10, 10, 10]],
        [[10, 10, 10], [16, 17, 18], [19, 20, 21]],
    ]
    np.testing.assert_array_equal(straight, expected)
    np.testing.assert_allclose(grid.affine_ras_mm[:3, 0], [0, 0, 3])
    np.testing.assert_allclose(grid.affine_ras_mm[:3, 3], [100, 50, 20])


def test_half_a_pixel_is_the_mean_of_two_and_integers_are_rounded():
    array = np.array([[[0, 0, 0], [8, 8, 8]], [[10, 20, 30], [11, 40, 90]]], dtype=np.int16)
    straight, grid = resample_tilted(array, tilted_grid((0, -0.5), (2, 2, 3)), "ct")
    assert grid.shape_dhw == (2, 2, 4)
    np.testing.assert_array_equal(straight[0], [[0, 0, 0, 0], [0, 8, 8, 8]])
    # 25.5 is rounded to the even 26, as NumPy does; beyond the slice there is the smallest value.
    np.testing.assert_array_equal(straight[1], [[0, 15, 25, 0], [0, 26, 65, 0]])
    # The new first column is one pixel before that of slice 0.
    np.testing.assert_allclose(grid.affine_ras_mm[:3, 3], [100.5, 50, 20])


@pytest.mark.parametrize("shift_hw", [(0.37, 0), (-0.61, 0), (0.37, -0.83), (-1.4, 0.25)])
def test_a_linear_field_is_resampled_exactly(shift_hw):
    tilted = tilted_grid(shift_hw, (7, 9, 8))
    array = field(tilted)
    straight, grid = resample_tilted(array, tilted, "ct")
    assert tilt_degrees(grid) == 0
    assert grid == rectangular_grid(tilted, "ct")
    inside = is_in_a_slice(grid, tilted)
    assert inside.sum() > 200
    np.testing.assert_allclose(straight[inside], field(grid)[inside], atol=1e-9)
    assert (straight[~inside] == array.min()).all()
    # Every slice is held whole: no voxel of it lies outside the straight grid.
    positions = (centres(tilted) - grid.affine_ras_mm[:3, 3]) @ np.linalg.inv(grid.affine_ras_mm[:3, :3]).T
    assert positions.min() >= -1e-6
    assert (positions.max(axis=(0, 1, 2)) <= np.array(grid.shape_dhw) - 1 + 1e-6).all()


def test_one_row_and_one_slice():
    array = np.array([[[1.0, 3.0]], [[5.0, 7.0]]])
    straight, _ = resample_tilted(array, tilted_grid((0, 0.5), (2, 1, 2)), "ct")
    np.testing.assert_allclose(straight, [[[1, 3, 1]], [[1, 6, 1]]])
    alone = tilted_grid((0, 0), (1, 5, 6))
    assert rectangular_grid(alone, "ct") == alone


def test_a_tilt_that_no_gantry_has_is_not_resampled():
    with pytest.raises(DicomSeriesError, match=r"^ct: .* tilted by 47\.\d degrees, but at most 45"):
        rectangular_grid(tilted_grid((4.1, 0)), "ct")


def tilted_series(write_series):
    return write_series(per_slice=lambda k: {"ImagePositionPatient": [-100, -50 + 0.4 * k, 20 + 3 * k]})


def test_a_tilted_series_is_kept_refused_or_resampled(write_series, stored_pixels):
    folder = tilted_series(write_series)
    kept = read_dicom(folder)
    np.testing.assert_array_equal(kept.array, stored_pixels.astype(int) - 1024)
    np.testing.assert_allclose(kept.grid.affine_ras_mm[:3, 0], [0, -0.4, 3])
    assert kept.notes == ("The gantry was tilted by 7.6 degrees; the grid is sheared accordingly.",)
    with pytest.raises(DicomSeriesError, match=r"tilted by 7\.6 degrees, but slices straight"):
        read_volume(folder, gantry_tilt="refuse")
    straight = read_volume(folder, gantry_tilt="resample")
    assert straight.notes == (
        "The gantry was tilted by 7.6 degrees; the slices were resampled to a rectangular grid.",
    )
    assert straight.grid.shape_dhw == (4, 7, 6)  # three times half a pixel, rounded up
    np.testing.assert_allclose(straight.grid.affine_ras_mm[:3, 0], [0, 0, 3])
    # Slice 2 is shifted by one whole pixel.
    np.testing.assert_array_equal(straight.array[2, 1:6], kept.array[2])
    assert straight.array.dtype == kept.array.dtype


@pytest.mark.parametrize("gantry_tilt", ["keep", "refuse", "resample"])
def test_a_straight_series_is_the_same_whatever_is_asked(write_series, gantry_tilt):
    folder = write_series()
    volume = read_dicom(folder, gantry_tilt=gantry_tilt)
    assert (volume.grid, volume.notes) == (read_dicom(folder).grid, ())


def test_limits_count_the_voxels_of_the_rectangular_grid(write_series):
    folder = tilted_series(write_series)
    limits = ReadLimits(max_voxels=4 * 5 * 6, max_bytes_unpacked=10**6)
    assert read_volume(folder, limits=limits).array.shape == (4, 5, 6)
    with pytest.raises(ScanTooLargeError, match="holds 168 voxels, but at most 120"):
        read_volume(folder, gantry_tilt="resample", limits=limits)
