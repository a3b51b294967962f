import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickvol.errors import BadGeometryError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView
from reference.grids import any_grid, make_grid

settings_here = settings(derandomize=True, max_examples=100, deadline=None)
places = st.tuples(*[st.floats(-60, 60)] * 3)

# An axial CT as files have it: i to the left, j to posterior, k to superior.
CT_IJK = np.array([[-0.5, 0, 0, 100], [0, -0.75, 0, 80], [0, 0, 3, -40], [0, 0, 0, 1.0]])


def test_a_file_s_own_convention_gives_the_same_millimetres():
    grid = VolumeGrid.from_ijk((10, 20, 30), CT_IJK)
    assert grid.shape_dhw == (30, 20, 10)
    assert grid.spacing_dhw_mm.tolist() == [3, 0.75, 0.5]
    assert grid.to_world(VoxelPoint.from_ijk(2, 4, 6)) == WorldPointRAS(99, 77, -22)
    assert grid.to_voxel(WorldPointRAS(99, 77, -22)) == VoxelPoint(d=6, h=4, w=2)
    assert np.array_equal(grid.affine_ijk_ras_mm, CT_IJK)


def test_shape_and_affine_are_frozen_copies():
    affine = np.eye(4)
    grid = VolumeGrid((np.int64(2), 3, 4), affine)
    affine[0, 3] = 7
    assert grid.affine_ras_mm[0, 3] == 0
    assert all(type(n) is int for n in grid.shape_dhw)
    with pytest.raises(ValueError, match="read-only"):
        grid.affine_ras_mm[0, 3] = 1


def test_grids_are_equal_when_shape_and_affine_are():
    grid = make_grid((2, 3, 4), (1, 2, 3))
    assert grid == make_grid((2, 3, 4), (1, 2, 3))
    assert grid != make_grid((2, 3, 5), (1, 2, 3))
    assert grid != make_grid((2, 3, 4), (1, 2, 3), at=(0, 0, 1e-9))
    assert grid != "a grid"


def test_the_volume_of_a_voxel_is_right_for_a_sheared_grid():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[0, 1] = 3.0  # the second axis leans by 45 degrees and keeps its height of 3 mm
    grid = VolumeGrid((2, 2, 2), affine)
    assert grid.voxel_volume_mm3 == pytest.approx(24.0)
    assert grid.spacing_dhw_mm == pytest.approx([2.0, np.sqrt(18), 4.0])


@pytest.mark.parametrize(
    ("voxel", "inside"),
    [
        ((0, 0, 0), True),
        ((1, 2, 3), True),
        ((-0.5, 0, 0), True),
        ((1.5, 2.5, 3.5), True),
        ((-0.51, 0, 0), False),
        ((0, 2.51, 0), False),
        ((0, 0, 4), False),
        ((float("nan"), 0, 0), False),
    ],
)
def test_a_place_belongs_to_the_grid_up_to_the_faces_of_its_outer_voxels(voxel, inside):
    assert make_grid((2, 3, 4), (1, 1, 1)).contains(VoxelPoint(*voxel)) is inside


def test_the_extent_is_that_of_the_voxel_centres():
    low, high = VolumeGrid.from_ijk((10, 20, 30), CT_IJK).extent_ras_mm()
    assert low == WorldPointRAS(95.5, 65.75, -40)
    assert high == WorldPointRAS(100, 80, 47)


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.diag([1.0, 0, 1, 1]), r"spacing \(i, j, k\) is \(1, 0, 1\) mm"),
        (np.diag([1.0, np.nan, 1, 1]), "not a finite 4x4"),
        (np.diag([1.0, np.inf, 1, 1]), "not a finite 4x4"),
        (np.eye(3), "not a finite 4x4"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_an_affine_that_maps_no_voxel_to_a_place_is_refused(affine, words):
    with pytest.raises(BadGeometryError, match=words) as caught:
        VolumeGrid((2, 3, 4), affine)
    assert "\n" not in str(caught.value)


def test_tiny_voxels_are_not_taken_for_a_singular_affine():
    assert VolumeGrid((2, 2, 2), np.diag([1e-3, 1e-3, 1e-3, 1])).voxel_volume_mm3 > 0


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, 1, -1)])
def test_a_grid_without_voxels_is_refused(shape):
    with pytest.raises(BadGeometryError, match="empty"):
        VolumeGrid(shape, np.eye(4))


@settings_here
@given(grid=any_grid(), place=places)
def test_voxel_to_world_and_back(grid, place):
    there = grid.to_world(VoxelPoint(*place))
    assert grid.to_voxel(there).as_array() == pytest.approx(place, abs=1e-8)


@settings_here
@given(grid=any_grid(), place=places)
def test_millimetres_are_what_nibabel_makes_of_ijk(grid, place):
    point = VoxelPoint(*place)
    theirs = nibabel.affines.apply_affine(grid.affine_ijk_ras_mm, point.to_ijk())
    assert grid.to_world(point).as_array() == pytest.approx(theirs, abs=1e-9)


@settings_here
@given(grid=any_grid(), place=places, voxel_mm=st.floats(0.5, 6))
def test_world_to_voxel_to_patch_to_voxel_to_world(grid, place, voxel_mm):
    start = WorldPointRAS(*place)
    voxel = grid.to_voxel(start)
    field = FieldOfView(WorldPointRAS(5, -9, 13), voxel_mm, (16, 20, 24))
    patch = field.to_patch(grid.to_world(voxel))
    back = field.grid().to_world(VoxelPoint(*patch.as_array()))
    assert grid.to_voxel(back).as_array() == pytest.approx(voxel.as_array(), abs=1e-7)
    assert grid.to_world(grid.to_voxel(back)).as_array() == pytest.approx(place, abs=1e-7)


@settings_here
@given(grid=any_grid())
def test_spacing_and_volume_follow_the_affine(grid):
    step = grid.to_world(VoxelPoint(1, 0, 0)).as_array() - grid.to_world(VoxelPoint(0, 0, 0)).as_array()
    assert np.linalg.norm(step) == pytest.approx(grid.spacing_dhw_mm[0])
    assert grid.voxel_volume_mm3 == pytest.approx(np.prod(grid.spacing_dhw_mm))


@settings_here
@given(grid=any_grid())
def test_the_extent_holds_all_eight_corners_and_touches_six_planes(grid):
    low, high = (p.as_array() for p in grid.extent_ras_mm())
    corners = np.array(
        [
            grid.to_world(VoxelPoint(d, h, w)).as_array()
            for d in (0, grid.shape_dhw[0] - 1)
            for h in (0, grid.shape_dhw[1] - 1)
            for w in (0, grid.shape_dhw[2] - 1)
        ]
    )
    assert corners.min(axis=0) == pytest.approx(low, abs=1e-9)
    assert corners.max(axis=0) == pytest.approx(high, abs=1e-9)
