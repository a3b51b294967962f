"""The numbers and tables of a report, as they were before records became a table."""

import csv
import json
from pathlib import Path

import pytest

from clickvol.evaluation.records import score_table
from clickvol.report.page import write_report
from reference.golden_records import golden_scores

pytest.importorskip("matplotlib")

GOLDEN = Path(__file__).with_name("golden")


def _read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _is_close(text, other):
    try:
        return float(text) == pytest.approx(float(other), rel=1e-11, abs=1e-12)
    except ValueError:
        return text == other


def _assert_same(rows, golden):
    assert len(rows) == len(golden) > 0
    for row, expected in zip(rows, golden, strict=True):
        text = {name: "" if row[name] is None else str(row[name]) for name in expected}
        assert {n for n in expected if not _is_close(text[n], expected[n])} == set(), expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("golden")
    write_report(
        score_table(golden_scores()),
        made,
        reference="promise3d-small",
        provenance={"Study": "golden"},
        notes=["A note."],
        resamples=500,
    )
    return made


@pytest.mark.parametrize("name", ["report.md", "tables.tex"])
def test_page_and_tables_are_the_same_text(folder, name):
    assert (folder / name).read_text(encoding="utf-8") == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["summary.csv", "cases.csv"])
def test_means_medians_and_intervals_are_the_same_numbers(folder, name):
    _assert_same(_read(folder / name), _read(GOLDEN / name))


def test_tests_against_the_reference_are_the_same_numbers(folder):
    rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["comparisons"]
    _assert_same(rows, _read(GOLDEN / "comparisons.csv"))


def test_click_curves_are_the_same_numbers(folder):
    rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["curves"]
    for row in rows:
        row["num_clicks"] = " ".join(map(str, row["num_clicks"]))
    _assert_same(rows, _read(GOLDEN / "curves.csv"))
