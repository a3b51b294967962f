import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickvol.errors import BadGeometryError, ClickError
from clickvol.geometry import grid as grid_module
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import SAME_PLACE_MM, VolumeGrid
from clickvol.patches.field_of_view import FieldOfView
from reference.grids import any_grid, make_grid

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
    affine = np.eye(4, dtype=np.int16)
    grid = VolumeGrid((np.int64(2), 3, 4), affine)
    affine[0, 3] = 7
    assert grid.affine_ras_mm[0, 3] == 0
    assert grid.affine_ras_mm.dtype == np.float64
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
        ((-0.5001, 0, 0), True),  # a place computed from millimetres comes back with rounding
        ((1.5001, 0, 0), True),
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


def test_bounds_of_a_box_reach_to_the_faces_of_its_voxels():
    grid = VolumeGrid.from_ijk((10, 20, 30), CT_IJK)
    box = VoxelBox((0, 4, 2), (2, 8, 3))  # i 2, j 4 to 7, k 0 and 1
    assert grid.bounds_of(box) == (WorldPointRAS(98.75, 74.375, -41.5), WorldPointRAS(99.25, 77.375, -35.5))
    assert grid.bounds_of(box, reach_voxels=0) == (WorldPointRAS(99, 74.75, -40), WorldPointRAS(99, 77, -37))


def test_bounds_in_another_grid_are_in_its_voxels():
    coarse, fine = (
        make_grid((4, 4, 4), (2, 2, 2), at=(1, 0, 0)),
        make_grid((9, 9, 9), (1, 1, 1), signs=(1, -1, 1)),
    )
    low, high = coarse.bounds_in(fine, VoxelBox((0, 1, 2), (1, 3, 4)))
    assert (low.tolist(), high.tolist()) == ([0, -5, 3], [2, -1, 7])
    low, high = coarse.bounds_in(fine, coarse.box, reach_voxels=0)
    assert (low.tolist(), high.tolist()) == ([1, -6, 0], [7, 0, 6])


def test_the_extent_in_mm_is_that_of_the_voxels_bodies():
    assert VolumeGrid.from_ijk((10, 20, 30), CT_IJK).extent_mm.tolist() == [5, 15, 90]


def test_a_ball_box_holds_the_voxels_within_the_radius():
    grid = make_grid((9, 9, 9), (1, 2, 4))
    assert grid.ball_box(grid.to_world(VoxelPoint(4, 4, 4)), 4) == VoxelBox((0, 2, 3), (9, 7, 6))
    assert grid.ball_box(grid.to_world(VoxelPoint(0, 0, 0)), 3.9) == VoxelBox((0, 0, 0), (4, 2, 1))
    sheared = np.eye(4)
    sheared[0, 1] = 3.0  # a step along h goes 3 mm along x too, so that a ball is long along d
    assert VolumeGrid((40, 5, 5), sheared).ball_box(WorldPointRAS(20, 0, 0), 2).shape_dhw == (13, 3, 3)


def test_a_crop_keeps_every_voxel_where_it_is():
    grid = VolumeGrid.from_ijk((10, 20, 30), CT_IJK, file_facts="a header")
    part = grid.crop(VoxelBox((5, -2, 1), (7, 3, 4)))
    assert part.shape_dhw == (2, 5, 3)
    assert part.to_world(VoxelPoint(0, 0, 0)) == grid.to_world(VoxelPoint(5, -2, 1))
    assert part.spacing_dhw_mm.tolist() == grid.spacing_dhw_mm.tolist()
    assert part.file_facts is None
    with pytest.raises(BadGeometryError, match="empty"):
        grid.crop(VoxelBox((5, 0, 0), (5, 3, 4)))


def test_a_grid_moves_to_a_middle():
    grid = make_grid((3, 4, 5), (1, 2, 3)).centred_at(WorldPointRAS(10, 20, 30))
    assert grid.to_world(VoxelPoint(1, 1.5, 2)) == WorldPointRAS(10, 20, 30)
    assert grid.spacing_dhw_mm.tolist() == [1, 2, 3]


def test_other_steps_keep_the_middle():
    grid = make_grid((4, 4, 4), (1, 1, 1), at=(7, 8, 9)).with_steps(np.diag([2.0, 1.0, -0.5]), (2, 4, 8))
    assert (grid.shape_dhw, grid.spacing_dhw_mm.tolist()) == ((2, 4, 8), [2, 1, 0.5])
    assert grid.to_world(VoxelPoint(0.5, 1.5, 3.5)) == WorldPointRAS(8.5, 9.5, 10.5)
    assert grid.to_world(VoxelPoint(0, 0, 0)) == WorldPointRAS(7.5, 8, 12.25)


def test_other_steps_for_as_many_voxels():
    grid = make_grid((3, 5, 7), (1, 1, 1)).with_steps(np.diag([2.0, 2.0, 2.0]))
    assert grid == make_grid((3, 5, 7), (2, 2, 2), at=(-1, -2, -3))


def test_a_straightened_grid_loses_its_shear_and_keeps_its_slices():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 0] = [-2, 1.5, -0.5]
    affine[:3, 3] = [7, 8, 9]
    straight = VolumeGrid((2, 5, 6), affine).straightened()
    assert straight.world_steps(np.eye(3)).tolist() == [[-2, 0, 0], [0, 3, 0], [0, 0, 4]]
    assert straight.to_world(VoxelPoint(0, 1, 2)) == WorldPointRAS(7, 11, 17)


def test_a_grid_of_an_axial_scan_runs_to_superior_posterior_and_left():
    grid = VolumeGrid.axial((5, 6, 7), (3, 0.5, 0.75))
    assert grid.shape_dhw == (5, 6, 7)
    assert grid.affine_ras_mm.tolist() == [[0, 0, -0.75, 0], [0, -0.5, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]]


def test_a_grid_along_the_patient_grows_to_superior_anterior_and_right_around_its_middle():
    grid = VolumeGrid.along_patient((3, 4, 5), 2, WorldPointRAS(10, 20, 30))
    assert grid.shape_dhw == (3, 4, 5)
    assert grid.affine_ras_mm.tolist() == [[0, 0, 2, 6], [0, 2, 0, 17], [2, 0, 0, 28], [0, 0, 0, 1]]


def test_lps_in_and_out():
    grid = VolumeGrid.from_ijk_lps((10, 20, 30), np.diag([-1.0, -1, 1, 1]) @ CT_IJK, "a header")
    assert grid.file_facts == "a header"
    assert grid == VolumeGrid.from_ijk((10, 20, 30), CT_IJK)
    assert grid.affine_ijk_lps_mm[:3].tolist() == [[0.5, 0, 0, -100], [0, 0.75, 0, -80], [0, 0, 3, -40]]


# The tests that this one replaces: entry by entry within 1e-3 passed the first, within 1e-2 the second.
@pytest.mark.parametrize(("entry", "apart_mm"), [(1e-3, 0.46), (1e-2, 4.6)])
def test_a_small_difference_of_steps_is_a_large_one_in_the_far_corner(entry, apart_mm):
    affine = np.eye(4)
    affine[1, 2] += entry
    grid, other = VolumeGrid((40, 50, 460), np.eye(4)), VolumeGrid((40, 50, 460), affine)
    assert grid.corner_distance_mm(other) == pytest.approx(apart_mm, rel=2e-3)
    assert grid.difference_from(other) == f"its corners lie up to {apart_mm} mm away"
    assert not grid.same_place(other)


@pytest.mark.parametrize("inside", [True, False])
def test_the_tolerance_counts_in_mm_at_the_worst_corner(inside):
    grid = make_grid((4, 5, 6), (1, 2, 3))
    off = SAME_PLACE_MM * (0.99 if inside else 1.01)
    other = make_grid((4, 5, 6), (1, 2, 3), at=(0.6 * off, 0, -0.8 * off))
    assert grid.corner_distance_mm(other) == pytest.approx(off)
    assert grid.same_place(other) is other.same_place(grid) is inside


def test_the_distance_is_that_of_the_outer_corners_of_the_outermost_voxels(monkeypatch):
    grid, other = make_grid((3, 1, 1), (1, 1, 1)), make_grid((3, 1, 1), (1.25, 1, 1))
    # Corners at -0.5 and 2.5 steps: 0.125 and 0.625 mm apart.
    assert grid.corner_distance_mm(other) == 0.625
    monkeypatch.setattr(grid_module, "SAME_PLACE_MM", 0.625)
    assert grid.same_place(other)


def test_what_lies_elsewhere_is_refused_in_one_sentence():
    grid = make_grid((4, 5, 6), (1, 2, 3))
    grid.check_same_place(make_grid((4, 5, 6), (1, 2, 3)), "the mask", ClickError)
    with pytest.raises(ClickError) as refused:
        grid.check_same_place(make_grid((4, 5, 6), (1, 2, 3), at=(0, 2, 0)), "the mask", ClickError)
    assert str(refused.value) == (
        "the mask does not lie on the grid of the scan: its corners lie up to 2 mm away; resample it to "
        "that grid"
    )
    with pytest.raises(ClickError, match=r"not \(4, 5, 6\); give another$"):
        make_grid((4, 5, 7), (1, 2, 3)).check_same_place(grid, "it", ClickError, "give another")


def test_grids_of_different_shapes_are_never_one_place():
    grid, other = make_grid((4, 5, 6), (1, 2, 3)), make_grid((4, 5, 7), (1, 2, 3))
    assert grid.corner_distance_mm(other) == float("inf")
    assert not grid.same_place(other)
    assert grid.difference_from(other) == "its shape (D, H, W) is (4, 5, 6), not (4, 5, 7)"


def test_file_facts_are_kept_and_no_part_of_equality():
    grid = VolumeGrid.from_ijk((10, 20, 30), CT_IJK, file_facts={"code": 2})
    assert grid.file_facts == {"code": 2}
    assert grid == VolumeGrid.from_ijk((10, 20, 30), CT_IJK)
    assert grid.centred_at(WorldPointRAS(0, 0, 0)).file_facts is None
    bare = grid.without_file_facts()
    assert (bare, bare.file_facts) == (grid, None)


HEADER = "; repair the header of the file"
NOT_FINITE = "the affine is not a finite 4x4 matrix that ends with 0, 0, 0, 1" + HEADER
SINGULAR = "the affine is singular: its axes lie in one plane, so millimetres have no voxel" + HEADER


def too_far(mm):
    return f"a voxel lies {mm} mm from the origin, but at most 1e+06 mm are expected" + HEADER


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (
            np.diag([1.0, 0, 2, 1]),
            f"the voxel spacing (i, j, k) is (2, 0, 1) mm, but every spacing must be above zero{HEADER}",
        ),
        (
            np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
            f"the voxel spacing (i, j, k) is (0, 1, 1.41421) mm, but every spacing must be above zero{HEADER}",
        ),
        (np.diag([1.0, np.nan, 1, 1]), NOT_FINITE),
        (np.diag([1.0, np.inf, 1, 1]), NOT_FINITE),
        (np.eye(3), NOT_FINITE),
        (np.eye(4).T + np.eye(4, k=-3), NOT_FINITE),
        (np.diag([1.0, 1, 1, 2]), NOT_FINITE),
        (np.diag([1.0, 1e9, 1, 1]), too_far("3e+09")),
        (np.array([[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), too_far("1e+300")),
        (np.diag([6e5, 1, 1, 1]), too_far("1.2e+06")),
        (np.array([[3e5, 0, 0, -6e5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), too_far("1.2e+06")),
        (np.diag([1e300, 1, 1, 1]), SINGULAR),  # its length overflows
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), SINGULAR),
    ],
)
def test_an_affine_that_maps_no_voxel_to_a_place_is_refused(affine, message):
    with pytest.raises(BadGeometryError) as caught:
        VolumeGrid((2, 3, 4), affine)
    assert str(caught.value) == message


def test_a_file_s_matrix_of_another_shape_is_refused():
    with pytest.raises(BadGeometryError, match=rf"^{NOT_FINITE}$"):
        VolumeGrid.from_ijk((4, 3, 2), np.eye(3))


def test_a_voxel_may_lie_a_kilometre_away():
    assert VolumeGrid((2, 1, 1), np.diag([5e5, 1, 1, 1])).spacing_dhw_mm.tolist() == [5e5, 1, 1]


def test_tiny_voxels_are_not_taken_for_a_singular_affine():
    assert VolumeGrid((2, 2, 2), np.diag([1e-3, 1e-3, 1e-3, 1])).voxel_volume_mm3 > 0


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, 1, -1)])
def test_a_grid_without_voxels_is_refused(shape):
    with pytest.raises(BadGeometryError, match=r"^the volume is empty: its shape \(D, H, W\) is \("):
        VolumeGrid(shape, np.eye(4))


@given(grid=any_grid(), place=places)
def test_voxel_to_world_and_back(grid, place):
    there = grid.to_world(VoxelPoint(*place))
    assert grid.to_voxel(there).as_array() == pytest.approx(place, abs=1e-8)


@given(grid=any_grid(), place=places)
def test_millimetres_are_what_nibabel_makes_of_ijk(grid, place):
    point = VoxelPoint(*place)
    theirs = nibabel.affines.apply_affine(grid.affine_ijk_ras_mm, point.to_ijk())
    assert grid.to_world(point).as_array() == pytest.approx(theirs, abs=1e-9)


@given(grid=any_grid(), place=places, voxel_mm=st.floats(0.5, 6))
def test_world_to_voxel_to_patch_to_voxel_to_world(grid, place, voxel_mm):
    start = WorldPointRAS(*place)
    voxel = grid.to_voxel(start)
    field = FieldOfView(WorldPointRAS(5, -9, 13), voxel_mm, (16, 20, 24))
    patch = field.to_patch(grid.to_world(voxel))
    back = field.grid().to_world(VoxelPoint(*patch.as_array()))
    assert grid.to_voxel(back).as_array() == pytest.approx(voxel.as_array(), abs=1e-7)
    assert grid.to_world(grid.to_voxel(back)).as_array() == pytest.approx(place, abs=1e-7)


@given(grid=any_grid())
def test_spacing_and_volume_follow_the_affine(grid):
    step = grid.to_world(VoxelPoint(1, 0, 0)).as_array() - grid.to_world(VoxelPoint(0, 0, 0)).as_array()
    assert np.linalg.norm(step) == pytest.approx(grid.spacing_dhw_mm[0])
    assert grid.voxel_volume_mm3 == pytest.approx(np.prod(grid.spacing_dhw_mm))


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


@given(grid=any_grid(), places=st.lists(places, min_size=1, max_size=5))
def test_many_positions_go_the_way_of_one(grid, places):
    world = [grid.to_world(VoxelPoint(*place)).as_array() for place in places]
    assert grid.world_positions(np.array(places)) == pytest.approx(np.array(world), abs=1e-9)
    assert grid.voxel_positions(np.array(world)) == pytest.approx(np.array(places), abs=1e-7)
    steps = np.diff(np.array(places), axis=0)
    assert grid.world_steps(steps) == pytest.approx(np.diff(world, axis=0).reshape(-1, 3), abs=1e-9)
    assert grid.voxel_steps(grid.world_steps(steps)) == pytest.approx(steps, abs=1e-7)


@given(grid=any_grid(), other=any_grid(), place=places)
def test_the_matrix_to_another_grid_goes_by_way_of_the_patient(grid, other, place):
    there = other.to_voxel(grid.to_world(VoxelPoint(*place))).as_array()
    assert (grid.voxel_matrix_to(other) @ [*place, 1])[:3] == pytest.approx(there, abs=1e-6)


@given(grid=any_grid(), place=places)
def test_offsets_are_those_of_single_voxels(grid, place):
    box = VoxelBox((1, -2, 3), (3, 0, 5))
    x, y, z = grid.offsets_ras_mm(box, WorldPointRAS(*place))
    assert x.shape == y.shape == z.shape == box.shape_dhw
    for voxel in np.ndindex(box.shape_dhw):
        world = grid.to_world(VoxelPoint.of(np.add(voxel, box.start_dhw))).as_array() - place
        assert np.array([x[voxel], y[voxel], z[voxel]]) == pytest.approx(world, abs=1e-9)


@given(grid=any_grid(), place=places)
def test_a_gradient_per_voxel_is_the_change_from_voxel_to_voxel(grid, place):
    values = grid.world_positions(np.vstack([np.zeros((1, 3)), np.eye(3)])) @ place
    assert grid.gradients_per_voxel(np.array([place]))[0] == pytest.approx(values[1:] - values[0], abs=1e-7)


def test_a_transposed_array_lies_where_it_lay():
    grid = VolumeGrid((4, 5, 6), np.array([[0, 0.1, -1, 3], [0.1, -2, 0, 1], [3, 0, 0, -7], [0, 0, 0, 1]]))
    turned = grid.permuted((2, 0, 1))
    assert turned.shape_dhw == (6, 4, 5)
    assert turned.to_world(VoxelPoint(5, 1, 2)) == grid.to_world(VoxelPoint(1, 2, 5))
