import csv
import json
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.run import EvaluationRequest, run_evaluation
from clickvol.io.formats import write_volume
from clickvol.report.page import command_of, report_evaluation, write_report
from reference.click_scores import click_score, click_table, plausible_scores
from reference.evaluation_sets import block_arrays, oblique_grid, write_set

FILES = {
    "report.md",
    "cases.csv",
    "summary.csv",
    "summary.json",
    "tables.tex",
    "click_curve.png",
    "box_plot.png",
    "volume_bland_altman.png",
}
SCORES = list(plausible_scores(num_cases=3, clicks=(1, 5)))


def _write(folder, scores=SCORES, **options):
    return write_report(click_table(*scores), folder, resamples=200, **options)


def _rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "new" / "report"
    summary = _write(
        folder,
        reference="promise3d-small",
        provenance={"command": "`clickvol evaluate\na|b`", "seeds": "0, 1"},
        notes=["liver_CT-99 was left out: its label is empty."],
        pictures={"worst": folder / "pictures" / "a b.png"},
    )
    return folder, summary


def test_the_folder_has_every_file_and_nothing_else(report):
    assert {path.name for path in report[0].iterdir()} == FILES


def test_the_summary_comes_back_from_its_file(report):
    folder, summary = report
    content = json.loads((folder / "summary.json").read_text())
    assert content["reference"] == "promise3d-small"
    assert (content["resamples"], content["dice_to_reach"], content["nsd_tolerance_mm"]) == (200, 0.8, 5.0)
    for name in ("scores", "curves", "comparisons"):
        table = pd.DataFrame(content[name])
        kinds = {"check_dtype": False, "check_categorical": False}
        pd.testing.assert_frame_equal(table, getattr(summary, name), rtol=0, **kinds)


def test_the_summary_table_has_the_numbers_of_the_summary(report):
    folder, summary = report
    rows = _rows(folder / "summary.csv")
    assert len(rows) == len(summary.scores) == 2 * (2 + 2 + 1)
    for row, expected in zip(rows, summary.scores.itertuples(), strict=True):
        assert (row["model"], int(row["num_clicks"])) == (expected.model, expected.num_clicks)
        assert float(row["dice_mean"]) == expected.dice_mean
        assert float(row["dice_low"]) == expected.dice_low
        assert int(row["failures"]) == expected.failures


def test_the_table_of_scans_has_the_means_over_their_users(report):
    rows = _rows(report[0] / "cases.csv")
    # Three scans of two data sets, two clicked models after two numbers of clicks, one without clicks.
    assert len(rows) == 2 * 3 * (2 * 2 + 1)
    row = next(r for r in rows if (r["model"], r["num_clicks"]) == ("ball 50 mm", "5"))
    assert (row["data"], row["case_id"], row["records"]) == ("liver_CT", "liver_CT-00", "2")
    of_case = {"model": "ball 50 mm", "case_id": "liver_CT-00", "num_clicks": 5}
    dice = [score["dice"] for score in SCORES if of_case.items() <= score.items()]
    assert len(dice) == 2
    assert float(row["dice"]) == pytest.approx(sum(dice) / 2)
    page = (report[0] / "report.md").read_text(encoding="utf-8")
    assert "### liver_CT: Dice of each scan, mean over users" in page


def test_the_page_names_where_its_numbers_come_from(report):
    page = (report[0] / "report.md").read_text(encoding="utf-8")
    assert "- command: `clickvol evaluate a|b`" in page
    assert "- seeds: 0, 1" in page
    assert "research use only" in page
    assert "- liver_CT-99 was left out: its label is empty." in page
    assert "counts as an empty mask" in page
    assert "else 200 resamples, seed 0)" in page
    assert "{" not in page


def test_the_page_shows_the_figures_and_the_cases(report):
    page = (report[0] / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"!\[.*?\]\(<(.*?)>\)", page) == [
        "click_curve.png",
        "box_plot.png",
        "volume_bland_altman.png",
        "pictures/a b.png",
    ]


def test_the_page_lists_the_failures(report):
    page = (report[0] / "report.md").read_text(encoding="utf-8")
    assert "## Failures (2)" in page
    line = "- dynunet, liver_CT liver_CT-01, seed 0, first click none, 0 clicks: out of memory"
    assert line in page


def test_columns_are_those_of_the_tolerances_that_were_recorded(tmp_path):
    scores = [click_score("net", nsd={0.5: 0.25, 3: 0.75}), click_score("other", nsd={0.5: 0.5, 3: 0.5})]
    _write(tmp_path, scores, reference="other", nsd_tolerance_mm=3.0)
    assert _rows(tmp_path / "summary.csv")[0]["nsd_3mm_mean"] == "0.75"
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "NSD 0.5 mm | NSD 3 mm | HD95" in page
    assert re.search(r"\| net .* NSD 3 mm \| 1 \| 0.250 \|", page)
    with pytest.raises(ConfigError, match=r"5 mm is not recorded; choose one of 0\.5, 3"):
        _write(tmp_path, scores)


def test_a_long_list_of_failures_is_cut_and_says_so(tmp_path):
    scores = [click_score(case_id=f"{n:02d}", failure="no memory") for n in range(23)]
    _write(tmp_path, scores)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert page.count(": no memory") == 20
    assert "- and 3 more, in scores.csv" in page


def test_each_table_of_the_page_is_also_for_latex(report):
    page = (report[0] / "report.md").read_text(encoding="utf-8")
    latex = (report[0] / "tables.tex").read_text(encoding="utf-8")
    captions = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert len(captions) == 8
    assert re.findall(r"^% (.*)$", latex, re.MULTILINE) == captions
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 8


def test_no_file_says_nan(tmp_path):
    scores = [
        click_score("net", "a", dice=0.0, hd95_mm=None, assd_mm=None, lesion_recall=None),
        click_score("other", "b"),
    ]
    _write(tmp_path, scores, reference="other")
    for name in (
        "report.md",
        "cases.csv",
        "summary.csv",
        "summary.json",
        "tables.tex",
    ):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert not re.search(r"\b(nan|inf|None)\b", text, re.IGNORECASE if name != "report.md" else 0)
    (row, _) = _rows(tmp_path / "summary.csv")
    assert row["hd95_mm_mean"] == ""


def test_the_same_records_give_the_same_bytes_in_any_order_of_cases(report, tmp_path):
    for folder, scores in (("one", SCORES), ("two", sorted(SCORES, key=lambda score: score["seed"]))):
        _write(tmp_path / folder, scores, reference="dynunet")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_report_can_be_written_over_an_older_one(tmp_path):
    _write(tmp_path, [click_score(dice=0.75)])
    _write(tmp_path, [click_score(dice=0.25)])
    (row,) = _rows(tmp_path / "cases.csv")
    assert float(row["dice"]) == 0.25
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_records_that_make_no_report_leave_no_files(tmp_path):
    with pytest.raises(ConfigError, match="'nobody' was not evaluated"):
        _write(tmp_path / "new", SCORES, reference="nobody")
    assert not (tmp_path / "new").exists()


def test_all_numbers_are_finite(report):
    for row in _rows(report[0] / "summary.csv"):
        numbers = [float(text) for name, text in row.items() if "_" in name and _is_number(text)]
        assert len(numbers) > 40
        assert all(map(math.isfinite, numbers))


def _is_number(text):
    return re.fullmatch(r"-?[\d.]+(e-?\d+)?", text) is not None


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    image, label = block_arrays()
    folder = write_set(base / "blocks", {"good": (image, label), "gone": (image + 1, label)})
    (folder / "cases" / "gone.native_label.nii.gz").unlink()
    predictions = base / "empty masks"
    predictions.mkdir()
    write_volume(np.zeros_like(label), oblique_grid(), predictions / "good.nii.gz")
    request = EvaluationRequest(
        methods=("ball:8", f"predictions:{predictions}"),
        data=(str(folder),),
        folder=base / "report",
        protocol=read_protocol(num_clicks=(1, 2), seeds=1),
        split="all",
        reference="ball 8 mm",
        device="cpu",
    )
    return run_evaluation(request)


def test_the_command_does_the_same_evaluation(evaluated):
    command = command_of(evaluated.request)
    assert command.startswith("clickvol evaluate ball:8 'predictions:")
    for words in (
        "--split all --fold 0 --protocol clickvol --clicks 1,2 --seeds 1 --tolerance 2",
        "--nsd-tolerances 1,2,5",
        "--reference 'ball 8 mm'",
    ):
        assert words in command


@pytest.fixture(scope="module")
def reported(evaluated):
    report_evaluation(evaluated)
    return evaluated.request.folder


@pytest.mark.slow
def test_the_page_says_where_numbers_come_from_and_what_is_left_out(reported):
    folder = reported
    page = (folder / "report.md").read_text()
    for text in ("1 per scan, seeds 0 to 0", "ball 8 mm (radius 8 mm)", "blocks (2 cases, sha256 "):
        assert text in page, text
    assert "Not evaluated: blocks gone: " in page
    assert "the mask is empty" in page
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert names == {
        "ball-8-mm-blocks-median.png",
        "empty-masks-blocks-median.png",
        "empty-masks-+-click-blocks-median.png",
    }


@pytest.mark.slow
def test_the_same_evaluation_makes_the_same_report(evaluated, reported):
    folder = reported
    files = [path for path in folder.rglob("*") if path.suffix in (".md", ".csv", ".png", ".json")]
    before = {path: path.read_bytes() for path in files}
    shutil.rmtree(folder / "pictures")
    report_evaluation(evaluated)
    assert {path: path.read_bytes() for path in files} == before
    assert len(before) >= 10
