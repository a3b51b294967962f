import pytest

from clickvol.errors import ConfigError
from clickvol.report.summary import summarise
from reference.click_scores import click_score, plausible_scores

FEW = 200


def _rows(scores, **options):
    rows = summarise(scores, resamples=FEW, **options).rows
    return {(row.model, row.data, row.placement, row.num_clicks): row for row in rows}


def test_a_row_counts_cases_patients_and_failures():
    scores = [
        click_score(case_id="a", group="p", dice=0.2),
        click_score(case_id="b", group="p", dice=0.9),
        click_score(case_id="c", group="q", dice=0.4),
        click_score(case_id="c", group="q", seed=1, dice=0.0, hd95_mm=None, failure="no memory"),
    ]
    (row,) = _rows(scores).values()
    assert (row.cases, row.groups, row.records, row.failures) == (3, 2, 4, 1)
    dice = row.statistics["dice"]
    assert dice.mean == pytest.approx(1.5 / 4)
    assert dice.median == pytest.approx(0.3)
    assert dice.low == pytest.approx(0.2)
    assert dice.high == pytest.approx(0.55)
    assert row.statistics["nsd_1mm"].mean == pytest.approx(0.8 * 1.5 / 4)


def test_distances_that_do_not_exist_are_counted_and_not_averaged():
    scores = [click_score(case_id="a", hd95_mm=3.0), click_score(case_id="b", hd95_mm=None)]
    (row,) = _rows(scores).values()
    distance = row.statistics["hd95_mm"]
    assert (distance.n, distance.mean, distance.low) == (1, 3.0, None)
    (row,) = _rows([click_score(hd95_mm=None)]).values()
    assert row.statistics["hd95_mm"].model_dump() == {
        "n": 0,
        "mean": None,
        "median": None,
        "low": None,
        "high": None,
    }


def test_the_volume_error_is_averaged_without_its_sign():
    scores = [
        click_score(case_id="a", truth_ml=10, mask_ml=13),
        click_score(case_id="b", truth_ml=10, mask_ml=5),
    ]
    (row,) = _rows(scores).values()
    assert row.statistics["volume_error_ml"].mean == 4.0


def test_rows_keep_the_order_of_the_models_and_sort_the_clicks():
    scores = [
        click_score("zeta", num_clicks=10),
        click_score("zeta", num_clicks=2),
        click_score("alpha", num_clicks=2),
        click_score("zeta", placement="edge", num_clicks=1),
    ]
    assert [key[:1] + key[2:] for key in _rows(scores)] == [
        ("zeta", "random", 2),
        ("zeta", "random", 10),
        ("zeta", "edge", 1),
        ("alpha", "random", 2),
    ]


def test_the_order_of_the_cases_does_not_matter():
    scores = list(plausible_scores(num_cases=3, clicks=(1, 3)))
    by_case = sorted(scores, key=lambda s: s.case_id[-2:], reverse=True)
    summaries = [summarise(s, resamples=FEW, reference="dynunet") for s in (scores, by_case)]
    names = dict.fromkeys(s.data for s in by_case)
    assert list(names) == ["liver_CT", "brain_MR"]
    assert summaries[0] == summaries[1]


def test_click_curves_are_areas_and_clicks_to_reach():
    curve_of = {"a": {1: 0.5, 3: 0.9}, "b": {1: 0.8, 3: 0.7}, "c": {1: 0.1, 3: 0.3}}
    scores = [
        click_score(case_id=case, num_clicks=n, dice=dice)
        for case, curve in curve_of.items()
        for n, dice in curve.items()
    ]
    scores.append(click_score(case_id="unfinished", num_clicks=1, dice=1.0))
    (curve,) = summarise(scores, resamples=FEW).curves
    assert (curve.num_clicks, curve.runs) == ((1, 3), 3)
    assert curve.dice_area.mean == pytest.approx((0.7 + 0.75 + 0.2) / 3)
    assert curve.reached == pytest.approx(2 / 3)
    assert curve.clicks_to_reach == pytest.approx((3 + 1) / 2)


def test_nobody_who_reaches_it_needs_no_number_of_clicks():
    (curve,) = summarise([click_score(dice=0.3)], resamples=FEW).curves
    assert (curve.reached, curve.clicks_to_reach) == (0.0, None)
    assert curve.dice_area.mean == 0.3


def test_each_record_must_be_there_once():
    with pytest.raises(ConfigError, match=r"net on set a .*scored twice"):
        summarise([click_score(), click_score(dice=0.9)])


def test_no_records_have_no_summary():
    with pytest.raises(ConfigError, match="no score"):
        summarise([])


def test_an_unknown_reference_or_tolerance_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'other' was not evaluated; choose one of net"):
        summarise([click_score()], reference="other")
    with pytest.raises(ConfigError, match="choose one of 1, 2, 5"):
        summarise([click_score()], nsd_tolerance_mm=3.0)


def test_a_summary_survives_its_file():
    summary = summarise(plausible_scores(num_cases=2), reference="ball 50 mm", resamples=FEW)
    assert type(summary).model_validate_json(summary.model_dump_json()) == summary
