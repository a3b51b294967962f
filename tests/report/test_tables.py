import re

import numpy as np
import pandas as pd

from clickvol.report.summary import case_means, summarise
from clickvol.report.tables import (
    MISSING,
    Table,
    latex_text,
    markdown_cell,
    number,
    p_value,
    report_tables,
    with_interval,
)
from reference.click_scores import click_score, click_table, plausible_scores

TABLE = Table("A | b_c", pd.DataFrame({"model": ["my_net", "[x]|y"], "Dice": ["0.500", MISSING]}))
OF_SCANS = ": Dice of each scan, mean over users"


def _tables(scores, **options):
    table = click_table(*scores)
    tables = report_tables(table, summarise(table, resamples=200, **options), case_means(table))
    return {one.caption: one for one in tables}


def _rows(table):
    return list(table.cells.itertuples(index=False, name=None))


def _first_row(tables):
    return next(iter(tables.values())).cells.iloc[0]


def test_markdown_has_a_row_per_row_and_keeps_bars_in_their_cell():
    assert TABLE.markdown().splitlines() == [
        r"### A \| b_c",
        "",
        "| model | Dice |",
        "| --- | ---: |",
        "| my_net | 0.500 |",
        "| [x]\\|y | \N{EN DASH} |",
    ]


def test_latex_is_a_plain_tabular():
    assert TABLE.latex().splitlines() == [
        "% A | b_c",
        r"\begin{tabular}{lr}",
        r"\hline",
        r"model & Dice \\",
        r"\hline",
        r"{}my\_net & 0.500 \\",
        r"{}[x]|y & -- \\",
        r"\hline",
        r"\end{tabular}",
    ]


def test_latex_escapes_each_special_character_once():
    assert latex_text(r"a\b & 5% $x$ #1 {_} ~^ <1") == (
        r"a\textbackslash{}b \& 5\% \$x\$ \#1 \{\_\} \textasciitilde{}\textasciicircum{}"
        r" \textless{}1"
    )


def test_line_breaks_do_not_break_a_table():
    assert markdown_cell("one\ntwo  three") == latex_text("one\ntwo  three") == "one two three"


def test_numbers_and_what_stands_for_missing_ones():
    assert number(0.12345, 3) == "0.123"
    assert number(np.nan, 3) == p_value(np.nan) == "\N{EN DASH}"
    assert with_interval(2, 0.5, 0.25, 0.75) == "0.50 [0.25, 0.75]"
    assert with_interval(2, 0.5, np.nan, np.nan) == "0.50"
    assert p_value(0.0004) == "<0.001"
    assert p_value(0.04999) == "0.050"


def test_the_score_table_holds_the_means_and_intervals():
    scores = [
        click_score("net", "a", dice=0.2, hd95_mm=None),
        click_score("net", "b", dice=0.8, hd95_mm=4.0, failure="no memory"),
    ]
    cells = _first_row(_tables(scores))
    assert cells["model"] == "net"
    assert cells["cases (patients)"] == "2 (2)"
    assert cells["Dice"] == "0.500 [0.200, 0.800]"
    assert cells["NSD 5 mm"] == "0.500 [0.200, 0.800]"
    assert cells["HD95 (mm)"] == "4.0"
    assert cells["failures"] == "1/2"


def test_one_patient_has_a_mean_without_an_interval():
    assert _first_row(_tables([click_score(dice=0.25)]))["Dice"] == "0.250"


def test_each_table_is_there_when_it_has_something_to_say():
    one_click = [row for row in plausible_scores(num_cases=2) if row["num_clicks"] <= 1]
    assert list(_tables(one_click)) == [
        *("liver_CT: mean scores", "brain_MR: mean scores"),
        *("liver_CT" + OF_SCANS, "brain_MR" + OF_SCANS),
    ]
    several = _tables(plausible_scores(num_cases=2), reference="ball 50 mm")
    assert [caption for caption in several if caption.startswith("liver_CT")] == [
        "liver_CT: mean scores",
        "liver_CT: worth of the clicks",
        "liver_CT: difference to ball 50 mm",
        "liver_CT" + OF_SCANS,
    ]


def test_placements_stand_side_by_side():
    scores = [
        click_score("net", placement="centre", dice=0.9),
        click_score("net", placement="edge", dice=0.6),
        click_score("ball", placement="centre", dice=0.4),
        click_score("auto", placement="none", num_clicks=0),
    ]
    table = _tables(scores)["set: Dice after one click, by where it was put"]
    assert list(table.cells) == ["model", "centre", "edge"]
    assert _rows(table) == [("net", "0.900", "0.600"), ("ball", "0.400", "\N{EN DASH}")]


def test_a_data_set_has_the_placements_of_its_own_clicks():
    scores = [click_score(placement=place) for place in ("centre", "edge")]
    scores.append(click_score(data="other", placement="inside"))
    captions = [caption for caption in _tables(scores) if "by where it was put" in caption]
    assert captions == ["set: Dice after one click, by where it was put"]


def test_a_table_per_data_set_has_a_line_per_model_and_scan():
    scores = [
        *(click_score("net", case, dice=0.25, num_clicks=1) for case in "ab"),
        *(click_score("net", case, dice=0.75, num_clicks=10) for case in "ab"),
        click_score("auto", "a", dice=0.5, num_clicks=0, placement="none"),
        click_score("net", "c", data="other", dice=1.0, truth_ml=2.25),
    ]
    tables = _tables(scores)
    one, other = tables["set" + OF_SCANS], tables["other" + OF_SCANS]
    titles = ["model", "scan", "patient", "label (ml)"]
    assert list(one.cells) == [*titles, "0 clicks", "1 click", "10 clicks"]
    assert _rows(one) == [
        ("net", "a", "a", "10.0", MISSING, "0.250", "0.750"),
        ("net", "b", "b", "10.0", MISSING, "0.250", "0.750"),
        ("auto", "a", "a", "10.0", "0.500", MISSING, MISSING),
    ]
    assert list(other.cells) == [*titles, "1 click"]
    assert _rows(other) == [("net", "c", "c", "2.2", "1.000")]


def test_the_table_of_scans_has_the_first_click_of_the_protocol_and_the_first_models():
    scores = [
        *(click_score(model, "a") for model in "abcde"),
        *(click_score(model, "a", placement="edge", dice=0.0) for model in "abcde"),
    ]
    rows = _rows(_tables(scores)["set" + OF_SCANS])
    assert [row[0] for row in rows] == ["a", "b", "c", "d"]
    assert {row[-1] for row in rows} == {"0.500"}


def test_no_table_says_nan_or_none():
    scores = [click_score("net", "a", hd95_mm=None, assd_mm=None, lesion_recall=None, dice=0.0)]
    scores.append(click_score("other", "b"))
    for table in _tables(scores, reference="other").values():
        assert not re.search(r"\b(nan|none|inf)\b", table.markdown() + table.latex(), re.IGNORECASE)
