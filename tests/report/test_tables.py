import re

from clickvol.report.summary import summarise
from clickvol.report.tables import (
    Table,
    latex_text,
    markdown_cell,
    number,
    p_value,
    report_tables,
)
from reference.click_scores import click_score, plausible_scores

TABLE = Table("A | b_c", ("model", "Dice"), (("my_net", "0.500"), ("[x]|y", "\N{EN DASH}")))


def _tables(scores, **options):
    found = report_tables(summarise(scores, resamples=200, **options))
    return {table.caption: table for table in found}


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
    assert number(None, 3) == p_value(None) == "\N{EN DASH}"
    assert p_value(0.0004) == "<0.001"
    assert p_value(0.04999) == "0.050"


def test_the_score_table_holds_the_means_and_intervals():
    scores = [
        click_score("net", "a", dice=0.2, hd95_mm=None),
        click_score("net", "b", dice=0.8, hd95_mm=4.0, failure="no memory"),
    ]
    (table,) = _tables(scores).values()
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["model"] == "net"
    assert cells["cases (patients)"] == "2 (2)"
    assert cells["Dice"] == "0.500 [0.200, 0.800]"
    assert cells["NSD 5 mm"] == "0.500 [0.200, 0.800]"
    assert cells["HD95 (mm)"] == "4.0"
    assert cells["failures"] == "1/2"


def test_one_patient_has_a_mean_without_an_interval():
    (table,) = _tables([click_score(dice=0.25)]).values()
    assert dict(zip(table.header, table.rows[0], strict=True))["Dice"] == "0.250"


def test_each_table_is_there_when_it_has_something_to_say():
    one_click = [s for s in plausible_scores(num_cases=2) if s.num_clicks <= 1]
    assert list(_tables(one_click)) == ["liver_CT: mean scores", "brain_MR: mean scores"]
    several = _tables(plausible_scores(num_cases=2), reference="ball 50 mm")
    assert [caption for caption in several if caption.startswith("liver_CT")] == [
        "liver_CT: mean scores",
        "liver_CT: worth of the clicks",
        "liver_CT: difference to ball 50 mm",
    ]


def test_placements_stand_side_by_side():
    scores = [
        click_score("net", placement="centre", dice=0.9),
        click_score("net", placement="edge", dice=0.6),
        click_score("ball", placement="centre", dice=0.4),
        click_score("auto", placement="none", num_clicks=0),
    ]
    table = _tables(scores)["set: Dice after one click, by where it was put"]
    assert table.header == ("model", "centre", "edge")
    assert table.rows == (("net", "0.900", "0.600"), ("ball", "0.400", "\N{EN DASH}"))


def test_no_table_says_nan_or_none():
    scores = [click_score("net", "a", hd95_mm=None, assd_mm=None, lesion_recall=None, dice=0.0)]
    scores.append(click_score("other", "b"))
    for table in _tables(scores, reference="other").values():
        assert not re.search(r"\b(nan|none|inf)\b", table.markdown() + table.latex(), re.IGNORECASE)
