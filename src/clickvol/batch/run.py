"""Many scans: a manifest in, a mask per row and a table out; stoppable at any moment and resumable."""

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clickvol.batch.manifest import BatchRow, read_manifest
from clickvol.batch.records import (
    RECORDS_NAME,
    RowRecord,
    current_record,
    done_record,
    failed_record,
    write_record,
    write_summary,
)
from clickvol.errors import BatchError, ClickvolError, OutputError
from clickvol.files.atomic import make_folder, remove_abandoned
from clickvol.files.lock import only_process_in
from clickvol.parallel.rows import OnProgress, RowFailure, check_workers, run_rows
from clickvol.predict.segmentation_request import run_request
from clickvol.weights.card import DEFAULT_MODEL_ID, read_card

if TYPE_CHECKING:
    from clickvol.weights.load import LoadedModel

# Rows may alternate between two models; more would fill the memory of a device.
_KEPT_MODELS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What to do.

    Attributes:
        manifest: CSV file; docs/how-to/batch.md has its columns.
        folder: for relative outputs, the records and the summary.
        workers: processes on this machine; see `run_rows`.
        scheduler: of a Dask cluster; see `run_rows`.
        model: id or path for rows that name none; None takes the default model.

    Raises:
        ConfigError: on construction, for no worker, or several beside a scheduler.
    """

    manifest: Path
    folder: Path
    workers: int = 1
    scheduler: str | None = None
    model: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_workers(self.workers, self.scheduler)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """What came of a batch: how many rows there are, had been done before and failed, and the table of all."""

    total: int
    earlier: int
    failed: int
    summary: Path

    def raise_if_failed(self) -> None:
        """Refuse to call a batch done that is not; BatchError when a row failed."""
        if self.failed:
            raise BatchError(
                f"{self.failed} of {self.total} rows failed; {self.summary} says why, and the same "
                "command again tries them again"
            )


def run_batch(
    request: BatchRequest, *, on_progress: OnProgress = lambda _done, _total, _text: None
) -> BatchOutcome:
    """Do every row that is not done yet. A row that fails is tried again the next time.

    `on_progress` is called at the beginning and after every row, and hears how many have failed.

    Raises:
        ConfigError: for a manifest that is none, a folder that another process is working in, or a scheduler
            that cannot be reached.
        OutputError: when the folder cannot be written.
    """
    folder = request.folder
    rows = read_manifest(request.manifest, folder, model=request.model, device=request.device)
    with contextlib.ExitStack() as lock:
        make_folder(folder / RECORDS_NAME)
        with contextlib.suppress(OutputError):  # not every cluster's file system has locks
            lock.enter_context(only_process_in(folder))
        _clear_remains(folder, rows)
        missing = [row for row in rows if not _is_done(folder, row)]
        earlier = len(rows) - len(missing)
        records: list[RowRecord] = []

        def report() -> None:
            failed = sum(record.status == "failed" for record in records)
            on_progress(earlier + len(records), len(rows), f"{failed} failed" if failed else "")

        def keep(row: BatchRow, outcome: RowRecord | RowFailure) -> None:
            record = failed_record(row, outcome.reason) if isinstance(outcome, RowFailure) else outcome
            write_record(folder, row, record)
            records.append(record)
            report()

        report()
        for row in missing:
            if row.job is None:
                keep(row, RowFailure(row.problem or "the row cannot be used"))
        run_rows(
            functools.partial(segment_row, folder=folder.absolute()),
            [row for row in missing if row.job is not None],
            keep,
            workers=request.workers,
            scheduler=request.scheduler,
        )
        summary = write_summary(folder, rows)
    failed = sum(record.status == "failed" for record in records)
    return BatchOutcome(total=len(rows), earlier=earlier, failed=failed, summary=summary)


def segment_row(row: BatchRow, folder: Path) -> RowRecord:
    """Segment a row and write its mask; folders for masks are made inside that of the batch alone."""
    if row.job is None:
        return failed_record(row, row.problem or "the row cannot be used")
    from clickvol.weights.device import device_of_worker

    job = replace(row.job, device=device_of_worker(row.job.device))
    model = job.model or DEFAULT_MODEL_ID
    try:
        load = functools.partial(_shared_model, model, job.device, read_card(model).sha256)
        if job.mask.is_relative_to(folder):
            make_folder(job.mask.parent)
        return done_record(row, run_request(job, load=load))
    except ClickvolError as error:
        return failed_record(row, str(error))


@functools.lru_cache(maxsize=_KEPT_MODELS)
def _shared_model(model: str, device: str, _sha256: str) -> "LoadedModel":
    """Load a model once, unless its weights are others: a worker of a cluster may live for long."""
    from clickvol.weights.load import load_model

    return load_model(model, device=device)


def _clear_remains(folder: Path, rows: Sequence[BatchRow]) -> None:
    """Remove what killed workers left half written."""
    inside = folder.absolute()
    parents = {row.job.mask.parent for row in rows if row.job}
    for place in (inside, inside / RECORDS_NAME, *(p for p in parents if p.is_relative_to(inside))):
        if place.is_dir():
            remove_abandoned(place)


def _is_done(folder: Path, row: BatchRow) -> bool:
    record = current_record(folder, row)
    return record is not None and record.status == "done"
