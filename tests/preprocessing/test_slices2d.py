from itertools import permutations, product

import numpy as np
import pytest

from clickvol.errors import ConfigError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.preprocessing.slices2d import slice_view, unit_values

SHAPE_IJK = (4, 3, 2)
# i to the right, j to the front, k to the head: RAS.
RAS = VolumeGrid.from_ijk(SHAPE_IJK, np.diag([1.0, 2.0, 3.0, 1.0]))
# A value that tells its voxel: 100 i + 10 j + k.
NUMBERED = np.fromfunction(lambda k, j, i: 100 * i + 10 * j + k, SHAPE_IJK[::-1], dtype=int)


def test_file_axes_are_cut_as_stored():
    expected = {
        "k": [[1, 101, 201, 301], [11, 111, 211, 311], [21, 121, 221, 321]],
        "j": [[10, 110, 210, 310], [11, 111, 211, 311]],
        "i": [[100, 110, 120], [101, 111, 121]],
    }
    for axis, values in expected.items():
        assert slice_view(RAS, axis, 1).cut(NUMBERED).tolist() == values


def test_planes_are_hung_as_radiologists_do():
    # Left of the picture is the patient's right (large i), or the front (large j); its top is the front or
    # the head (large k).
    expected = {
        "axial": [[321, 221, 121, 21], [311, 211, 111, 11], [301, 201, 101, 1]],
        "coronal": [[311, 211, 111, 11], [310, 210, 110, 10]],
        "sagittal": [[121, 111, 101], [120, 110, 100]],
    }
    for axis, values in expected.items():
        assert slice_view(RAS, axis, 1).cut(NUMBERED).tolist() == values


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_flipped_and_permuted_copies_give_the_same_image(axis):
    wanted = slice_view(RAS, axis, 1).cut(NUMBERED)
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
        copy = NUMBERED.transpose(order)[steps]
        affine = np.eye(4)
        affine[:3, :3] = RAS.affine_ras_mm[:3, :3][:, order] * np.where(flips, -1, 1)
        grid = VolumeGrid(copy.shape, affine)
        probe = slice_view(grid, axis, 0).normal_axis
        index = copy.shape[probe] - 2 if flips[probe] else 1
        assert np.array_equal(slice_view(grid, axis, index).cut(copy), wanted), (order, flips)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "i", "j", "k"])
def test_a_mask_goes_back_to_where_it_was_cut(axis):
    view = slice_view(RAS, axis, 1)
    shape = view.cut(NUMBERED).shape
    plane = np.random.default_rng(3).random(shape) < 0.5
    filled = view.filled(plane)
    assert filled.shape == NUMBERED.shape
    assert filled.dtype == np.uint8
    assert filled.sum() == plane.sum()
    assert np.array_equal(view.cut(filled) == 1, plane)
    for row, column in np.argwhere(plane):
        i, j, k = view.voxel_ijk(column, row)
        assert filled[int(k), int(j), int(i)] == 1


def test_an_oblique_scan_is_cut_along_its_nearest_axis():
    turn = np.radians(30)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    grid = VolumeGrid.from_ijk(SHAPE_IJK, affine)
    assert np.array_equal(
        slice_view(grid, "coronal", 2).cut(NUMBERED), slice_view(RAS, "coronal", 2).cut(NUMBERED)
    )
    assert grid.to_world(VoxelPoint(0, 0, 1)).x > 0


def test_slices_that_are_not_there_are_refused_with_the_range():
    for index in (-1, 3):
        with pytest.raises(ConfigError, match=f"no coronal slice {index}; .* are 0 to 2"):
            slice_view(RAS, "coronal", index)
    with pytest.raises(ConfigError, match="no slice axis 'up'"):
        slice_view(RAS, "up", 0)
    with pytest.raises(ConfigError, match="but the slice lies in one of"):
        slice_view(RAS, "k", 0).cut(NUMBERED.T)


def test_ct_is_windowed_at_fixed_values():
    result = unit_values(np.array([[-1000, -160, 40], [140, 240, 3000]], np.int16), "CT")
    assert result.dtype == np.float32
    assert np.allclose(result, [[0, 0, 0.5], [0.75, 1, 1]])


def test_anything_else_is_windowed_at_percentiles():
    values = np.arange(1001).reshape(7, 143)
    for modality in ("MR", "PT", "unknown", None):
        result = unit_values(values, modality)
        # The percentiles 0.5 and 99.5 of 0..1000 are 5 and 995.
        assert np.allclose(result, np.clip((values - 5) / 990, 0, 1), atol=1e-6)
    assert (unit_values(np.full((3, 4), 7.0), "MR") == 0).all()
