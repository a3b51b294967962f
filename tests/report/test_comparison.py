import pytest
from scipy import stats

from clickvol.report.summary import summarise
from reference.click_scores import click_score

CASES = "abcde"
GOOD = (0.9, 0.8, 0.85, 0.7, 0.95)
POOR = (0.5, 0.6, 0.7, 0.65, 0.3)


def _scores(model, dice, **values):
    return [click_score(model, case, dice=d, **values) for case, d in zip(CASES, dice, strict=True)]


def _comparisons(scores, reference="good", measure="dice"):
    found = summarise(scores, reference=reference, resamples=200).comparisons
    return [c for c in found if c.measure == measure]


def test_a_model_is_compared_patient_by_patient():
    (found,) = _comparisons([*_scores("good", GOOD), *_scores("poor", POOR)])
    assert (found.model, found.reference, found.groups) == ("poor", "good", 5)
    assert found.difference == pytest.approx((2.75 - 4.2) / 5)
    assert found.low < found.difference < found.high < 0
    assert found.t_p == pytest.approx(stats.ttest_rel(POOR, GOOD).pvalue)
    assert found.wilcoxon_p == pytest.approx(2 / 2**5)
    assert (found.t_p_holm, found.wilcoxon_p_holm) == (found.t_p, found.wilcoxon_p)


def test_two_scans_of_one_patient_make_one_pair():
    scores = [
        click_score("good", "a1", group="a", dice=0.8),
        click_score("good", "a2", group="a", dice=0.6),
        click_score("good", "b1", group="b", dice=0.9),
        click_score("poor", "a1", group="a", dice=0.4),
        click_score("poor", "a2", group="a", dice=0.2),
        click_score("poor", "b1", group="b", dice=0.7),
    ]
    (found,) = _comparisons(scores)
    assert found.groups == 2
    assert found.difference == pytest.approx((-0.4 - 0.2) / 2)


def test_cases_that_one_model_lacks_are_left_out_of_both_and_counted():
    scores = [*_scores("good", GOOD), *_scores("poor", POOR)[1:]]
    scores.append(click_score("poor", "only here", dice=1.0))
    (found,) = _comparisons(scores)
    assert (found.groups, found.unpaired_cases) == (4, 2)
    assert found.difference == pytest.approx((2.25 - 3.3) / 4)


def test_a_model_without_clicks_meets_every_number_of_clicks():
    scores = [
        *_scores("good", GOOD, num_clicks=1),
        *_scores("good", (1.0,) * 5, num_clicks=5),
        *_scores("automatic", POOR, num_clicks=0, placement="none"),
    ]
    one, five = _comparisons(scores)
    assert (one.num_clicks, five.num_clicks) == (1, 5)
    assert one.difference == pytest.approx((2.75 - 4.2) / 5)
    assert five.difference == pytest.approx((2.75 - 5) / 5)
    turned = _comparisons(scores, reference="automatic")
    assert [c.difference for c in turned] == pytest.approx([-one.difference, -five.difference])


def test_two_models_without_clicks_meet_once():
    scores = [
        *_scores("good", GOOD, num_clicks=0, placement="none"),
        *_scores("poor", POOR, num_clicks=0, placement="none"),
        *_scores("clicked", GOOD, num_clicks=1),
    ]
    found = [(c.model, c.placement, c.num_clicks) for c in _comparisons(scores)]
    assert found == [("poor", "none", 0), ("clicked", "random", 1)]


def test_p_values_are_corrected_for_the_models_of_one_cell():
    scores = [
        *_scores("good", GOOD),
        *_scores("poor", POOR),
        *_scores("fair", (0.8, 0.75, 0.8, 0.72, 0.9)),
        *_scores("good", GOOD, num_clicks=3),
        *_scores("poor", POOR, num_clicks=3),
    ]
    poor, fair, alone = _comparisons(scores)
    assert (poor.model, fair.model, alone.num_clicks) == ("poor", "fair", 3)
    small, large = sorted((poor, fair), key=lambda c: c.t_p)
    assert small.t_p_holm == pytest.approx(2 * small.t_p)
    assert large.t_p_holm == pytest.approx(max(large.t_p, 2 * small.t_p))
    assert alone.t_p_holm == alone.t_p == poor.t_p


def test_models_that_share_no_case_have_no_difference():
    (found,) = _comparisons([click_score("good", "a"), click_score("poor", "b")])
    assert (found.groups, found.unpaired_cases) == (0, 2)
    assert found.difference is found.t_p is found.wilcoxon_p is found.low is None


def test_the_surface_dice_is_compared_at_the_tolerance_asked_for():
    scores = [*_scores("good", GOOD), *_scores("poor", POOR)]
    found = summarise(scores, reference="good", nsd_tolerance_mm=1.0, resamples=200).comparisons
    assert [c.measure for c in found] == ["dice", "nsd_1mm"]
    assert found[1].difference == pytest.approx(0.8 * found[0].difference)
