import numpy as np
import pytest

from clickvol.errors import UnreadableVolumeError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.plane_placing import Plane, grid_of_planes, place_plane, slice_positions

# d: 3 mm up; h: 2 mm to the back; w: 1 mm to the left; LPS (10, 20, 30) is the first voxel.
AFFINE = np.array([[0, 0, -1.0, -10], [0, -2.0, 0, -20], [3.0, 0, 0, 30], [0, 0, 0, 1]])
GRID = VolumeGrid((4, 5, 6), AFFINE)


def plane(position, orientation=(1, 0, 0, 0, 1, 0), spacing=(2, 1)):
    return Plane(np.array(position, float), np.array(orientation, float), spacing)


def placed(inside, where):
    array = np.zeros(GRID.shape_dhw, np.uint8)
    place_plane(np.array(inside, bool), where, GRID, array, "m.dcm")
    return np.argwhere(array).tolist()


def test_a_part_of_a_slice():
    # Row 1 column 0 of a plane that begins at h=2, w=3.
    assert placed([[0, 0], [1, 0]], plane((13, 24, 36))) == [[2, 3, 3]]


def test_rows_and_columns_the_other_way_round():
    # Rows run to the right (-x) from w=5, columns to the front (-y) from h=4.
    mirrored = plane((15, 28, 30), (-1, 0, 0, 0, -1, 0))
    assert placed([[0, 1], [0, 0]], mirrored) == [[0, 4, 4]]


def test_a_plane_across_the_slices():
    # Coronal: rows run along w, columns down along d, from the top slice at h=1.
    coronal = plane((10, 22, 39), (1, 0, 0, 0, 0, -1), (3, 1))
    assert placed([[1, 0], [0, 1]], coronal) == [[2, 1, 1], [3, 1, 0]]


def test_positions_that_are_rounded_belong_to_the_nearest_voxel():
    assert placed([[1]], plane((10.2, 20.4, 36.7))) == [[2, 0, 0]]


@pytest.mark.parametrize(
    "where",
    [
        plane((10.3, 20, 30)),  # 0.3 voxels beside
        plane((10, 20, 31)),  # a third of a slice above
        plane((10, 20, 30), spacing=(2, 2)),
        plane((10, 20, 30), spacing=(2, 0.5)),
        plane((10, 20, 30), (0.8, 0.6, 0, -0.6, 0.8, 0)),
    ],
)
def test_other_voxels(where):
    with pytest.raises(UnreadableVolumeError, match=r"m\.dcm has other voxels than the scan"):
        placed([[1, 1]], where)


def test_only_what_is_marked_must_lie_in_the_scan():
    beyond = plane((14, 20, 30))  # w = 4, 5 and 6, which is not there
    assert placed([[1, 1, 0]], beyond) == [[0, 0, 4], [0, 0, 5]]
    with pytest.raises(UnreadableVolumeError, match="reaches beyond the scan"):
        placed([[0, 0, 1]], beyond)


def test_the_grid_through_planes():
    grid = grid_of_planes([plane((10, 20, z)) for z in (36, 30, 30, 39)], (5, 6), "m.dcm")
    assert grid.shape_dhw == (4, 5, 6)
    np.testing.assert_allclose(grid.affine_ras_mm, AFFINE)


def test_the_grid_through_one_plane_is_1_mm_thick():
    grid = grid_of_planes([plane((10, 20, 30))], (5, 6), "m.dcm")
    assert grid.shape_dhw == (1, 5, 6)
    assert grid.spacing_dhw_mm.tolist() == [1, 2, 1]


def test_planes_of_several_directions_have_no_grid():
    other = plane((10, 20, 30), (0, 1, 0, 0, 0, 1))
    with pytest.raises(UnreadableVolumeError, match="several directions"):
        grid_of_planes([plane((10, 20, 30)), other], (5, 6), "m.dcm")


def test_contours_in_voxels():
    points = np.array([[10, 20, 36.6], [11, 20, 36.6], [11, 25, 36.6]])
    index, positions = slice_positions(points, GRID, "m.dcm")
    assert index == 2
    np.testing.assert_allclose(positions, [[0, 0], [0, 1], [2.5, 1]])


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([[10, 20, 31], [11, 20, 31], [11, 25, 31]], "no slice of the scan"),
        ([[10, 20, 30], [11, 20, 30], [11, 25, 33]], "no slice of the scan"),
        ([[10, 20, 42], [11, 20, 42], [11, 25, 42]], "beyond the scan"),
        ([[10, 20, 27], [11, 20, 27], [11, 25, 27]], "beyond the scan"),
    ],
)
def test_contours_elsewhere(points, said):
    with pytest.raises(UnreadableVolumeError, match=said):
        slice_positions(np.array(points, float), GRID, "m.dcm")
