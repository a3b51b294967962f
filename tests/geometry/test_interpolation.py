import numpy as np
import pytest

from clickvol.geometry.interpolation import read_along

VALUES = np.array([[1.0, 2.0, 4.0], [10.0, 20.0, 40.0]], dtype=np.float32)


def test_between_voxels_the_values_are_weighted_and_beyond_the_ends_they_stay():
    read = read_along(VALUES, 1, np.array([-1.0, 0.0, 0.5, 1.25, 2.0, 5.0]))
    assert read.tolist() == [[1, 1, 1.5, 2.5, 4, 4], [10, 10, 15, 25, 40, 40]]
    assert read.dtype == np.float32


@pytest.mark.parametrize("axis", [0, 1])
def test_a_value_for_outside_stands_beyond_the_outermost_centres(axis):
    last = VALUES.shape[axis] - 1
    read = read_along(VALUES, axis, np.array([-0.1, 0.0, last, last + 0.1]), outside=-1.0)
    assert np.take(read, [0, 3], axis).ravel().tolist() == [-1.0] * 2 * VALUES.shape[1 - axis]
    np.testing.assert_array_equal(np.take(read, [1, 2], axis), np.take(VALUES, [0, last], axis))


def test_one_voxel_along_the_axis_is_all_there_is():
    assert read_along(VALUES[:, :1], 1, np.array([-3.0, 0.0, 3.0])).tolist() == [[1, 1, 1], [10, 10, 10]]
