from clickvol.report.case_table import case_rows, case_tables
from clickvol.report.series import ordered
from reference.click_scores import click_score

NONE = "\N{EN DASH}"


def rows_of(scores):
    records = ordered(scores)
    return records, case_rows(records)


def test_users_of_a_scan_become_one_row():
    scores = [
        click_score(seed=0, dice=0.25, truth_ml=8.0, mask_ml=6.0),
        click_score(seed=1, dice=0.75, truth_ml=8.0, mask_ml=10.0, failure="no memory"),
        click_score(seed=0, dice=0.5, num_clicks=3),
        click_score(case_id="b", group="patient", dice=1.0),
    ]
    _, (one, three, other) = rows_of(scores)
    assert (one.case_id, one.num_clicks, one.records, one.failures) == ("a", 1, 2, 1)
    assert (one.means["dice"], one.means["volume_error_ml"], one.truth_ml) == (0.5, 2.0, 8.0)
    assert (three.num_clicks, three.records, three.means["dice"]) == (3, 1, 0.5)
    assert (other.case_id, other.group, other.means["dice"]) == ("b", "patient", 1.0)


def test_a_mean_leaves_out_users_without_the_number():
    scores = [click_score(seed=0, hd95_mm=None), click_score(seed=1, hd95_mm=4.0)]
    _, (row,) = rows_of(scores)
    assert row.means["hd95_mm"] == 4.0
    _, (row,) = rows_of(scores[:1])
    assert row.means["hd95_mm"] is None


def test_the_cells_of_a_file_say_which_scan_and_every_measure():
    _, (row,) = rows_of([click_score(nsd=(0.5,), nsd_tolerances_mm=(3.0,))])
    cells = row.cells()
    assert list(cells)[:7] == [
        *("data", "model", "placement", "case_id", "group", "modality", "num_clicks"),
    ]
    assert (cells["records"], cells["truth_ml"], cells["nsd_3mm"]) == (1, 10.0, 0.5)
    assert "means" not in cells


def test_a_table_per_data_set_has_a_line_per_model_and_scan():
    scores = [
        *(click_score("net", case, dice=0.25, num_clicks=1) for case in "ab"),
        *(click_score("net", case, dice=0.75, num_clicks=10) for case in "ab"),
        click_score("auto", "a", dice=0.5, num_clicks=0, placement="none"),
        click_score("net", "c", data="other", dice=1.0, truth_ml=2.25),
    ]
    one, other = case_tables(*rows_of(scores))
    assert one.caption == "set: Dice of each scan, mean over users"
    assert one.header == (*("model", "scan", "patient", "label (ml)", "0 clicks", "1 click", "10 clicks"),)
    assert one.rows == (
        ("net", "a", "a", "10.0", NONE, "0.250", "0.750"),
        ("net", "b", "b", "10.0", NONE, "0.250", "0.750"),
        ("auto", "a", "a", "10.0", "0.500", NONE, NONE),
    )
    assert other.header[4:] == ("1 click",)
    assert other.rows == (("net", "c", "c", "2.2", "1.000"),)


def test_the_table_has_the_first_click_of_the_protocol_and_the_first_models():
    scores = [
        *(click_score(model, "a") for model in "abcde"),
        *(click_score(model, "a", placement="edge", dice=0.0) for model in "abcde"),
    ]
    records, rows = rows_of(scores)
    (table,) = case_tables(records, rows)
    assert [row[0] for row in table.rows] == ["a", "b", "c", "d"]
    assert {row[-1] for row in table.rows} == {"0.500"}
    assert len(rows) == 10
