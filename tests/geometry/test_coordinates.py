import dataclasses

import numpy as np
import pytest

from clickvol.geometry.coordinates import PatchPoint, VoxelPoint, WorldPointRAS


def test_ijk_of_the_file_is_dhw_reversed():
    point = VoxelPoint.from_ijk(1, 2, 3)
    assert (point.d, point.h, point.w) == (3, 2, 1)
    assert point.to_ijk() == (1, 2, 3)


def test_lps_changes_the_sign_of_x_and_y_only():
    point = WorldPointRAS.from_lps(1.0, 2.0, 3.0)
    assert (point.x, point.y, point.z) == (-1.0, -2.0, 3.0)
    assert point.to_lps() == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("kind", [VoxelPoint, PatchPoint, WorldPointRAS])
def test_arrays_are_float64_in_the_order_of_the_fields(kind):
    array = kind(1, 2, 3).as_array()
    assert array.dtype == np.float64
    assert array.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", [VoxelPoint, PatchPoint, WorldPointRAS])
def test_three_numbers_of_any_kind_become_a_point_of_python_floats(kind):
    for numbers in ([1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3], np.int16), np.array([1, 2, 3], np.float32)):
        point = kind.of(numbers)
        assert point == kind(1.0, 2.0, 3.0)
        assert {type(v) for v in dataclasses.astuple(point)} == {float}


@pytest.mark.parametrize("numbers", [[1, 2], [1, 2, 3, 4]])
def test_a_point_has_three_numbers(numbers):
    with pytest.raises(ValueError, match="unpack"):
        VoxelPoint.of(numbers)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_component_that_is_not_finite_is_noticed(value, place):
    numbers = [1.0, 2.0, 3.0]
    assert VoxelPoint(*numbers).is_finite()
    numbers[place] = value
    assert not VoxelPoint(*numbers).is_finite()


def test_points_of_different_spaces_are_never_equal():
    assert VoxelPoint(1, 2, 3) == VoxelPoint(1.0, 2.0, 3.0)
    assert VoxelPoint(1, 2, 3) != PatchPoint(1, 2, 3)
    assert VoxelPoint(1, 2, 3) != WorldPointRAS(1, 2, 3)


def test_points_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        VoxelPoint(1, 2, 3).d = 4
