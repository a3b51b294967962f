import numpy as np
import pandas as pd
import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.records import (
    main_placement,
    measures_of,
    nsd_tolerances_of,
    score_table,
    write_table,
)
from reference.click_scores import click_score, plausible_scores

FINER = {"nsd": {0.5: 0.25, 3: 0.75}}


def test_models_keep_the_order_of_their_first_row_and_cases_users_and_clicks_are_sorted():
    table = score_table(
        [
            click_score("zeta", "b", num_clicks=10),
            click_score("zeta", "b", num_clicks=2),
            click_score("zeta", "a", seed=1),
            click_score("zeta", "a", placement="edge"),
            click_score("alpha", "a"),
        ]
    )
    rows = table[["model", "placement", "case_id", "seed", "num_clicks"]]
    assert list(rows.itertuples(index=False, name=None)) == [
        ("zeta", "random", "a", 1, 1),
        ("zeta", "random", "b", 0, 2),
        ("zeta", "random", "b", 0, 10),
        ("zeta", "edge", "a", 0, 1),
        ("alpha", "random", "a", 0, 1),
    ]


def test_each_row_must_be_there_once():
    with pytest.raises(ConfigError, match=r"net on set a \(seed 0, random, 1 clicks\) was scored twice"):
        score_table([click_score(), click_score(dice=0.9)])


def test_no_rows_have_no_table():
    with pytest.raises(ConfigError, match="no score"):
        score_table([])


def test_rows_with_different_tolerances_are_not_put_together():
    assert nsd_tolerances_of(score_table([click_score(**FINER)])) == (0.5, 3.0)
    with pytest.raises(ConfigError, match=r"some rows have no nsd_\S+mm; report those of one evaluation"):
        score_table([click_score(), click_score(case_id="b", **FINER)])


def test_the_measures_are_those_that_the_table_has():
    table = score_table([click_score(**FINER)])
    assert [measure.name for measure in measures_of(table)] == [
        *("dice", "iou", "nsd_0.5mm", "nsd_3mm", "hd95_mm", "assd_mm"),
        *("volume_error_ml", "lesion_recall", "seconds"),
    ]
    older = table.drop(columns="lesion_recall")
    assert "lesion_recall" not in [measure.name for measure in measures_of(older)]


def test_the_files_give_the_table_again(tmp_path):
    table = score_table([*plausible_scores(num_cases=2), click_score(hd95_mm=None, lesion_recall=None)])
    write_table(table, tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), table)
    read = pd.read_csv(tmp_path / "scores.csv")
    assert list(read) == list(table)
    pd.testing.assert_frame_equal(read, table, check_dtype=False, check_categorical=False)
    text = (tmp_path / "scores.csv").read_text()
    assert "nan" not in text.lower()
    assert "None" not in text


def test_the_main_placement_is_that_of_the_first_clicked_row():
    automatic = click_score("auto", num_clicks=0, placement="none")
    assert main_placement(score_table([automatic])) is None
    rows = [automatic, click_score(), click_score(placement="edge")]
    assert main_placement(score_table(rows)) == "random"


def test_a_missing_number_is_not_a_number():
    table = score_table([click_score(hd95_mm=None)])
    assert np.isnan(table["hd95_mm"]).all()
    assert table["hd95_mm"].dtype == float
