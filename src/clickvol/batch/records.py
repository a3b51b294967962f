"""What came of each row of a batch: a file per row, so that nothing is lost by a stop, and a table of all."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clickvol.batch.manifest import BatchRow
from clickvol.files.atomic import atomic_path, write_text
from clickvol.predict.segmentation_request import SegmentationResult
from clickvol.version import __version__

RECORDS_NAME = "records"
SUMMARY_NAME = "summary.csv"


class RowRecord(BaseModel):
    """The outcome of a row.

    Attributes:
        row: its number in the manifest, from 1.
        key: of the row that this is the outcome of; see `BatchRow`.
        status: whether the mask is written.
        model: id of the model; empty for a row that failed before it was known.
        warnings: what a person should know, one sentence each.
        error: why there is no mask, in one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int
    key: str
    status: Literal["done", "failed"]
    scan: str
    output: str
    model: str = ""
    modality: str | None = None
    voxels: int | None = None
    volume_ml: float | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    clickvol_version: str


_COLUMNS = [name for name in RowRecord.model_fields if name not in ("key", "clickvol_version")]


def done_record(row: BatchRow, result: SegmentationResult) -> RowRecord:
    """Return the record of a row whose mask is written."""
    segmentation = result.segmentation
    return _record(
        row,
        status="done",
        model=segmentation.model_id,
        modality=segmentation.modality,
        voxels=segmentation.mask.num_voxels,
        volume_ml=round(segmentation.mask.volume_ml, 4),
        seconds=round(result.seconds["total"], 3),
        warnings=result.warnings,
    )


def failed_record(row: BatchRow, error: str) -> RowRecord:
    """Return the record of a row without a mask."""
    return _record(row, status="failed", error=" ".join(error.split()))


def _record(row: BatchRow, **facts: Any) -> RowRecord:  # noqa: ANN401  # the other fields
    return RowRecord(
        row=row.number, key=row.key, scan=row.scan, output=row.output, clickvol_version=__version__, **facts
    )


def record_path(folder: Path, row: BatchRow) -> Path:
    """Return where the outcome of a row is kept."""
    return folder / RECORDS_NAME / f"{row.number:06d}.json"


def write_record(folder: Path, row: BatchRow, record: RowRecord) -> None:
    """Write the outcome of a row as `write_text` does; the folder `records` is there."""
    write_text(record_path(folder, row), record.model_dump_json(indent=1) + "\n")


def current_record(folder: Path, row: BatchRow) -> RowRecord | None:
    """Return the outcome of a row as it is now, or None: not tried yet, changed since, or its mask is gone."""
    try:
        text = record_path(folder, row).read_text(encoding="utf-8")
        record = RowRecord.model_validate_json(text)
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    if record.key != row.key or record.output != row.output:
        return None
    if record.status == "done" and not (row.job and row.job.mask.is_file()):
        return None
    return record


def write_summary(folder: Path, rows: Sequence[BatchRow]) -> Path:
    """Write the table of all rows; OutputError when it cannot be written."""
    path = folder / SUMMARY_NAME
    with atomic_path(path, ".csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_cells(row, current_record(folder, row)) for row in rows)
    return path


def _cells(row: BatchRow, record: RowRecord | None) -> dict[str, object]:
    if record is None:
        return {"row": row.number, "status": "open", "scan": row.scan, "output": row.output}
    cells = {name: getattr(record, name) for name in _COLUMNS}
    return cells | {"warnings": " ".join(record.warnings)}
