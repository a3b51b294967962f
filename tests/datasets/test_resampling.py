import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickvol.datasets import resampling
from clickvol.datasets.resampling import cache_values, resample, resample_mask, resampled_grid
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid


def _grid(shape, spacing=(1.0, 1.0, 1.0)):
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0.6, -0.8], [0, -0.8, -0.6], [1, 0, 0]]) * spacing
    affine[:3, 3] = (10, -20, 30)
    return VolumeGrid(shape, affine)


def test_the_new_grid_has_the_same_axes_and_middle():
    grid = _grid((10, 20, 31), (3.0, 1.0, 1.0))
    new = resampled_grid(grid, (1.5, 2.0, 2.0))
    assert new.shape_dhw == (20, 10, 16)  # 31 / 2 = 15.5, half up
    assert new.spacing_dhw_mm == pytest.approx([1.5, 2, 2])
    middle = grid.to_world(VoxelPoint(4.5, 9.5, 15)).as_array()
    assert new.to_world(VoxelPoint(9.5, 4.5, 7.5)).as_array() == pytest.approx(middle)
    cosines = grid.affine_ras_mm[:3, :3] / grid.spacing_dhw_mm
    assert new.affine_ras_mm[:3, :3] / new.spacing_dhw_mm == pytest.approx(cosines)


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
)
def test_the_new_grid_covers_the_scan_to_a_quarter_voxel(shape, old, new):
    made = resampled_grid(_grid(shape, old), new)
    difference = np.abs(np.array(made.shape_dhw) * new - np.array(shape) * old)
    thin = np.array(made.shape_dhw) == 1
    assert ((difference <= np.array(new) / 2 + 1e-9) | thin).all()


def test_the_same_voxels_give_the_same_values():
    array = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    grid = _grid(array.shape, (2.5, 0.7, 0.7))
    new = resampled_grid(grid, (2.5, 0.7, 0.7))
    assert np.array_equal(cache_values(resample(array, grid, new), array), array)


def test_voxels_twice_as_large_hold_the_means_of_eight():
    array = np.random.default_rng(1).normal(size=(4, 6, 8)).astype(np.float32)
    grid = _grid(array.shape)
    made = resample(array, grid, resampled_grid(grid, (2, 2, 2)))
    means = array.reshape(2, 2, 3, 2, 4, 2).mean(axis=(1, 3, 5))
    assert made == pytest.approx(means, abs=1e-4)


def test_voxels_half_as_large_lie_on_the_lines_between():
    ramp = np.arange(4, dtype=np.float32)
    array = np.broadcast_to(ramp, (2, 2, 4)).copy()
    grid = _grid(array.shape)
    made = resample(array, grid, resampled_grid(grid, (1, 1, 0.5)))
    assert made.shape == (2, 2, 8)
    assert made[0, 0] == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], abs=1e-5)


def test_slabs_change_nothing(monkeypatch):
    array = np.random.default_rng(2).normal(size=(13, 9, 8)).astype(np.float32)
    grid = _grid(array.shape, (1.0, 2.0, 0.7))
    new = resampled_grid(grid, (2.3, 1.1, 1.6))
    whole = resample(array, grid, new)
    monkeypatch.setattr(resampling, "_SLAB_VOXELS", 2 * new.shape_dhw[1] * new.shape_dhw[2])
    assert resample(array, grid, new) == pytest.approx(whole, abs=1e-4)


def test_a_resampled_ball_is_the_ball_drawn_anew():
    def ball(grid):
        index = np.indices(grid.shape_dhw).reshape(3, -1)
        world = grid.affine_ras_mm[:3, :3] @ index + grid.affine_ras_mm[:3, 3:]
        centre = VoxelPoint(9.2, 29.7, 30.1)
        away = world - old.to_world(centre).as_array()[:, None]
        inside = np.linalg.norm(away, axis=0) < 15
        return inside.reshape(grid.shape_dhw).astype(np.uint8)

    old = _grid((20, 60, 60), (3.0, 1.0, 1.0))
    new = resampled_grid(old, (1.0, 1.0, 1.0))
    made, truth = resample_mask(ball(old), old, new), ball(new)
    assert made.shape == (60, 60, 60)
    dice = 2 * np.sum(made & truth) / (made.sum(dtype=int) + truth.sum(dtype=int))
    assert dice > 0.96  # linear between slices of 3 mm
    assert int(made.sum()) == pytest.approx(int(truth.sum()), rel=0.01)


def test_a_voxel_that_is_half_inside_is_outside():
    mask = np.array([1, 1, 1, 0], np.uint8).reshape(1, 1, 4)
    grid = _grid(mask.shape)
    assert resample_mask(mask, grid, resampled_grid(grid, (1, 1, 2))).ravel().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (np.array([-32768, 32767], np.int32), "int16"),
        (np.array([0, 32767], np.uint16), "int16"),
        (np.array([0, 32768], np.uint16), "float32"),
        (np.array([-40000, 0], np.int32), "float32"),
        (np.array([1, 2], np.float64), "float32"),
        (np.array([1, 2], np.float32), "float32"),
    ],
)
def test_integers_that_fit_are_kept_as_int16(stored, dtype):
    made = cache_values(stored, stored)
    assert made.dtype == dtype
    assert np.array_equal(made, stored)


def test_interpolated_values_of_integers_are_rounded():
    made = cache_values(np.array([1.4, -2.6], np.float32), np.array([1, -3], np.int16))
    assert made.tolist() == [1, -3]
