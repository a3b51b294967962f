import pytest

from clickvol.metrics.click_curve import click_curve_area, clicks_to_reach


def test_the_first_number_of_clicks_with_the_dice_counts():
    curve = {10: 0.9, 1: 0.5, 3: 0.8, 5: 0.7}
    assert clicks_to_reach(curve) == 3
    assert clicks_to_reach(curve, 0.81) == 10
    assert clicks_to_reach(curve, 0.5) == 1


def test_a_dice_that_is_never_reached_has_no_number():
    assert clicks_to_reach({1: 0.5, 3: 0.799}) is None
    assert clicks_to_reach({}) is None


def test_the_area_weighs_by_the_distance_between_clicks():
    # (0.4 + 0.6) / 2 over 2 clicks, (0.6 + 0.8) / 2 over 2, (0.8 + 1) / 2 over 5.
    curve = {5: 0.8, 1: 0.4, 10: 1.0, 3: 0.6}
    assert click_curve_area(curve) == pytest.approx((2 * 0.5 + 2 * 0.7 + 5 * 0.9) / 9)


def test_a_constant_curve_and_a_single_click_have_their_own_value():
    assert click_curve_area({1: 0.3, 2: 0.3, 10: 0.3}) == pytest.approx(0.3)
    assert click_curve_area({4: 0.6}) == 0.6
    assert click_curve_area({0: 0.2}) == 0.2


def test_no_clicks_have_no_area():
    with pytest.raises(
        ValueError, match=r"^the click curve has no points; score at least one number of clicks$"
    ):
        click_curve_area({})
