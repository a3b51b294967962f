"""Polygons around a mask, and the mask inside polygons; scikit-image and matplotlib judge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as Outline
from scipy import ndimage
from skimage.draw import polygon2mask

from clickvol.io.dicom.contours import contours_mask, mask_contours

masks = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9).flatmap(
    lambda shape: arrays(np.bool_, shape, elements=st.booleans(), fill=st.nothing())
)


def area(polygon):
    h, w = polygon.T
    return abs(np.dot(h, np.roll(w, -1)) - np.dot(w, np.roll(h, -1))) / 2


def drawn(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_a_single_voxel_is_a_square_around_its_centre():
    mask = np.zeros((4, 5), np.uint8)
    mask[2, 3] = 1
    (polygon,) = mask_contours(mask)
    assert polygon.tolist() == [[1.5, 2.5], [1.5, 3.5], [2.5, 3.5], [2.5, 2.5]]


def test_points_in_a_straight_line_are_left_out():
    (polygon,) = mask_contours(np.ones((3, 7), bool))
    assert polygon.tolist() == [[-0.5, -0.5], [-0.5, 6.5], [2.5, 6.5], [2.5, -0.5]]


def test_voxels_that_touch_at_a_corner_have_polygons_of_their_own():
    polygons = mask_contours(drawn("#.", ".#"))
    assert [p.tolist() for p in polygons] == [
        [[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]],
        [[0.5, 0.5], [0.5, 1.5], [1.5, 1.5], [1.5, 0.5]],
    ]


def test_a_hole_is_joined_by_a_channel_without_width():
    (polygon,) = mask_contours(drawn("###", "#.#", "###"))
    assert polygon.tolist() == [
        [-0.5, -0.5],
        [-0.5, 0.5],  # down the channel
        [1.5, 0.5],  # and around the hole, the other way round
        [1.5, 1.5],
        [0.5, 1.5],
        [0.5, 0.5],
        [-0.5, 0.5],  # up again
        [-0.5, 2.5],
        [2.5, 2.5],
        [2.5, -0.5],
    ]
    assert area(polygon) == 8


def test_an_empty_slice_has_no_polygon():
    assert mask_contours(np.zeros((3, 3))) == []
    assert not contours_mask([], (3, 3)).any()


@pytest.mark.parametrize(
    "mask",
    [
        drawn("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"),
        drawn("#####", "#.#.#", "##.##", "#.#.#", "#####"),  # holes that touch at corners
        drawn("######", "#.##.#", "##.###", "#....#", "######"),
        drawn("#.#", ".#.", "#.#"),
        drawn("######", "#.#.##", "######", "##.#.#", "######"),  # a channel into another hole
    ],
)
def test_every_convention_sees_the_same_mask(mask):
    polygons = mask_contours(mask)
    assert len(polygons) == ndimage.label(mask)[1]
    np.testing.assert_array_equal(contours_mask(polygons, mask.shape), mask)
    centres = np.argwhere(np.ones_like(mask))
    seen = np.array([polygon2mask(mask.shape, p) for p in polygons])  # odd and even
    np.testing.assert_array_equal(seen.any(axis=0), mask)
    np.testing.assert_array_equal(seen.sum(axis=0) % 2 == 1, mask)
    wound = [Outline(p, closed=False).contains_points(centres) for p in polygons]  # winding number
    np.testing.assert_array_equal(np.any(wound, axis=0).reshape(mask.shape), mask)


@settings(max_examples=3 * settings.default.max_examples)
@given(masks)
def test_any_mask_comes_back_with_its_area(mask):
    polygons = mask_contours(mask)
    np.testing.assert_array_equal(contours_mask(polygons, mask.shape), mask)
    np.testing.assert_array_equal(
        np.any([np.zeros_like(mask), *(polygon2mask(mask.shape, p) for p in polygons)], axis=0),
        mask,
    )
    assert sum(area(p) for p in polygons) == mask.sum()
    for polygon in polygons:
        steps = np.roll(polygon, -1, axis=0) - polygon
        assert ((steps == 0).sum(axis=1) == 1).all()  # along one axis, never staying


@given(
    arrays(np.float64, st.tuples(st.integers(3, 8), st.just(2)), elements=st.floats(-3, 13)),
)
def test_rasterising_agrees_with_scikit_image_off_the_edges(polygon):
    # An irrational shift, so that no centre lies on an edge, where conventions differ.
    polygon = polygon + np.array([0.0123456, 0.0076543])
    ours = contours_mask([polygon], (10, 11))
    theirs = polygon2mask((10, 11), polygon)
    differ = np.argwhere(ours != theirs)
    ends = np.roll(polygon, -1, axis=0)
    for centre in differ:
        along = ends - polygon
        length = np.maximum((along**2).sum(axis=1), 1e-30)
        t = np.clip(((centre - polygon) * along).sum(axis=1) / length, 0, 1)
        nearest = polygon + t[:, np.newaxis] * along
        assert np.linalg.norm(nearest - centre, axis=1).min() < 1e-6


def test_centres_on_edges_belong_to_one_of_two_neighbours():
    left = np.array([[0, 0], [0, 2], [3, 2], [3, 0]])
    right = left + np.array([0, 2])
    one, other = (contours_mask([p], (4, 6)) for p in (left, right))
    assert np.argwhere(one).tolist() == [[h, w] for h in range(3) for w in range(2)]
    assert not (one & other).any()
    assert (one | other)[:3, :4].all()


def test_polygons_may_reach_beyond_the_slice():
    whole = np.array([[-5, -5], [-5, 50], [50, 50], [50, -5]])
    assert contours_mask([whole], (3, 4)).all()
    assert not contours_mask([whole + 100], (3, 4)).any()
    assert not contours_mask([whole - np.array([0, 100])], (3, 4)).any()


def test_the_second_of_two_nested_polygons_is_a_hole():
    outer = np.array([[-0.5, -0.5], [-0.5, 4.5], [4.5, 4.5], [4.5, -0.5]])
    inner = np.array([[1.5, 1.5], [1.5, 2.5], [2.5, 2.5], [2.5, 1.5]])
    mask = contours_mask([outer, inner], (5, 5))
    assert np.argwhere(~mask).tolist() == [[2, 2]]
