import numpy as np
import pytest

from clickvol.errors import ClickError
from clickvol.prompts.simulate import num_positive_points, sample_points


def _mask(shape=(6, 9), rows=slice(1, 3), columns=slice(4, 8)):
    mask = np.zeros(shape, dtype=bool)
    mask[rows, columns] = True
    return mask


def _draws(mask, num_points, number=300):
    return [sample_points(mask, num_points, np.random.default_rng(seed)) for seed in range(number)]


@pytest.mark.parametrize(("num_points", "positive"), [(1, 1), (2, 1), (3, 1), (5, 2), (16, 8)])
def test_half_of_the_points_are_in_the_object_and_one_of_one(num_points, positive):
    assert num_positive_points(num_points) == positive
    for points, labels in _draws(_mask(), num_points, 20):
        assert points.shape == (num_points, 2)
        assert labels.dtype == np.int64
        assert labels.tolist().count(1) == positive
        assert labels.tolist().count(0) == num_points - positive


def test_a_label_tells_what_lies_under_its_point_in_the_order_x_y():
    mask = _mask()
    for points, labels in _draws(mask, 16):
        assert np.array_equal(points, np.rint(points))
        x, y = points.T.astype(int)
        assert np.array_equal(mask[y, x], labels == 1)


def test_a_single_pixel_is_named_by_x_then_y():
    mask = _mask((5, 7), slice(1, 2), slice(4, 5))
    points, labels = sample_points(mask, 1, np.random.default_rng(0))
    assert points.tolist() == [[4.0, 1.0]]
    assert labels.tolist() == [1]


def test_points_are_uniform_over_the_object_and_over_the_rest():
    mask = _mask()
    counts = np.zeros(mask.shape)
    for points, _ in _draws(mask, 16, 1000):
        x, y = points.T.astype(int)
        np.add.at(counts, (y, x), 1)
    for of in (counts[mask], counts[~mask]):
        assert of.sum() == 8000
        assert np.abs(of / of.mean() - 1).max() < 6 / np.sqrt(of.mean())


def test_points_are_drawn_with_replacement():
    points, labels = sample_points(_mask((4, 4), slice(1), slice(1)), 16, np.random.default_rng(0))
    assert points[labels == 1].tolist() == [[0.0, 0.0]] * 8


def test_the_order_of_the_labels_is_shuffled():
    first = [labels[0] for _, labels in _draws(_mask(), 16)]
    assert 0.4 < np.mean(first) < 0.6


@pytest.mark.parametrize("num_points", [1, 2, 16])
def test_an_empty_mask_gives_points_beside_it_only(num_points):
    points, labels = sample_points(np.zeros((3, 5), bool), num_points, np.random.default_rng(0))
    assert labels.tolist() == [0] * num_points
    assert ((points >= 0) & (points < [5, 3])).all()


@pytest.mark.parametrize("num_points", [1, 2, 16])
def test_a_full_mask_gives_points_inside_only(num_points):
    points, labels = sample_points(np.ones((3, 5), bool), num_points, np.random.default_rng(0))
    assert labels.tolist() == [1] * num_points
    assert ((points >= 0) & (points < [5, 3])).all()


def test_the_same_generator_gives_the_same_points_and_another_does_not():
    a, b, c = (sample_points(_mask(), 16, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])
    assert not np.array_equal(a[0], c[0])


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ClickError, match=r"points are drawn from one \(H, W\) with pixels"):
        sample_points(np.zeros(shape, bool), 1, np.random.default_rng(0))


def test_no_points_are_refused():
    with pytest.raises(ClickError, match="0 points were asked for; ask for at least 1"):
        sample_points(_mask(), 0, np.random.default_rng(0))
