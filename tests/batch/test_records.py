import csv
from dataclasses import replace

import pytest

from clickvol.batch.manifest import BatchRow
from clickvol.batch.records import (
    RowRecord,
    current_record,
    failed_record,
    record_path,
    write_record,
    write_summary,
)
from clickvol.errors import OutputError
from clickvol.predict.segmentation_request import SegmentationRequest


def make_row(folder, number=1):
    job = SegmentationRequest(scan=folder / "s", clicks=(), mask=folder / f"m{number}.nii.gz")
    return BatchRow(number=number, scan="s", output=f"m{number}.nii.gz", job=job, key=f"key{number}")


def make_record(row, **changes):
    values = {
        "row": row.number, "key": row.key, "status": "done", "scan": row.scan, "output": row.output,
        "model": "tiny", "modality": "MR", "voxels": 5, "volume_ml": 0.25, "seconds": 1.5,
        "warnings": ("one.", "two."), "clickvol_version": "1",
    }  # fmt: skip
    return RowRecord(**(values | changes))


@pytest.fixture(autouse=True)
def records_folder(tmp_path):
    (tmp_path / "records").mkdir()


def finish(folder, row, **changes):
    record = make_record(row, **changes)
    row.job.mask.write_bytes(b"mask")
    write_record(folder, row, record)
    return record


def test_a_record_counts_only_while_row_model_and_mask_are_the_same(tmp_path):
    row = make_row(tmp_path)
    assert current_record(tmp_path, row) is None
    record = finish(tmp_path, row)
    assert current_record(tmp_path, row) == record
    assert current_record(tmp_path, replace(row, key="other")) is None
    assert current_record(tmp_path, replace(row, number=2)) is None
    row.job.mask.unlink()
    assert current_record(tmp_path, row) is None


def test_a_failure_needs_no_mask(tmp_path):
    row = make_row(tmp_path)
    record = make_record(row, status="failed", error="why")
    write_record(tmp_path, row, record)
    assert current_record(tmp_path, row) == record


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"row": 1}', b"[]"])
def test_a_damaged_record_is_none(tmp_path, content):
    row = make_row(tmp_path)
    finish(tmp_path, row)
    record_path(tmp_path, row).write_bytes(content)
    assert current_record(tmp_path, row) is None


def test_the_summary_has_every_row_also_those_nobody_did(tmp_path):
    done, failed, unusable, still_open = (make_row(tmp_path, n) for n in (1, 2, 3, 4))
    finish(tmp_path, done)
    write_record(tmp_path, failed, make_record(failed, status="failed", error='a "bad", click'))
    unusable = replace(unusable, job=None, key="", problem="no click")
    write_record(tmp_path, unusable, make_record(unusable, status="failed", error="no click"))
    path = write_summary(tmp_path, [done, failed, unusable, still_open])
    assert path == tmp_path / "summary.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "row": "1", "status": "done", "scan": "s", "output": "m1.nii.gz", "model": "tiny",
        "modality": "MR", "voxels": "5", "volume_ml": "0.25", "seconds": "1.5",
        "warnings": "one. two.", "error": "",
    }  # fmt: skip
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "open"]
    assert [row["error"] for row in rows[1:]] == ['a "bad", click', "no click", ""]


def test_a_folder_that_cannot_be_written(tmp_path):
    row = make_row(tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        write_record(tmp_path / "none", row, make_record(row))


def test_a_failure_is_said_in_one_line(tmp_path):
    record = failed_record(make_row(tmp_path), "the click\n is bad")
    assert (record.row, record.key, record.status, record.error) == (1, "key1", "failed", "the click is bad")
    assert record.clickvol_version
