import numpy as np
import pytest
from hypothesis import given

from clickvol.geometry.grid import VolumeGrid
from clickvol.geometry.patient_axes import PatientAxes
from reference.grids import any_grid, make_grid


def test_an_axial_scan_has_its_columns_along_x_against_it():
    axes = PatientAxes.of(VolumeGrid.axial((3, 4, 5), (6, 1, 2)))
    assert (axes.array_axis, axes.flipped) == ((2, 1, 0), (True, True, False))
    assert (axes.spacing_mm.tolist(), axes.shape.tolist()) == ([2, 1, 6], [5, 4, 3])


def test_the_view_grows_along_ras_and_an_index_follows_it():
    axes = PatientAxes.of(VolumeGrid.axial((3, 4, 5), (6, 1, 2)))
    array = np.arange(60).reshape(3, 4, 5)
    view = axes.view(array)
    assert view.base is not None
    assert view[0, 0, 0] == array[0, 3, 4]
    assert axes.index(np.array([2.0, 1.0, 4.0])).tolist() == [0, 2, 2]
    assert view[0, 2, 2] == array[2, 1, 4]


@pytest.mark.parametrize("degrees", [-40, 0, 40])
def test_an_oblique_grid_has_the_nearest_axes(degrees):
    axes = PatientAxes.of(make_grid((3, 4, 5), (1, 1, 1), order=(1, 2, 0), degrees=(0, 0, degrees)))
    assert (axes.array_axis, axes.flipped) == ((2, 0, 1), (False, False, False))


def test_the_axes_that_fit_best_together_count():
    # Both d and h are nearest to x, h the nearer one; so d is y, which it runs against. Lengths do not matter.
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = [4, -3, 0], [0.96, 0.28, 0]
    axes = PatientAxes.of(VolumeGrid((3, 4, 5), affine))
    assert (axes.array_axis, axes.flipped) == ((1, 0, 2), (False, True, False))
    assert (axes.spacing_mm.tolist(), axes.shape.tolist()) == ([1, 5, 1], [4, 3, 5])
    assert axes.view(np.zeros((3, 4, 5))).shape == (4, 3, 5)


def test_the_view_follows_any_order_of_the_axes():
    axes = PatientAxes.of(make_grid((3, 4, 5), (1, 1, 1), order=(1, 2, 0), signs=(1, -1, 1)))
    array = np.arange(60).reshape(3, 4, 5)
    assert axes.view(array)[4, 1, 3] == array[1, 0, 4]


@given(grid=any_grid(oblique=False))
def test_each_axis_of_the_view_grows_along_its_axis_of_the_patient(grid):
    axes = PatientAxes.of(grid)
    for axis in range(3):
        step = np.zeros(3)
        step[axes.array_axis[axis]] = -1 if axes.flipped[axis] else 1
        (along,) = grid.world_steps(step[np.newaxis])
        assert along[axis] == pytest.approx(axes.spacing_mm[axis])
