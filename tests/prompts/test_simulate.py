import numpy as np
import pytest

from clickvol.geometry.coordinates import PatchPoint
from clickvol.prompts.simulate import click_into_error, extra_clicks

FIRST = PatchPoint(12.25, 12, 12)


def _ball(radius=6, side=24):
    place = np.indices((side,) * 3) - 12
    return (place**2).sum(axis=0) <= radius**2


def test_without_a_share_there_is_only_the_first_click():
    for seed in range(20):
        points, signs = extra_clicks(FIRST, _ball(), 5, 0.0, np.random.default_rng(seed))
        assert (points, signs) == ([FIRST], [1])


def test_a_label_without_voxels_gets_no_further_click():
    empty = np.zeros((8, 8, 8), dtype=bool)
    assert extra_clicks(FIRST, empty, 5, 1.0, np.random.default_rng(0)) == ([FIRST], [1])


def test_further_clicks_have_the_sign_of_what_lies_under_them():
    label = _ball()
    num_inside = num_beside = 0
    for seed in range(200):
        points, signs = extra_clicks(FIRST, label, 5, 1.0, np.random.default_rng(seed))
        assert points[0] == FIRST
        assert len(points) == len(signs) <= 5
        for point, sign in zip(points[1:], signs[1:], strict=True):
            place = point.as_array()
            assert (place > -0.5).all()
            assert (place < 23.5).all()
            assert label[tuple(np.rint(place).astype(int))] == sign
            num_inside += sign == 1
            num_beside += sign == 0
            if sign == 0:
                nearest = np.linalg.norm(np.argwhere(label) - place, axis=1).min()
                assert nearest <= 16
    assert num_inside > 150
    assert num_beside > 60


def test_the_number_of_clicks_takes_every_value_up_to_the_most():
    label = np.ones((24, 24, 24), dtype=bool)
    counts = [len(extra_clicks(FIRST, label, 4, 1.0, np.random.default_rng(seed))[0]) for seed in range(300)]
    assert set(counts) == {1, 2, 3, 4}  # 1: the only further click was to lie beside, with no room


def test_the_share_is_that_of_the_cases_with_further_clicks():
    label = _ball()
    more = [len(extra_clicks(FIRST, label, 5, 0.3, np.random.default_rng(seed))[0]) > 1 for seed in range(1000)]
    assert np.mean(more) == pytest.approx(0.3, abs=0.07)


def test_a_correction_goes_to_the_middle_of_what_was_missed():
    label = _ball(6)
    clicked = click_into_error(np.zeros_like(label), label, np.random.default_rng(0))
    point, sign = clicked
    assert sign == 1
    assert np.linalg.norm(point.as_array() - 12) <= 6 - 1 + 1e-9


def test_a_correction_of_too_much_is_a_background_click():
    label = _ball(3)
    predicted = label.copy()
    predicted[2:6, 2:6, 2:6] = True
    for seed in range(10):
        point, sign = click_into_error(predicted, label, np.random.default_rng(seed))
        assert sign == 0
        assert all(v in (3.0, 4.0) for v in point.as_array())


def test_an_error_of_single_voxels_is_clicked_all_the_same():
    label = _ball(5)
    predicted = label.copy()
    predicted[1, 2, 3] = True
    found = click_into_error(predicted, label, np.random.default_rng(0))
    assert found == (PatchPoint(1.0, 2.0, 3.0), 0)


def test_a_perfect_prediction_has_nothing_to_correct():
    assert click_into_error(_ball(), _ball(), np.random.default_rng(0)) is None


def test_the_same_generator_gives_the_same_clicks():
    runs = [extra_clicks(FIRST, _ball(), 5, 1.0, np.random.default_rng(3)) for _ in range(2)]
    assert runs[0] == runs[1]
