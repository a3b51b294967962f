import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import PatchPoint, VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import FieldOfView, extract, paste, paste_box
from reference.grids import any_grid, make_grid


def _whole(grid):
    return VoxelBox((0, 0, 0), grid.shape_dhw)


def _world_of_voxels(grid):
    """Return (3, D, H, W): RAS mm of every voxel centre."""
    places = np.indices(grid.shape_dhw).reshape(3, -1)
    world = grid.affine_ras_mm[:3, :3] @ places + grid.affine_ras_mm[:3, 3:]
    return world.reshape(3, *grid.shape_dhw)


def _smooth_scene(world):
    """A smooth function of the patient's millimetres, the same for every grid."""
    x, y, z = world
    return (100 * np.sin(x / 29) * np.cos(y / 23 + 1) + z / 2).astype(np.float32)


# -- the field of view ------------------------------------------------------------------------------


def test_the_axes_of_a_patch_follow_the_patient():
    field = FieldOfView(WorldPointRAS(10, 20, 30), 2.0, (3, 5, 7))
    grid = field.grid()
    assert field.extent_mm == (6, 10, 14)
    assert grid.shape_dhw == (3, 5, 7)
    assert grid.to_world(VoxelPoint(1, 2, 3)) == WorldPointRAS(10, 20, 30)
    assert grid.to_world(VoxelPoint(2, 2, 3)) == WorldPointRAS(10, 20, 32)  # d: superior
    assert grid.to_world(VoxelPoint(1, 3, 3)) == WorldPointRAS(10, 22, 30)  # h: anterior
    assert grid.to_world(VoxelPoint(1, 2, 4)) == WorldPointRAS(12, 20, 30)  # w: right


def test_a_place_of_the_patient_in_the_patch():
    field = FieldOfView(WorldPointRAS(10, 20, 30), 2.0, (4, 4, 4))
    assert field.to_patch(WorldPointRAS(10, 20, 30)) == PatchPoint(1.5, 1.5, 1.5)
    assert field.to_patch(WorldPointRAS(12, 16, 40)) == PatchPoint(6.5, -0.5, 2.5)


# -- extract ----------------------------------------------------------------------------------------


def test_on_the_volume_s_own_grid_nothing_changes():
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    grid = make_grid((2, 3, 4), (3, 1, 2), degrees=(10, 20, 30))
    assert np.array_equal(extract(array, grid, grid, outside_value=-1), array)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64, np.float32])
def test_the_patch_is_float32_whatever_the_volume_is(dtype):
    grid = make_grid((2, 2, 2), (1, 1, 1))
    patch = extract(np.full((2, 2, 2), 7, dtype=dtype), grid, grid, outside_value=0)
    assert patch.dtype == np.float32
    assert (patch == 7).all()


def test_halfway_between_voxels_is_their_mean():
    array = np.array([0, 10, 40, 50], dtype=np.float32).reshape(1, 1, 4)
    grid = make_grid((1, 1, 4), (1, 1, 1))
    between = make_grid((1, 1, 3), (1, 1, 1), at=(0, 0, 0.5))
    assert extract(array, grid, between, outside_value=-9).ravel().tolist() == [5, 25, 45]


def test_a_quarter_of_the_way_weighs_three_to_one():
    array = np.array([0, 100], dtype=np.float32).reshape(2, 1, 1)
    grid = make_grid((2, 1, 1), (2, 1, 1))
    at = make_grid((1, 1, 1), (2, 1, 1), at=(0.5, 0, 0))
    assert extract(array, grid, at, outside_value=-9).item() == pytest.approx(25.0, abs=1e-4)


@given(grid=any_grid(), slope=st.tuples(*[st.floats(-2, 2)] * 3))
def test_a_linear_ramp_is_reproduced_where_the_grid_is_not_coarser(grid, slope):
    shape = tuple(max(n, 6) for n in grid.shape_dhw)
    grid = VolumeGrid(shape, grid.affine_ras_mm)
    array = np.tensordot(slope, _world_of_voxels(grid), axes=1)
    middle = grid.to_world(VoxelPoint(*((n - 1) / 2 for n in shape)))
    # Small enough to stay inside the volume whatever its orientation.
    field = FieldOfView(middle, float(grid.spacing_dhw_mm.min()) * 0.5, (4, 5, 6))
    patch = extract(array, grid, field.grid(), outside_value=1e6)
    expected = np.tensordot(slope, _world_of_voxels(field.grid()), axes=1)
    assert np.abs(patch - expected).max() < 2e-3


def test_a_linear_ramp_is_reproduced_where_the_grid_is_coarser():
    grid = make_grid((24, 24, 24), (1, 1, 1))
    array = np.tensordot([1.0, 2.0, -3.0], _world_of_voxels(grid), axes=1)
    coarse = make_grid((3, 3, 3), (4, 4, 4), at=(7.3, 6.1, 8.9))
    patch = extract(array, grid, coarse, outside_value=1e6)
    expected = np.tensordot([1.0, 2.0, -3.0], _world_of_voxels(coarse), axes=1)
    assert np.abs(patch - expected).max() < 1e-4


@pytest.mark.parametrize("offset_mm", [0.0, 0.3, 1.0, 1.5])
def test_a_checkerboard_sampled_four_times_coarser_is_its_mean(offset_mm):
    board = (np.indices((32, 32, 32)).sum(axis=0) % 2) * 100.0
    grid = make_grid((32, 32, 32), (1, 1, 1))
    coarse = make_grid((5, 5, 5), (4, 4, 4), at=(6 + offset_mm,) * 3)
    assert np.allclose(extract(board, grid, coarse, outside_value=0), 50.0, atol=1e-4)


def test_coarse_voxels_average_over_the_block_that_they_cover():
    array = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    grid = make_grid((1, 1, 8), (1, 1, 1))
    # Centres of voxels of 4 mm, laid over voxels 0-3 and 4-7.
    coarse = make_grid((1, 1, 2), (1, 1, 4), at=(0, 0, 1.5))
    assert extract(array, grid, coarse, outside_value=-9).ravel().tolist() == [1.5, 5.5]


def test_each_axis_averages_by_its_own_step():
    """Thick slices are not blurred because the pixels within them are small."""
    array = np.zeros((5, 16, 16), dtype=np.float32)
    array[2] = 100
    grid = make_grid((5, 16, 16), (4, 1, 1))
    coarse = make_grid((5, 4, 4), (4, 4, 4), at=(0, 1.5, 1.5))
    patch = extract(array, grid, coarse, outside_value=-9)
    assert patch[:, 0, 0].tolist() == [0, 0, 100, 0, 0]


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_a_place_has_the_same_value_in_every_field_of_view(shift):
    """Also on noise, sampled with voxels that are no multiple of the scan's."""
    array = np.random.default_rng(0).normal(size=(60, 60, 60)).astype(np.float32)
    grid = make_grid((60, 60, 60), (1, 1, 1), signs=(1, -1, -1), at=(0, 60, 60))
    one = make_grid((8, 8, 8), (4.5, 4.5, 4.5), at=(6.2, 7.3, 8.4))
    other = make_grid((8, 8, 8), (4.5, 4.5, 4.5), at=np.array([6.2, 7.3, 8.4]) + 4.5 * shift)
    seen, again = (extract(array, grid, g, outside_value=0) for g in (one, other))
    assert np.abs(seen).max() > 0.1
    assert np.abs(seen[shift:, shift:, shift:] - again[:-shift, :-shift, :-shift]).max() < 1e-4


def test_outside_the_volume_is_the_value_asked_for():
    grid = make_grid((4, 4, 4), (1, 1, 1))
    wider = make_grid((8, 8, 8), (1, 1, 1), at=(-2, -2, -2))
    patch = extract(np.full((4, 4, 4), 5.0), grid, wider, outside_value=-1024)
    expected = np.full((8, 8, 8), -1024.0)
    expected[2:6, 2:6, 2:6] = 5
    assert np.array_equal(patch, expected)


def test_a_field_far_from_the_volume_is_all_outside():
    grid = make_grid((4, 4, 4), (1, 1, 1))
    far = FieldOfView(WorldPointRAS(500, 0, 0), 1.0, (4, 4, 4))
    assert (extract(np.ones((4, 4, 4)), grid, far.grid(), outside_value=-3) == -3).all()


def test_a_single_slice_fills_the_planes_that_it_is_thick_enough_for():
    array = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    grid = make_grid((1, 4, 4), (5, 1, 1))
    patch_grid = make_grid((9, 4, 4), (1, 1, 1), at=(-4, 0, 0))
    patch = extract(array, grid, patch_grid, outside_value=-7)
    # 5 mm thick: 2.5 mm to either side of the centre, which is plane 4.
    for plane in range(9):
        expected = array[0] if 2 <= plane <= 6 else np.full((4, 4), -7.0)
        assert np.array_equal(patch[plane], expected), plane


def test_a_slice_thinner_than_the_patch_voxels_is_still_seen():
    grid = make_grid((1, 8, 8), (0.5, 1, 1))
    coarse = make_grid((3, 4, 4), (2, 2, 2), at=(-2.7, 0.5, 0.5))
    patch = extract(np.full((1, 8, 8), 9.0), grid, coarse, outside_value=0)
    assert [bool((plane == 9).all()) for plane in patch] == [False, True, False]


def test_a_displacement_moves_the_sampling_places_in_patch_voxels():
    array = np.zeros((6, 7, 8), dtype=np.float32)
    array[3, 2, 5] = 1
    grid = make_grid((6, 7, 8), (2, 3, 4), degrees=(0, 0, 0), at=(1, 1, 1))
    shift = np.empty((3, 6, 7, 8), dtype=np.float32)
    shift[0], shift[1], shift[2] = 1, -1, 2
    patch = extract(array, grid, grid, outside_value=0, displacement_voxel=shift)
    assert np.argwhere(patch > 0.5).tolist() == [[2, 3, 3]]


@given(
    base=any_grid(oblique=False),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.booleans()] * 3),
    voxel_mm=st.floats(1, 8),
    seed=st.integers(0, 999),
)
def test_flipped_and_permuted_copies_of_a_volume_give_the_same_patch(base, order, flips, voxel_mm, seed):
    shape = tuple(min(n, 16) for n in base.shape_dhw)
    grid = VolumeGrid(shape, base.affine_ras_mm)
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    other_array = np.transpose(array, order)
    affine = grid.affine_ras_mm[:, [*order, 3]].copy()
    for axis in range(3):
        if flips[axis]:
            affine[:3, 3] += affine[:3, axis] * (other_array.shape[axis] - 1)
            affine[:3, axis] *= -1
            other_array = np.flip(other_array, axis)
    middle = grid.to_world(VoxelPoint(*((n - 1) / 2 + 0.2 for n in shape)))
    patch_grid = FieldOfView(middle, voxel_mm, (6, 7, 8)).grid()
    one = extract(array, grid, patch_grid, outside_value=0)
    other = extract(
        np.ascontiguousarray(other_array),
        VolumeGrid(other_array.shape, affine),
        patch_grid,
        outside_value=0,
    )
    assert np.abs(one - other).max() < 2e-3


@given(grid=any_grid(), voxel_mm=st.floats(1, 5))
def test_any_grid_over_one_smooth_patient_gives_the_same_patch(grid, voxel_mm):
    # Every grid covers the same 60 mm around the origin with voxels of its own.
    spacing = np.clip(grid.spacing_dhw_mm, 1.0, 3.0)
    shape = tuple(int(n) for n in np.ceil(110 / spacing))
    affine = np.array(grid.affine_ras_mm)
    affine[:3, :3] *= spacing / grid.spacing_dhw_mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = VolumeGrid(shape, affine)
    field = FieldOfView(WorldPointRAS(2, -3, 4), min(voxel_mm, 60 / 12), (12, 12, 12))
    patch = extract(_smooth_scene(_world_of_voxels(grid)), grid, field.grid(), outside_value=0)
    expected = _smooth_scene(_world_of_voxels(field.grid()))
    assert np.abs(patch - expected).max() < 2.0  # of a range of +-100


# -- paste ------------------------------------------------------------------------------------------


def test_a_patch_on_the_volume_s_grid_is_pasted_as_it_is():
    patch = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    grid = make_grid((3, 4, 5), (1, 2, 3), signs=(-1, 1, -1), at=(4, 5, 6))
    assert np.allclose(paste(patch, grid, grid, _whole(grid)), patch, atol=1e-6)


def test_pasting_reads_between_patch_voxels_linearly():
    patch = np.array([0, 4, 8], dtype=np.float32).reshape(1, 1, 3)
    patch_grid = make_grid((1, 1, 3), (1, 1, 4))
    grid = make_grid((1, 1, 10), (1, 1, 1), at=(0, 0, -1))
    pasted = paste(patch, patch_grid, grid, _whole(grid))
    assert pasted.ravel().tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_pasting_a_box_is_a_part_of_pasting_the_whole():
    patch = np.random.default_rng(1).normal(size=(6, 6, 6)).astype(np.float32)
    patch_grid = make_grid((6, 6, 6), (3, 3, 3), at=(2, 2, 2))
    grid = make_grid((12, 13, 14), (2, 1.5, 1.2), order=(2, 0, 1), degrees=(20, -10, 5))
    box = VoxelBox((2, 3, 4), (9, 12, 8))
    whole = paste(patch, patch_grid, grid, _whole(grid))
    assert np.allclose(paste(patch, patch_grid, grid, box), whole[box.slices], atol=1e-5)


def test_paste_is_zero_outside_the_patch():
    grid = make_grid((4, 4, 4), (1, 1, 1))
    for degrees in ((0, 0, 0), (30, 0, 0)):
        away = make_grid((4, 4, 4), (1, 1, 1), at=(50, 0, 0), degrees=degrees)
        pasted = paste(np.ones((4, 4, 4), np.float32), away, grid, _whole(grid))
        assert np.array_equal(pasted, np.zeros((4, 4, 4)))


@given(
    base=any_grid(oblique=False),
    voxel_mm=st.floats(0.7, 5),
    shift=st.floats(-0.6, 0.6),
    seed=st.integers(0, 999),
)
def test_sampling_axis_by_axis_is_sampling_place_by_place(base, voxel_mm, shift, seed):
    shape = tuple(min(n, 20) for n in base.shape_dhw)
    grid = VolumeGrid(shape, base.affine_ras_mm)
    middle = grid.to_world(VoxelPoint(*((n - 1) / 2 + shift * n for n in shape)))
    patch_grid = FieldOfView(middle, voxel_mm, (7, 8, 9)).grid()
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    # A displacement, also one by nothing, is sampled place by place.
    nowhere = np.zeros((3, 7, 8, 9), np.float32)
    expected = extract(array, grid, patch_grid, outside_value=-9.0, displacement_voxel=nowhere)
    sampled = extract(array, grid, patch_grid, outside_value=-9.0)
    np.testing.assert_array_equal(sampled == -9, expected == -9)
    assert np.abs(sampled - expected).max() < 1e-6


@given(base=any_grid(oblique=False), patch_voxel_mm=st.floats(0.7, 5), seed=st.integers(0, 999))
def test_the_separable_path_is_what_affine_transform_gives(base, patch_voxel_mm, seed):
    shape = tuple(min(n, 20) for n in base.shape_dhw)
    grid = VolumeGrid(shape, base.affine_ras_mm)
    middle = grid.to_world(VoxelPoint(*((n - 1) / 2 + 0.13 for n in shape)))
    patch_grid = FieldOfView(middle, patch_voxel_mm, (7, 8, 9)).grid()
    patch = np.random.default_rng(seed).normal(size=(7, 8, 9)).astype(np.float32)
    to_patch = np.linalg.inv(patch_grid.affine_ras_mm) @ grid.affine_ras_mm
    expected = ndimage.affine_transform(
        patch.astype(np.float64), to_patch, output_shape=shape, order=1, cval=0.0, prefilter=False
    )
    pasted = paste(patch, patch_grid, grid, _whole(grid))
    assert pasted.shape == shape
    places = np.moveaxis(np.indices(shape), 0, -1) @ to_patch[:3, :3].T + to_patch[:3, 3]
    # On the outermost plane itself, rounding decides whether a place is in or out.
    edge = np.minimum(np.abs(places), np.abs(places - (np.array(patch.shape) - 1))).min(axis=-1)
    assert np.abs(pasted - expected)[edge > 1e-6].max(initial=0) < 1e-4


@given(grid=any_grid())
def test_paste_brings_a_smooth_patch_back(grid):
    grid = VolumeGrid((9, 9, 9), grid.affine_ras_mm)
    middle = grid.to_world(VoxelPoint(4, 4, 4))
    extent = float(np.linalg.norm(grid.spacing_dhw_mm * 8))
    side = 48
    field = FieldOfView(middle, extent / (side - 8), (side, side, side))
    centre = middle.as_array().reshape(3, 1, 1, 1)

    def scene(world):
        x, y, z = (world - centre) / extent * 3
        return (np.sin(x) * np.cos(y) + z).astype(np.float32)

    patch = scene(_world_of_voxels(field.grid()))
    pasted = paste(patch, field.grid(), grid, _whole(grid))
    assert np.abs(pasted - scene(_world_of_voxels(grid))).max() < 5e-3


@given(grid=any_grid(), seed=st.integers(0, 999))
def test_extract_undoes_paste_up_to_smoothing(grid, seed):
    """A linear ramp goes through patch and volume without any change."""
    slope = np.random.default_rng(seed).uniform(-1, 1, 3)
    grid = VolumeGrid((12, 12, 12), grid.affine_ras_mm)
    middle = grid.to_world(VoxelPoint(5.5, 5.5, 5.5))
    side_mm = float(np.linalg.norm(grid.spacing_dhw_mm * 11)) + 2
    wide = FieldOfView(middle, side_mm / 20, (24, 24, 24)).grid()
    ramp = np.tensordot(slope, _world_of_voxels(wide), axes=1).astype(np.float32)
    volume = paste(ramp, wide, grid, _whole(grid))
    small = FieldOfView(middle, float(grid.spacing_dhw_mm.min()) / 2, (5, 5, 5)).grid()
    back = extract(volume, grid, small, outside_value=1e6)
    expected = np.tensordot(slope, _world_of_voxels(small), axes=1)
    assert np.abs(back - expected).max() < 5e-3


# -- paste_box --------------------------------------------------------------------------------------


def test_the_box_of_one_bright_voxel_holds_its_neighbourhood():
    patch = np.zeros((5, 5, 5), dtype=np.float32)
    patch[2, 2, 2] = 1
    grid = make_grid((20, 20, 20), (1, 1, 1))
    patch_grid = make_grid((5, 5, 5), (4, 4, 4))
    box = paste_box(patch, patch_grid, grid, 0.5)
    # Values above 0 reach from voxel 4 to 12, exclusive.
    assert box == VoxelBox((4, 4, 4), (13, 13, 13))


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_a_patch_without_anything_above_the_threshold_has_no_box(threshold):
    grid = make_grid((4, 4, 4), (1, 1, 1))
    patch = np.full((4, 4, 4), threshold, dtype=np.float32)
    assert paste_box(patch, grid, grid, threshold) is None


def test_a_mask_beside_the_volume_has_no_box():
    grid = make_grid((4, 4, 4), (1, 1, 1))
    away = make_grid((4, 4, 4), (1, 1, 1), at=(0, 40, 0))
    assert paste_box(np.ones((4, 4, 4), np.float32), away, grid, 0.5) is None


@given(
    grid=any_grid(),
    patch_voxel_mm=st.floats(0.7, 8),
    seed=st.integers(0, 999),
    shift=st.tuples(*[st.floats(-0.8, 0.8)] * 3),
)
def test_the_box_holds_everything_above_the_threshold(grid, patch_voxel_mm, seed, shift):
    grid = VolumeGrid(tuple(min(n, 20) for n in grid.shape_dhw), grid.affine_ras_mm)
    n = np.array(grid.shape_dhw)
    middle = grid.to_world(VoxelPoint(*((n - 1) / 2 + shift * n)))
    patch_grid = FieldOfView(middle, patch_voxel_mm, (6, 7, 8)).grid()
    patch = np.random.default_rng(seed).uniform(size=(6, 7, 8)).astype(np.float32)
    patch[patch < 0.95] *= 0.1
    above = paste(patch, patch_grid, grid, _whole(grid)) > 0.3
    box = paste_box(patch, patch_grid, grid, 0.3)
    if box is None:
        assert not above.any()
        return
    assert box.clip(grid.shape_dhw) == box
    outside = above.copy()
    outside[box.slices] = False
    assert not outside.any()
