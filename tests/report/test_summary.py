from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clickvol.errors import ConfigError
from clickvol.evaluation.records import score_table
from clickvol.report.summary import case_means, summarise
from reference.click_scores import click_score, click_table, plausible_scores

ROOT = Path(__file__).parents[2]
FEW = 200
CASES = "abcde"
GOOD = (0.9, 0.8, 0.85, 0.7, 0.95)
POOR = (0.5, 0.6, 0.7, 0.65, 0.3)


def summary_of(scores, **options):
    return summarise(click_table(*scores), **{"resamples": FEW} | options)


def only(table):
    (row,) = (row for _, row in table.iterrows())
    return row


def test_a_row_counts_cases_patients_and_failures():
    scores = [
        click_score(case_id="a", group="p", dice=0.2),
        click_score(case_id="b", group="p", dice=0.9),
        click_score(case_id="c", group="q", dice=0.4),
        click_score(case_id="c", group="q", seed=1, dice=0.0, hd95_mm=None, failure="no memory"),
    ]
    row = only(summary_of(scores).scores)
    assert (row.cases, row.groups, row.records, row.failures) == (3, 2, 4, 1)
    assert row.dice_mean == pytest.approx(1.5 / 4)
    assert row.dice_median == pytest.approx(0.3)
    assert row.dice_low == pytest.approx(0.2)
    assert row.dice_high == pytest.approx(0.55)
    assert row.nsd_1mm_mean == pytest.approx(0.8 * 1.5 / 4)


def test_distances_that_do_not_exist_are_counted_and_not_averaged():
    scores = [click_score(case_id="a", hd95_mm=3.0), click_score(case_id="b", hd95_mm=None)]
    row = only(summary_of(scores).scores)
    assert (row.hd95_mm_n, row.hd95_mm_mean) == (1, 3.0)
    assert np.isnan(row.hd95_mm_low)
    row = only(summary_of([click_score(hd95_mm=None)]).scores)
    assert row.hd95_mm_n == 0
    assert np.isnan([row[f"hd95_mm_{what}"] for what in ("mean", "median", "low", "high")]).all()


def test_rows_keep_the_order_of_the_models_and_sort_the_clicks():
    scores = [
        click_score("zeta", num_clicks=10),
        click_score("zeta", num_clicks=2),
        click_score("alpha", num_clicks=2),
        click_score("zeta", placement="edge", num_clicks=1),
    ]
    rows = summary_of(scores).scores[["model", "placement", "num_clicks"]]
    assert list(rows.itertuples(index=False, name=None)) == [
        ("zeta", "random", 2),
        ("zeta", "random", 10),
        ("zeta", "edge", 1),
        ("alpha", "random", 2),
    ]


def test_the_order_of_the_cases_does_not_matter():
    scores = list(plausible_scores(num_cases=3, clicks=(1, 3)))
    by_case = sorted(scores, key=lambda row: row["case_id"][-2:], reverse=True)
    one, other = (summary_of(rows, reference="dynunet") for rows in (scores, by_case))
    for name in ("scores", "curves", "comparisons"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))


def test_click_curves_are_areas_and_clicks_to_reach():
    curve_of = {"a": {1: 0.5, 3: 0.9}, "b": {1: 0.8, 3: 0.7}, "c": {1: 0.1, 3: 0.3}}
    scores = [
        click_score(case_id=case, num_clicks=n, dice=dice)
        for case, curve in curve_of.items()
        for n, dice in curve.items()
    ]
    scores.append(click_score(case_id="unfinished", num_clicks=1, dice=1.0))
    curve = only(summary_of(scores).curves)
    assert (curve.num_clicks, curve.runs) == ([1, 3], 3)
    assert curve.dice_area_mean == pytest.approx((0.7 + 0.75 + 0.2) / 3)
    assert curve.reached == pytest.approx(2 / 3)
    assert curve.clicks_to_reach == pytest.approx((3 + 1) / 2)


def test_nobody_who_reaches_it_needs_no_number_of_clicks():
    curve = only(summary_of([click_score(dice=0.3)]).curves)
    assert (curve.reached, curve.dice_area_mean) == (0.0, 0.3)
    assert np.isnan(curve.clicks_to_reach)


def test_a_curve_without_a_whole_run_has_no_number():
    scores = [click_score("net", "a", num_clicks=1), click_score("net", "b", num_clicks=3)]
    curve = only(summary_of(scores).curves)
    assert (curve.runs, curve.reached) == (0, 0.0)
    assert np.isnan(curve.dice_area_mean)


def test_an_unknown_reference_or_tolerance_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'other' was not evaluated; choose one of net"):
        summary_of([click_score()], reference="other")
    with pytest.raises(ConfigError, match="3 mm is not recorded; choose one of 1, 2, 5"):
        summary_of([click_score()], nsd_tolerance_mm=3.0)


def test_users_of_a_scan_become_one_row():
    scores = [
        click_score(seed=0, dice=0.25, truth_ml=8.0, mask_ml=6.0, hd95_mm=None),
        click_score(seed=1, dice=0.75, truth_ml=8.0, mask_ml=10.0, failure="no memory", hd95_mm=4.0),
        click_score(seed=0, dice=0.5, num_clicks=3, hd95_mm=None),
        click_score(case_id="b", group="patient", dice=1.0),
    ]
    one, three, other = (row for _, row in case_means(click_table(*scores)).iterrows())
    assert (one.case_id, one.num_clicks, one.records, one.failures) == ("a", 1, 2, 1)
    assert (one.dice, one.volume_error_ml, one.truth_ml, one.hd95_mm) == (0.5, 2.0, 8.0, 4.0)
    assert (three.num_clicks, three.records, three.dice) == (3, 1, 0.5)
    assert np.isnan(three.hd95_mm)
    assert (other.case_id, other.group, other.dice) == ("b", "patient", 1.0)


def five_cases(model, dice, **values):
    return [click_score(model, case, dice=d, **values) for case, d in zip(CASES, dice, strict=True)]


def comparisons(scores, reference="good", measure="dice"):
    table = summary_of(scores, reference=reference).comparisons
    return [row for _, row in table[table["measure"] == measure].iterrows()]


def test_a_model_is_compared_patient_by_patient():
    (row,) = comparisons([*five_cases("good", GOOD), *five_cases("poor", POOR)])
    assert (row.model, row.reference, row.groups) == ("poor", "good", 5)
    assert row.difference == pytest.approx((2.75 - 4.2) / 5)
    assert row.low < row.difference < row.high < 0
    assert row.t_p == pytest.approx(stats.ttest_rel(POOR, GOOD).pvalue)
    assert row.wilcoxon_p == pytest.approx(2 / 2**5)
    assert (row.t_p_holm, row.wilcoxon_p_holm) == (row.t_p, row.wilcoxon_p)


def test_two_scans_of_one_patient_make_one_pair():
    dice = {"good": (0.8, 0.6, 0.9), "poor": (0.4, 0.2, 0.7)}
    scores = [
        click_score(model, case, group=case[0], dice=value)
        for model, values in dice.items()
        for case, value in zip(("a1", "a2", "b1"), values, strict=True)
    ]
    (row,) = comparisons(scores)
    assert row.groups == 2
    assert row.difference == pytest.approx((-0.4 - 0.2) / 2)


def test_cases_that_one_model_lacks_are_left_out_of_both_and_counted():
    scores = [*five_cases("good", GOOD), *five_cases("poor", POOR)[1:]]
    scores.append(click_score("poor", "only here", dice=1.0))
    (row,) = comparisons(scores)
    assert (row.groups, row.unpaired_cases) == (4, 2)
    assert row.difference == pytest.approx((2.25 - 3.3) / 4)


def test_a_model_without_clicks_meets_every_number_of_clicks():
    scores = [
        *five_cases("good", GOOD, num_clicks=1),
        *five_cases("good", (1.0,) * 5, num_clicks=5),
        *five_cases("automatic", POOR, num_clicks=0, placement="none"),
    ]
    one, five = comparisons(scores)
    assert (one.num_clicks, five.num_clicks) == (1, 5)
    assert one.difference == pytest.approx((2.75 - 4.2) / 5)
    assert five.difference == pytest.approx((2.75 - 5) / 5)
    turned = comparisons(scores, reference="automatic")
    assert [row.difference for row in turned] == pytest.approx([-one.difference, -five.difference])


def test_two_models_without_clicks_meet_once():
    scores = [
        *five_cases("good", GOOD, num_clicks=0, placement="none"),
        *five_cases("poor", POOR, num_clicks=0, placement="none"),
        *five_cases("clicked", GOOD, num_clicks=1),
    ]
    rows = [(row.model, row.placement, row.num_clicks) for row in comparisons(scores)]
    assert rows == [("poor", "none", 0), ("clicked", "random", 1)]


def test_p_values_are_corrected_for_the_models_of_one_cell():
    scores = [
        *five_cases("good", GOOD),
        *five_cases("poor", POOR),
        *five_cases("fair", (0.8, 0.75, 0.8, 0.72, 0.9)),
        *five_cases("good", GOOD, num_clicks=3),
        *five_cases("poor", POOR, num_clicks=3),
    ]
    poor, fair, alone = comparisons(scores)
    assert (poor.model, fair.model, alone.num_clicks) == ("poor", "fair", 3)
    small, large = sorted((poor, fair), key=lambda row: row.t_p)
    assert small.t_p_holm == pytest.approx(2 * small.t_p)
    assert large.t_p_holm == pytest.approx(max(large.t_p, 2 * small.t_p))
    assert alone.t_p_holm == alone.t_p == poor.t_p


def test_models_that_share_no_case_have_no_difference():
    (row,) = comparisons([click_score("good", "a"), click_score("poor", "b")])
    assert (row.groups, row.unpaired_cases) == (0, 2)
    assert np.isnan([row.difference, row.t_p, row.wilcoxon_p, row.low]).all()


def test_the_surface_dice_is_compared_at_the_tolerance_asked_for():
    scores = [*five_cases("good", GOOD), *five_cases("poor", POOR)]
    rows = summary_of(scores, reference="good", nsd_tolerance_mm=1.0).comparisons
    assert list(rows["measure"]) == ["dice", "nsd_1mm"]
    assert rows["difference"][1] == pytest.approx(0.8 * rows["difference"][0])


def test_more_than_ten_patients_are_resampled_in_the_same_order():
    """The groups of a bootstrap are sorted as words; the interval was written down before the table."""
    cases = [f"{n:02d}" for n in range(12)]
    scores = [click_score("good", case, dice=0.5) for case in cases]
    scores += [click_score("poor", case, dice=0.5 - 0.01 * int(case) ** 2 / 3) for case in cases]
    (row,) = comparisons(scores)
    assert (row.low, row.high) == pytest.approx((-0.20479861111111114, -0.06968055555555555), rel=1e-12)


def test_the_records_that_are_published_give_the_published_tables_again():
    folder = ROOT / "benchmarks" / "results" / "sarcoma"
    table = score_table(pd.read_csv(folder / "scores.csv").to_dict("records"))
    summary = summarise(table, reference="promise3d-released", nsd_tolerance_mm=2.0)
    for rows, name in ((summary.scores, "summary.csv"), (summary.comparisons, "comparisons.csv")):
        wanted = pd.read_csv(folder / name)
        again = rows[list(wanted)].astype(dict.fromkeys(wanted.select_dtypes(exclude="number"), str))
        pd.testing.assert_frame_equal(again.reset_index(drop=True), wanted, check_dtype=False)
    lines = (ROOT / "docs" / "explanation" / "results.md").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| **shipped model**"))
    scores = summary.scores[summary.scores["num_clicks"] <= 1]
    for column, data in ((2, "Sarcoma_CT"), (5, "Sarcoma_MR")):
        numbers = scores.loc[scores["data"] == data, ["dice_mean", "dice_low", "dice_high"]].to_numpy()
        known = {f"{mean:.3f} [{low:.3f}, {high:.3f}]".replace("0.", ".") for mean, low, high in numbers}
        cells = [line.split("|")[column].replace("*", "").strip() for line in lines[first : first + 19]]
        assert set(cells) <= known
