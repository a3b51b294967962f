import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import VoxelPoint

corners = st.tuples(*[st.integers(-8, 8)] * 3)


def test_shape_and_slices_are_half_open():
    box = VoxelBox((1, 2, 3), (2, 4, 6))
    array = np.zeros((5, 6, 7))
    array[box.slices] = 1
    assert box.shape_dhw == (1, 2, 3)
    assert array.sum() == 6
    assert array[1, 2, 3] == array[1, 3, 5] == 1
    assert array[2, 4, 6] == 0


@pytest.mark.parametrize("stop", [(1, 4, 6), (2, 2, 6), (2, 4, 1)])
def test_a_box_without_voxels_is_empty_and_has_no_negative_side(stop):
    box = VoxelBox((1, 2, 3), stop)
    assert box.is_empty
    assert min(box.shape_dhw) == 0
    assert not VoxelBox((1, 2, 3), (2, 3, 4)).is_empty


def test_clip_keeps_what_is_inside():
    assert VoxelBox((-2, 1, 3), (2, 9, 5)).clip((4, 4, 4)) == VoxelBox((0, 1, 3), (2, 4, 4))


@pytest.mark.parametrize(("start", "stop"), [((-5, 0, 0), (-2, 2, 2)), ((6, 0, 0), (9, 2, 2))])
def test_clip_of_a_box_beside_the_array_is_empty(start, stop):
    clipped = VoxelBox(start, stop).clip((4, 4, 4))
    assert clipped.is_empty
    assert np.zeros((4, 4, 4))[clipped.slices].size == 0


def test_grow_adds_to_each_of_the_six_sides():
    assert VoxelBox((1, 2, 3), (4, 5, 6)).grow(2) == VoxelBox((-1, 0, 1), (6, 7, 8))


def test_a_box_of_arrays_holds_python_integers():
    box = VoxelBox.of(np.array([1.0, 2.0, -3.0]), np.array([4, 5, 6], np.int16))
    assert box == VoxelBox((1, 2, -3), (4, 5, 6))
    assert {type(n) for n in (*box.start_dhw, *box.stop_dhw)} == {int}


def test_shift_moves_both_ends():
    assert VoxelBox((1, 2, 3), (4, 5, 6)).shift((1, 0, -2)) == VoxelBox((2, 2, 1), (5, 5, 4))


def test_relative_to_an_outer_box_indexes_the_array_of_that_box():
    whole = np.arange(5 * 6 * 7).reshape(5, 6, 7)
    outer, inner = VoxelBox((1, 2, 3), (5, 6, 7)), VoxelBox((2, 3, 4), (3, 5, 6))
    assert np.array_equal(whole[outer.slices][inner.relative_to(outer).slices], whole[inner.slices])


def test_the_intersection_is_what_lies_in_both():
    one, other = VoxelBox((0, 1, 2), (4, 5, 6)), VoxelBox((2, -3, 4), (9, 3, 5))
    assert one.intersect(other) == other.intersect(one) == VoxelBox((2, 1, 4), (4, 3, 5))


def test_an_empty_intersection_lies_in_the_other_box():
    assert VoxelBox((7, 0, 0), (9, 3, 3)).intersect(VoxelBox((0, 0, 0), (4, 4, 4))) == VoxelBox(
        (4, 0, 0), (4, 3, 3)
    )


@pytest.mark.parametrize("start", [(7, 0, 0), (0, -9, 0), (4, 0, 0)])
def test_boxes_apart_have_an_empty_intersection(start):
    assert VoxelBox.of(start, np.add(start, 3)).intersect(VoxelBox((0, 0, 0), (4, 4, 4))).is_empty


def test_the_middle_lies_between_two_voxels_of_an_even_side():
    assert VoxelBox((0, 1, 2), (1, 4, 6)).middle == VoxelPoint(0, 2, 3.5)


def test_corners_are_centres_faces_or_beyond():
    box = VoxelBox((1, 2, 3), (2, 5, 9))
    assert box.corners_dhw()[[0, 1, 2, 4, 7]].tolist() == [
        [1, 2, 3],
        [1, 2, 8],
        [1, 4, 3],
        [1, 2, 3],
        [1, 4, 8],
    ]
    assert box.corners_dhw(0.5)[[0, 1, 2, 4, 7]].tolist() == [
        [0.5, 1.5, 2.5], [0.5, 1.5, 8.5], [0.5, 4.5, 2.5], [1.5, 1.5, 2.5], [1.5, 4.5, 8.5]
    ]  # fmt: skip
    assert box.corners_dhw(1)[[0, 7]].tolist() == [[0, 1, 2], [2, 5, 9]]


def test_union_holds_both():
    one, other = VoxelBox((0, 5, 2), (1, 6, 9)), VoxelBox((3, 1, 4), (4, 2, 5))
    assert one.union(other) == other.union(one) == VoxelBox((0, 1, 2), (4, 6, 9))


def test_bounding_box_of_hand_made_voxels():
    mask = np.zeros((5, 6, 7), dtype=np.uint8)
    mask[1, 4, 2] = mask[3, 2, 6] = 9
    assert bounding_box(mask) == VoxelBox((1, 2, 2), (4, 5, 7))
    assert bounding_box(mask > 0) == VoxelBox((1, 2, 2), (4, 5, 7))


def test_bounding_box_of_nothing_is_none():
    assert bounding_box(np.zeros((2, 3, 4), dtype=bool)) is None


@given(start=corners, stop=corners, shape=st.tuples(*[st.integers(1, 6)] * 3))
def test_clipping_is_what_indexing_by_comparison_gives(start, stop, shape):
    inside = np.ones(shape, dtype=bool)
    for axis, places in enumerate(np.indices(shape)):
        inside &= (places >= start[axis]) & (places < stop[axis])
    clipped = VoxelBox(start, stop).clip(shape)
    by_slice = np.zeros(shape, dtype=bool)
    by_slice[clipped.slices] = True
    assert np.array_equal(by_slice, inside)


@given(start=corners, stop=corners, other_start=corners, other_stop=corners)
def test_a_voxel_is_in_the_intersection_when_it_is_in_both(start, stop, other_start, other_stop):
    voxels = np.indices((17, 17, 17)).reshape(3, -1).T - 8

    def inside(box):
        return ((voxels >= box.start_dhw) & (voxels < box.stop_dhw)).all(axis=1)

    one, other = VoxelBox(start, stop), VoxelBox(other_start, other_stop)
    assert np.array_equal(inside(one.intersect(other)), inside(one) & inside(other))


@given(voxels=st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=6))
def test_bounding_box_is_the_smallest(voxels):
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[tuple(np.transpose(voxels))] = True
    box = bounding_box(mask)
    assert box.start_dhw == tuple(np.min(voxels, axis=0))
    assert box.stop_dhw == tuple(np.max(voxels, axis=0) + 1)
